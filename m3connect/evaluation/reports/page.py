"""What was measured as one HTML page: tables, charts, settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple

from m3connect.evaluation.measure import Result, Row
from m3connect.evaluation.reports import tables
from m3connect.evaluation.significance import interval
from m3connect.reporting import charts, pages

_LEAD = (
    "Means over queries. Bold is best of its line; = marks what a paired test cannot tell from it "
    "(p \u2265 0.05). Bars are 95 % bootstrap intervals."
)


def page(results: Sequence[Result]) -> str:
    """The whole report as one HTML document."""
    metrics = list(dict.fromkeys(m for r in results for row in r.rows for m in row.figures))
    first = metrics[0] if metrics else ""
    drawn = [charts.dots(f"{first} by dataset", first, _by_dataset(results, first))]
    for result in results:
        if result.languages():
            title = f"{result.dataset}: {first} by language of the query"
            drawn.append(charts.dots(title, first, _by_language(result, first)))
    live = tables.live(results)
    return pages.page(
        "Retrieval evaluation",
        _LEAD,
        tables=[
            *(tables.figures(results, metric) for metric in metrics),
            *([live] if live else []),
        ],
        charts=[*drawn, *_scatters(results, first)],
        details={result.dataset: _settings(result) for result in results},
    )


def _by_dataset(results: Sequence[Result], metric: str) -> dict[str, dict[str, charts.Bar]]:
    return {
        result.dataset: {row.name: astuple(interval(row.figures[metric])) for row in result.rows}
        for result in results
    }


def _by_language(result: Result, metric: str) -> dict[str, dict[str, charts.Bar]]:
    return {
        language or "?": {
            row.name: astuple(interval(row.figures[metric][places])) for row in result.rows
        }
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
    return json.dumps(shown, indent=1, ensure_ascii=False)
