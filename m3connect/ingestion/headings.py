"""The headings of Markdown, and which section each place of a text belongs to."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 200  # characters; a longer line is no heading but text
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LINK = re.compile(r"!?\[([^\[\]]{0,200})\]\([^()\s]{0,500}\)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading and where it stands.

    Args:
        start: of its first line, in characters.
        stop: after its last line.
        path: the headings above it and its own text, outermost first.
    """

    start: int
    stop: int
    path: tuple[str, ...]


class Sections:
    """The headings of a Markdown text, in order.

    >>> sections = Sections("# Pumps\\n\\n## Pump A\\n\\nText.\\n")
    >>> sections.path(20)
    ('Pumps', 'Pump A')
    """

    def __init__(self, text: str) -> None:
        self.headings = list(_headings(text))
        self._starts = [heading.start for heading in self.headings]

    def path(self, place: int) -> tuple[str, ...]:
        """The headings above a place, outermost first."""
        index = bisect_right(self._starts, place)
        return self.headings[index - 1].path if index else ()

    def within(self, start: int, stop: int) -> list[Heading]:
        """The headings of which some part lies between two places."""
        first = max(bisect_right(self._starts, start) - 1, 0)
        return [
            heading
            for heading in self.headings[first : bisect_right(self._starts, stop)]
            if heading.start < stop and heading.stop > start
        ]


def _headings(text: str) -> Iterator[Heading]:
    above: list[tuple[int, str]] = []  # levels and texts
    for start, stop, level, words in _lines(text):
        while above and above[-1][0] >= level:
            above.pop()
        above.append((level, words))
        yield Heading(start, stop, tuple(each for _, each in above))


def _lines(text: str) -> Iterator[tuple[int, int, int, str]]:
    """Start, stop, level and words of each heading; none inside of code."""
    fence = ""
    before: tuple[int, str] | None = None  # a line that an underline would make a heading
    for match in _LINE.finditer(text):
        line, start, stop = match[0].rstrip("\r\n"), match.start(), match.end()
        if len(line) > LONGEST:
            before = None
            continue
        opened = _FENCE.match(line)
        if fence:
            if opened and opened[1].startswith(fence) and not line[opened.end() :].strip():
                fence = ""
            continue
        if opened:
            fence, before = opened[1], None
        elif heading := _ATX.match(line):
            words = _plain((heading[2] or "").rstrip().rstrip("#"))
            if words:
                yield start, stop, len(heading[1]), words
            before = None
        elif before is not None and (under := _UNDERLINE.match(line)):
            words = _plain(before[1])
            if words:
                yield before[0], stop, 1 if under[1][0] == "=" else 2, words
            before = None
        else:
            alone = (
                before is None and line.strip() and not line.lstrip().startswith((">", "|", "-"))
            )
            before = (start, line) if alone else None


def _plain(words: str) -> str:
    """Without links and emphasis."""
    return " ".join(_LINK.sub(r"\1", words).replace("**", "").replace("`", "").split())
