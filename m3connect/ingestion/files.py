"""Files to read, wherever they lie: on this machine, on a remote file system, on the web."""

from __future__ import annotations

import posixpath
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote_plus, urlsplit

from fsspec.compression import compr
from fsspec.core import url_to_fs
from fsspec.utils import infer_compression

from m3connect.errors import ConfigError, InputError
from m3connect.ingestion.formats import suffix_of, suffix_of_url
from m3connect.ingestion.sitemaps import is_web
from m3connect.ingestion.web import Web

STDIN = "-"
STDIN_NAME = "stdin"
PROTOCOLS = ("file", "local", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "hf")
"""File systems that are read; fsspec knows many more, some of which run commands or other URLs."""
_LOCAL = {"file", "local"}
_LFS = b"version https://git-lfs.github.com/spec/"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_OPENS = (
    "api|app|access|account|auth|client|consumer|function|license|master|private|public|secret|session|"
    "shared|sign|signing|storage|subscription|user"
)
_SECRET = re.compile(
    rf"[a-z]*(tokens?|secrets?|passwords?|passwd|signature|credentials?)|({_OPENS})*keys?"
    r"|sig|sign|signed|pwd|auth|authorization|bearer|jwt",
    re.IGNORECASE,
)
"""A word of a parameter's name, or one that ends in what is hardly the end of another; never a part of one, as in
``keyword`` and ``design``, nor in ``monkey``: two pages would have one id."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    Args:
        filesystem: the fsspec file system it lies in; None is standard input.
        path: within the file system.
        name: relative to the path the user gave, the same on every machine; a URL for others than
            local files.
        fault: why it cannot be read, if that is known already.
        root: the name of the source that it belongs to: see :func:`root_of`.
        part: whether it was chosen, and others of that source may not be: by its name, a glob or
            ``include``. (What is excluded or ignored is none of the source's.)
    """

    filesystem: Any
    path: str
    name: str
    fault: str | None = None
    root: str = ""
    part: bool = False

    @property
    def suffix(self) -> str:
        """The format, such as ``.jsonl``, whether or not the file is compressed."""
        if self.filesystem is None:
            return ".jsonl"
        web = isinstance(self.filesystem, Web)
        return suffix_of_url(self.path) if web else suffix_of(self.path)

    @property
    def compression(self) -> str | None:
        """What fsspec calls its compression."""
        path = self.path
        if isinstance(self.filesystem, Web):
            path = urlsplit(path).path
        kind: str | None = infer_compression(path)
        return kind

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes, decompressed.

        Raises:
            InputError: it is not what its name says.
        """
        if self.fault is not None:
            raise InputError(self.fault)
        if self.filesystem is None:
            yield sys.stdin.buffer
            return
        with self._raw() as raw:
            if raw.read(len(_LFS)) == _LFS:
                raise InputError("a Git LFS pointer, not the file itself: run 'git lfs pull'")
            raw.seek(0)
            if self.compression is None:
                yield raw
            elif self.compression == "zip":
                with _only_member(raw) as member:
                    yield member
            else:
                with compr[self.compression](raw, mode="r") as unpacked:
                    yield unpacked

    def _raw(self) -> Any:
        if is_local(self.filesystem):
            return open(self.path, "rb")  # noqa: PTH123 - fsspec's own is slow by line
        return self.filesystem.open(self.path, "rb")


@contextmanager
def _only_member(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(raw) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise InputError(f"the archive holds {len(members)} files; unpack it, or pack one")
        with archive.open(members[0]) as member:
            yield member


def is_local(filesystem: Any) -> bool:
    """Whether the file system is this machine's."""
    return bool(_LOCAL & set(_protocols(filesystem)))


def _protocols(filesystem: Any) -> tuple[str, ...]:
    known = filesystem.protocol
    return (known,) if isinstance(known, str) else tuple(known)


def root_of(filesystem: Any, path: str, *, folder: bool = False) -> str:
    """The name of a source: the absolute path or the URL of a file, or of a folder and then a slash.

    The same from wherever it is called, so that a collection knows whose a document is.
    """
    name = posixpath.abspath(path) if is_local(filesystem) else address(filesystem, path)
    return f"{name.rstrip('/')}/" if folder else name


def located(root: str, name: str, web: Web) -> SourceFile:
    """A file of which only its root and its name are known, as one document or some of its source.

    Args:
        root, name: of the file.
        web: how it is fetched, if it is a page of the web.

    Raises:
        ConfigError: it is standard input, or of a protocol that is not read.
        InputError: it is not there any more.
    """
    if root == STDIN_NAME:
        raise ConfigError("what came on standard input cannot be read again")
    filesystem, path = file_system(name if "://" in name else root, web)
    if is_local(filesystem) and root.endswith("/"):
        path = posixpath.join(path, name)
    if is_local(filesystem) and not filesystem.isfile(path):
        raise InputError(f"{path} is not there any more")
    return SourceFile(filesystem, path, name, root=root, part=True)


def file_system(path: str, web: Web) -> tuple[Any, str]:
    """The file system that a path lies in, and the path there.

    Raises:
        ConfigError: it is of a protocol that is not read.
    """
    if is_web(path) and "::" not in path:
        return web, path
    protocol = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://|::|:(?=,))|data:", path)
    if "::" in path or (protocol and (protocol[1] or "data").lower() not in PROTOCOLS):
        raise ConfigError(
            f"{masked(path)}: only these protocols are read, and not in chains: "
            f"{', '.join(PROTOCOLS)}"
        )
    try:
        filesystem, root = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{masked(path)}: {error}") from error
    return filesystem, root


def address(filesystem: Any, path: str) -> str:
    """A remote file's URL, which is its id, without passwords and signatures."""
    return masked(path if "://" in path else filesystem.unstrip_protocol(path))


def masked(url: str) -> str:
    """Without what lets in, and without a fragment.

    >>> masked("https://me:secret@host/a.html?page=2&token=x")
    'https://host/a.html?page=2'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest, _, query = rest.partition("#")[0].partition("?")
    host, slash, path = rest.partition("/")
    given = [each for each in query.split("&") if not _is_secret(each.partition("=")[0])]
    kept = "&".join(filter(None, given))
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?' if kept else ''}{kept}"


def _is_secret(name: str) -> bool:
    """Whether a parameter of a URL lets in, by its name.

    >>> [name for name in ("keyword", "api_key", "AWSAccessKeyId", "design", "sastoken", "APIkey") if _is_secret(name)]
    ['api_key', 'AWSAccessKeyId', 'sastoken', 'APIkey']
    """
    name = unquote_plus(name)
    signed = name.lower().startswith(("x-amz-", "x-goog-"))
    words = re.findall("[A-Za-z]+", name) + _WORD.findall(name)
    return signed or any(map(_SECRET.fullmatch, words))
