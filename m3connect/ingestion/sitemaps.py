"""Lists of web pages: sitemaps, and files of addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LIST = ".urls"
"""The suffix of a text file that lists pages, an address a line."""
SITEMAP = ".xml"
LIST_BYTES = 50_000_000
"""Most bytes of one list: what the protocol of sitemaps allows."""


def listed(stream: IO[bytes]) -> list[str]:
    """The URLs of a list: a line each, but for blank ones and those that begin with ``#``.

    >>> from io import BytesIO
    >>> listed(BytesIO(b"# guides\\n\\nhttps://example.com/a\\n"))
    ['https://example.com/a']

    Raises:
        ConfigError: a line is no URL of the web, or the list is too long.
    """
    urls = []
    for number, line in enumerate(_content(stream).decode("utf-8-sig").splitlines(), 1):
        url = line.strip()
        if url and not url.startswith("#"):
            if not is_web(url):
                raise ConfigError(f"line {number}: no address of a web page: {url!r}")
            urls.append(url)
    return urls


def sitemap(stream: IO[bytes]) -> tuple[list[str], list[str]] | None:
    """What an XML file lists as a sitemap (https://www.sitemaps.org/protocol.html): pages, and other sitemaps.

    >>> from io import BytesIO
    >>> sitemap(BytesIO(b"<urlset><url><loc> https://example.com/a </loc></url></urlset>"))
    (['https://example.com/a'], [])
    >>> sitemap(BytesIO(b"<rss/>"))

    Returns:
        None if it is another kind of file.

    Raises:
        ConfigError: it is too long.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError as error:
        raise ConfigError(
            f'a sitemap is missing an extra ({error}): pip install "m3connect[web]"'
        ) from error
    try:
        root = fromstring(_content(stream))
    except (ParseError, DefusedXmlException):
        return None
    match _name(root):
        case "urlset":
            return list(_places(root, "url")), []
        case "sitemapindex":
            return [], list(_places(root, "sitemap"))
    return None


def is_web(url: str) -> bool:
    """Whether it is an address of the web.

    >>> is_web("HTTPS://example.com/a"), is_web("ftp://example.com/a"), is_web("https://")
    (True, False, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _content(stream: IO[bytes]) -> bytes:
    content = stream.read(LIST_BYTES + 1)
    if len(content) > LIST_BYTES:
        raise ConfigError(f"a list of more than {LIST_BYTES:,} bytes; cut it")
    return content


def _places(root: Element, of: str) -> Iterator[str]:
    for each in root:
        for part in each if _name(each) == of else ():
            if _name(part) == "loc" and part.text and part.text.strip():
                yield part.text.strip()


def _name(element: Element) -> str:
    """Without its name space."""
    return str(element.tag).rpartition("}")[2]
