"""One page of the web, within limits, from an address that may be asked.

A name is resolved once for each connection, the addresses that it stands for are judged, and one of
them, not the name, is connected to. So neither a redirect nor a name that stands for another address the
next time leads into a private network. Proxies of the environment are not used: they would resolve by
themselves.
"""

from __future__ import annotations

import socket
import tempfile
import time
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import IO, Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

try:
    import httpcore
except ImportError as error:
    from m3connect.errors import ConfigError

    raise ConfigError(f'web pages need an extra ({error}): pip install "m3connect[web]"') from error

from fsspec.utils import infer_compression

from m3connect.errors import InputError
from m3connect.ingestion.formats import HTML, RECORDS, suffix_of_url
from m3connect.ingestion.sitemaps import is_web

REDIRECTS = 5
SECONDS = 20.0
"""For a connection, and between two parts of an answer."""
WHOLE = 120.0
"""Seconds for one page."""
RECORDS_BYTES = 10_000_000_000
"""Most bytes of a file of records, which is kept on disk while it is read."""
PAGE = ("text/html", "application/xhtml+xml")
_MOVED = (301, 302, 303, 307, 308)
_MEMORY = 1 << 20  # bytes of a page that is not kept on disk
_NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address, behind a gateway
_FAULTS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


def fetch(url: str, *, private: bool, page_bytes: int) -> IO[bytes]:
    """What a URL answers, in a file at its start.

    Args:
        url: of ``http`` or ``https``; a name and a password in it are sent to its own host alone.
        private, page_bytes: as :class:`m3connect.ingestion.web.Web` says.

    Raises:
        InputError: as it says.
    """
    suffix = suffix_of_url(url)
    most = RECORDS_BYTES if suffix in RECORDS else page_bytes
    until = time.monotonic() + WHOLE
    asked, secret = _plain(url)
    origin = urlsplit(asked)[:2]
    with httpcore.ConnectionPool(network_backend=Guarded(private=private)) as pool:
        for _ in range(REDIRECTS + 1):
            login = secret if urlsplit(asked)[:2] == origin else None
            with _answer(pool, asked, login) as answer:
                if answer.status in _MOVED:
                    asked = _redirected(asked, _header(answer, b"location"))
                    continue
                if answer.status != 200:
                    raise InputError(f"the server answers {answer.status}")
                _require_kind(suffix, _header(answer, b"content-type"))
                parts = answer.iter_stream()
                # Some servers pack unasked; of a file that is packed itself they may mean that.
                if _header(answer, b"content-encoding") == "gzip" and not _is_packed(url):
                    parts = _unpacked(parts)
                return _kept(parts, most, until)
    raise InputError(f"more than {REDIRECTS} redirects, the last to {asked}")


class Guarded(httpcore.SyncBackend):
    """Connects to public addresses alone, unless others are allowed.

    Args:
        private: says so.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """To one of the addresses that a host's name stands for.

        Raises:
            InputError: it stands for one that is not public, or for none.
        """
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise InputError(f"{host}: {error.strerror}") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in infos))
        inside = [each for each in addresses if not is_public(each)]
        if inside and not self._private:
            place = host if host == inside[0] else f"{host} is at {inside[0]}, which"
            raise InputError(f"{place} is not a public address (--allow-private reads it)")
        failed: Exception | None = None
        for address in addresses:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        assert failed is not None, "a name that is resolved has an address"
        raise failed


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, for everyone.

    >>> is_public("93.184.215.14"), is_public("169.254.169.254"), is_public("::ffff:127.0.0.1")
    (True, False, False)
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and (inner := _embedded(ip)) is not None:
        ip = inner
    return ip.is_global and not ip.is_multicast


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that is asked in the end."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def _plain(url: str) -> tuple[str, str | None]:
    """A URL as it is asked, and what logs in."""
    parts = urlsplit(url)
    assert parts.hostname is not None, "which listing looks at"
    try:
        host = parts.hostname.encode("ascii" if ":" in parts.hostname else "idna").decode()
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError as error:
        raise InputError(f"no address of a web page: {error}") from error
    host = f"[{host}]" if ":" in host else host
    path, query = (
        quote(part, safe="%/:=&?~+!$,;'@()*[]") for part in (parts.path or "/", parts.query)
    )
    login = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = f"Basic {b64encode(pair.encode()).decode()}"
    return urlunsplit((parts.scheme.lower(), host + port, path, query, "")), login


@contextmanager
def _answer(
    pool: httpcore.ConnectionPool, url: str, login: str | None
) -> Iterator[httpcore.Response]:
    """The beginning of an answer.

    Raises:
        InputError: there is none.
    """
    headers = {
        "Host": urlsplit(url).netloc,
        "User-Agent": f"m3connect/{version('m3connect')}",
        "Accept": "text/html, */*",
        "Accept-Encoding": "identity",
    }
    if login is not None:
        headers["Authorization"] = login
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
    try:
        with pool.stream(
            "GET", url, headers=list(headers.items()), extensions={"timeout": timeout}
        ) as answer:
            yield answer
    except _FAULTS as error:
        raise InputError(f"no answer: {error or type(error).__name__}") from error


def _redirected(url: str, place: str) -> str:
    """Where an answer leads.

    Raises:
        InputError: nowhere, or out of what is read.
    """
    target = urljoin(url, place)
    if not place or not is_web(target):
        raise InputError(f"it redirects to {place!r}, which is no address of a web page")
    if url.startswith("https:") and not target.lower().startswith("https:"):
        raise InputError(f"it redirects from https to {target!r}")
    return _plain(target)[0]


def _require_kind(suffix: str, kind: str) -> None:
    """Raises InputError where the answer is not what the address's end stands for."""
    kind = kind.partition(";")[0].strip().lower()
    if suffix in HTML and kind and kind not in PAGE:
        raise InputError(
            f"it is {kind}: what is no web page (text/html) is read by the end of its address, such as .pdf"
        )
    if suffix not in HTML and kind in PAGE:
        raise InputError(f"it is a web page ({kind}) where {suffix} was to be read")


def _is_packed(url: str) -> bool:
    return infer_compression(urlsplit(url).path) is not None


def _header(answer: httpcore.Response, name: bytes) -> str:
    values = (value for key, value in answer.headers if key.lower() == name)
    return next(values, b"").decode("latin-1")


def _unpacked(parts: Iterator[bytes]) -> Iterator[bytes]:
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        for part in parts:
            rest = part
            while rest and not unpacking.eof:
                yield unpacking.decompress(rest, _MEMORY)
                rest = unpacking.unconsumed_tail
    except zlib.error as error:
        raise InputError(f"it is no gzip, as it says: {error}") from error
    if not unpacking.eof:
        raise InputError("it is cut off")


def _kept(parts: Iterator[bytes], most: int, until: float) -> IO[bytes]:
    """Raises InputError where it is too much, or takes too long."""
    copy = tempfile.SpooledTemporaryFile(_MEMORY)  # noqa: SIM115 - the caller's
    try:
        size = 0
        for part in parts:
            size += len(part)
            if size > most:
                raise InputError(f"more than {most:,} bytes (--max-file-bytes)")
            if time.monotonic() > until:
                raise InputError(f"it takes more than {WHOLE:.0f} seconds")
            copy.write(part)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy
