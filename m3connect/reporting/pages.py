"""Tables as data, rendered to Markdown and to HTML, and the one HTML page that reports are.

A page is self-contained: it loads nothing from anywhere. Evaluation and training fill the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Template

_MARKS = {"": "", "strong": "**", "em": "*"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with emphasis: ``strong`` for the best and for means, ``em`` for what others measured."""

    text: str
    style: Literal["", "strong", "em"] = ""

    def markdown(self) -> str:
        """The text between its marks; a bar would end the cell."""
        mark = _MARKS[self.style]
        return f"{mark}{self.text.replace('|', chr(92) + '|')}{mark}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head; every row has as many cells.

    Args:
        head: names of the columns.
        rows: their cells.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of(cls, head: Sequence[str], rows: Sequence[Sequence[Cell | str]]) -> Table:
        """A table whose plain texts need no :class:`Cell` around them."""
        whole = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        return cls(head, whole)

    def markdown(self) -> str:
        """As Markdown.

        >>> print(Table.of(["set", "dense"], [["a", Cell("0.5", "strong")]]).markdown())
        | set | dense |
        |---|---|
        | a | **0.5** |
        """
        head = [Cell(name) for name in self.head]
        lines = [
            "| " + " | ".join(cell.markdown() for cell in row) + " |" for row in (head, *self.rows)
        ]
        return "\n".join([lines[0], "|---" * len(self.head) + "|", *lines[1:]])


def page(
    title: str,
    lead: str,
    *,
    tables: Sequence[Table] = (),
    charts: Sequence[str] = (),
    details: Mapping[str, str] | None = None,
) -> str:
    """One HTML document.

    Args:
        title: of the page.
        lead: a sentence or two on how to read it.
        tables: first.
        charts: SVG, as :mod:`m3connect.reporting.charts` draws it.
        details: long texts by their summary, folded.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    return _template().render(
        title=title, lead=lead, tables=tables, charts=charts, details=details or {}
    )


@cache
def _template() -> Template:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ConfigError('a report needs jinja2: pip install "m3connect[eval]"') from error
    source = (files("m3connect.reporting") / "page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(source)
