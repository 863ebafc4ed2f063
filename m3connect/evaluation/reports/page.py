"""One self-contained HTML page: tables, charts, settings; it loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape

from m3connect import charts
from m3connect.evaluation.measure import Result, Row
from m3connect.evaluation.reports import tables
from m3connect.evaluation.significance import Interval, interval

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border: 1px solid #ccc; padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; }
"""


def page(results: Sequence[Result]) -> str:
    """The whole report as one HTML document."""
    metrics = list(dict.fromkeys(m for r in results for row in r.rows for m in row.figures))
    first = metrics[0] if metrics else ""
    parts = [_table(tables.markdown(results, metric)) for metric in metrics]
    if any(row.live for result in results for row in result.rows):
        parts.append(_table(tables.live_table(results)))
    parts.append(charts.dots(f"{first} by dataset", first, _by_dataset(results, first)))
    for result in results:
        if result.languages():
            title = f"{result.dataset}: {first} by language of the query"
            parts.append(charts.dots(title, first, _by_language(result, first)))
    parts += _scatters(results, first)
    parts += [_settings(result) for result in results]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Retrieval evaluation</title><style>{_STYLE}</style></head>\n"
        "<body><h1>Retrieval evaluation</h1>\n<p>Means over queries. Bold is best of its line; = "
        "marks what a paired test cannot tell from it (p &ge; 0.05). Bars are 95 % bootstrap "
        f"intervals.</p>\n{body}\n</body></html>\n"
    )


def _table(markdown: str) -> str:
    """An HTML table from one of :mod:`m3connect.evaluation.reports.tables`'s Markdown tables."""
    head, _, *lines = [line.strip("|").split("|") for line in markdown.splitlines()]
    rows = ["<tr>" + "".join(f"<th>{escape(cell.strip())}</th>" for cell in head) + "</tr>"]
    for line in lines:
        cells = (cell.strip() for cell in line)
        rows.append("<tr>" + "".join(f"<td>{_marked(cell)}</td>" for cell in cells) + "</tr>")
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _marked(cell: str) -> str:
    """Emphasis of Markdown as that of HTML.

    >>> _marked("**0.5** ="), _marked("*in the paper*"), _marked("a<b")
    ('<b>0.5</b> =', '<i>in the paper</i>', 'a&lt;b')
    """
    safe = escape(cell)
    for mark, tag in (("**", "b"), ("*", "i")):
        if safe.startswith(mark) and safe.count(mark) >= 2:
            inner, _, rest = safe.removeprefix(mark).partition(mark)
            return f"<{tag}>{inner}</{tag}>{rest}"
    return safe


def _by_dataset(results: Sequence[Result], metric: str) -> dict[str, dict[str, Interval]]:
    return {
        result.dataset: {row.name: interval(row.figures[metric]) for row in result.rows}
        for result in results
    }


def _by_language(result: Result, metric: str) -> dict[str, dict[str, Interval]]:
    return {
        language or "?": {row.name: interval(row.figures[metric][places]) for row in result.rows}
        for language, places in result.languages().items()
    }


def _scatters(results: Sequence[Result], metric: str) -> list[str]:
    sizes = _points(results, metric, lambda row: row.size)
    delays = _points(results, metric, lambda row: row.live.get("p50 ms"))
    parts = []
    if sizes:
        title = f"{metric} against bytes a document needs"
        parts.append(charts.scatter(title, "bytes per document", metric, sizes))
    if delays:
        title = f"{metric} against median latency"
        parts.append(charts.scatter(title, "milliseconds", metric, delays))
    return parts


def _points(
    results: Sequence[Result], metric: str, value: Callable[[Row], float | None]
) -> list[charts.Point]:
    return [
        charts.Point(row.name, x, float(row.figures[metric].mean()), result.dataset)
        for result in results
        for row in result.rows
        if (x := value(row)) is not None
    ]


def _settings(result: Result) -> str:
    shown = {
        "documents": result.documents,
        "queries": len(result.queries),
        "warnings": list(result.warnings),
        **result.settings,
    }
    text = escape(json.dumps(shown, indent=1, ensure_ascii=False))
    return f"<details><summary>{escape(result.dataset)}</summary><pre>{text}</pre></details>"
