"""Web pages as Markdown, parsed as HTML5 like a browser does: no end tag needs to be there."""

from __future__ import annotations

import re

import webencodings
from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from markdownify import MarkdownConverter

from m3connect.conversion.encodings import codec_of, decode
from m3connect.errors import InputError

_LEFT_OUT = (
    "head, script, style, template, noscript, iframe, nav, [role=navigation], [hidden], "
    "button, select, datalist, textarea"
)
# HTML shows a run of blanks as one, and the converter takes the square of its length.
_TEMPLATE = re.compile(r"<(/?)template(?=[\s/>])[^>]{0,4096}>", re.IGNORECASE)
_LONG_BLANKS = re.compile(r"[ \t\r\n\f]{100,}")


def html_to_markdown(content: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """The page's text and title; scripts, forms and navigation are left out.

    Args:
        content: the page.
        encoding: has precedence over the one that the page declares.

    Raises:
        InputError: the page is not in the encoding it declares.
    """
    text, _ = decode(content, encoding or _declared(content))
    soup = BeautifulSoup(_LONG_BLANKS.sub(_one_blank, _shown(text)), "html5lib")
    title = soup.title.get_text(" ", strip=True) if soup.title else None
    for tag in soup.select(_LEFT_OUT):
        tag.decompose()
    markdown = MarkdownConverter(
        heading_style="ATX", escape_asterisks=False, escape_underscores=False
    ).convert_soup(soup)
    return markdown.strip(), title or None


def _shown(text: str) -> str:
    """Without templates, which no browser shows: html5lib may take all that follows for a part of one.

    >>> _shown("a <template><li>b<template></template></template> c")
    'a  c'
    """
    kept, place, depth = [], 0, 0
    for tag in _TEMPLATE.finditer(text):
        if not tag[1]:
            if not depth:
                kept.append(text[place : tag.start()])
                place = tag.start()
            depth += 1
        elif depth:
            depth -= 1
            place = place if depth else tag.end()
    return "".join([*kept, text[place:]])


def _declared(content: bytes) -> str | None:
    """What the page says of itself near its beginning; None, or a name nobody knows, leaves it to be told."""
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    known = webencodings.lookup(declared) if declared else None
    if known and known.name.startswith("utf-16"):
        return "utf-8"  # a page that can say so in ASCII is not in UTF-16 (HTML standard, 13.2.3.2)
    try:
        return codec_of(declared) if declared else None
    except InputError:
        return None


def _one_blank(run: re.Match[str]) -> str:
    return "\n" if "\n" in run[0] else " "
