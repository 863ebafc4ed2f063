"""Web pages as Markdown, parsed as HTML5 like a browser does: no end tag needs to be there."""

from __future__ import annotations

import re

import webencodings
from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from markdownify import MarkdownConverter

from m3connect.conversion.encodings import decode

_LEFT_OUT = (
    "head, script, style, template, noscript, nav, [role=navigation], [hidden], "
    "button, select, datalist, textarea"
)
# HTML shows a run of blanks as one, and the converter takes the square of its length.
_LONG_BLANKS = re.compile(r"[ \t\r\n\f]{100,}")


def html_to_markdown(content: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """The page's text and title; scripts, forms and navigation are left out.

    Args:
        content: the page.
        encoding: has precedence over the one that the page declares.

    Raises:
        InputError: the page is not in the encoding it declares, or names one that nobody knows.
    """
    text, _ = decode(content, encoding or _declared(content))
    soup = BeautifulSoup(_LONG_BLANKS.sub(_one_blank, text), "html5lib")
    title = soup.title.get_text(" ", strip=True) if soup.title else None
    for tag in soup.select(_LEFT_OUT):
        tag.decompose()
    markdown = MarkdownConverter(
        heading_style="ATX", escape_asterisks=False, escape_underscores=False
    ).convert_soup(soup)
    return markdown.strip(), title or None


def _declared(content: bytes) -> str | None:
    """What the page says of itself near its beginning; None leaves it to be told."""
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    known = webencodings.lookup(declared) if declared else None
    # A page that can say so in ASCII is not in UTF-16 (HTML standard, 13.2.3.2).
    return "utf-8" if known and known.name.startswith("utf-16") else declared


def _one_blank(run: re.Match[str]) -> str:
    return "\n" if "\n" in run[0] else " "
