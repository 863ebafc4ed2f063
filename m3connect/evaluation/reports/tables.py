"""Results as JSON and as tables. Figures are means over queries, from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple
from itertools import combinations
from typing import Any

import numpy as np

from m3connect.evaluation import metrics
from m3connect.evaluation.measure import Result, Row
from m3connect.evaluation.reports import published
from m3connect.evaluation.significance import compare, interval
from m3connect.reporting.pages import Cell, Table


def summary(results: Sequence[Result]) -> dict[str, dict[str, dict[str, float]]]:
    """``{dataset: {row: {metric: mean}}}``; several datasets have ``mean`` for the last."""
    means = {
        result.dataset: {row.name: metrics.means(row.figures) for row in result.rows}
        for result in results
    }
    return means | {"mean": _means(results)} if len(results) > 1 else means


def details(result: Result) -> dict[str, Any]:
    """Everything that was measured on one dataset, as JSON values.

    Every figure has its 95 % interval, and in the first metric every two rows are compared.
    ``published`` holds the M3 paper's figures where it has them.
    """
    return {
        "dataset": result.dataset,
        "documents": result.documents,
        "queries": len(result.queries),
        "settings": dict(result.settings),
        "warnings": list(result.warnings),
        "rows": {row.name: _row(row, result) for row in result.rows},
        "comparisons": [_pair(*pair) for pair in combinations(result.rows, 2)],
        "published": published.figures(result.dataset),
    }


def figures(results: Sequence[Result], metric: str) -> Table:
    """One table: datasets down, rows across, the mean below; the best of a line in bold.

    A row that the paired test cannot tell from the best (p >= 0.05) is marked with ``=``.
    """
    names = list(dict.fromkeys(row.name for result in results for row in result.rows))
    lines: list[list[Cell | str]] = []
    for result in results:
        cells = _cells(result, metric)
        lines.append([result.dataset, *(cells.get(name, "") for name in names)])
        paper = published.figures(result.dataset)
        if any(metric in paper.get(name, {}) for name in names):
            theirs = [
                f"{paper[n][metric]:.3f}" if metric in paper.get(n, {}) else "" for n in names
            ]
            lines.append([Cell("in the paper", "em"), *theirs])
    if len(results) > 1:
        means = [_mean(results, name, metric) for name in names]
        top = max((mean for mean in means if mean is not None), default=None)
        shown = ["" if mean is None else _cell(mean, mean == top) for mean in means]
        lines.append([Cell("mean", "strong"), *shown])
    return Table.of([metric, *names], lines)


def sizes(results: Sequence[Result], metric: str) -> Table:
    """Score against bytes per document: a line for each row whose size is known, with their means."""
    measured = {
        (row.name, result.dataset): (float(row.figures[metric].mean()), row.size)
        for result in results
        for row in result.rows
        if row.size is not None
    }
    sets = [result.dataset for result in results]
    for name in {name: None for name, _ in measured} if len(sets) > 1 else ():
        if all((name, each) in measured for each in sets):
            means = np.mean([measured[name, each] for each in sets], axis=0)
            measured[name, "mean"] = (float(means[0]), float(means[1]))
    sets += ["mean"] if len(sets) > 1 else []
    lines = []
    for name in {name: None for name, _ in measured}:
        line = [name]
        for each in sets:
            figure, size = measured.get((name, each), (None, None))
            line += ["", ""] if size is None else [f"{figure:.3f}", f"{size:,.0f}"]
        lines.append(line)
    return Table.of([metric, *(title for each in sets for title in (each, "bytes"))], lines)


def live(results: Sequence[Result]) -> Table | None:
    """Latency and agreement with exact search, a line for each dataset and mode; None without any."""
    columns = list(dict.fromkeys(name for r in results for row in r.rows for name in row.live))
    lines = [
        [
            result.dataset,
            row.name,
            *(f"{row.live[name]:.3f}" if name in row.live else "" for name in columns),
        ]
        for result in results
        for row in result.rows
        if row.live
    ]
    return Table.of(["dataset", "mode", *columns], lines) if lines else None


def thresholds(results: Sequence[Result]) -> Table | None:
    """The score that tells queries with an answer from others, a line for each dataset and row; None without any."""
    lines = [
        [result.dataset, row.name, *(f"{value:.3f}" for value in astuple(row.threshold))]
        for result in results
        for row in result.rows
        if row.threshold
    ]
    columns = ["dataset", "row", "threshold", "answered", "refused"]
    return Table.of(columns, lines) if lines else None


def by_language(result: Result, metric: str) -> dict[str, dict[str, float]]:
    """``{language: {row: mean}}``, empty where the queries name fewer than two languages."""
    return {
        language: {row.name: float(row.figures[metric][places].mean()) for row in result.rows}
        for language, places in result.languages().items()
    }


def _row(row: Row, result: Result) -> dict[str, Any]:
    shown_figures = {}
    for metric, values in row.figures.items():
        estimate = interval(values)
        shown_figures[metric] = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    shown: dict[str, Any] = {"metrics": shown_figures, "seconds": round(row.seconds, 3)}
    if row.size is not None:
        shown["bytes_per_document"] = round(row.size, 1)
    if row.live:
        shown["live"] = dict(row.live)
    if row.threshold:
        shown["threshold"] = asdict(row.threshold)
    shown["languages"] = {
        language: {name: float(values[places].mean()) for name, values in row.figures.items()}
        for language, places in result.languages().items()
    }
    return shown


def _pair(first: Row, other: Row) -> dict[str, Any]:
    """How far the first metric of one row is from that of another."""
    metric = next(iter(first.figures))
    comparison = compare(first.figures[metric], other.figures[metric])
    return {
        "row": first.name,
        "minus": other.name,
        "metric": metric,
        "difference": comparison.difference.mean,
        "low": comparison.difference.low,
        "high": comparison.difference.high,
        "p_value": comparison.p_value,
    }


def _cells(result: Result, metric: str) -> dict[str, Cell]:
    rows = [row for row in result.rows if metric in row.figures]
    if not rows:
        return {}
    best = max(rows, key=lambda row: row.figures[metric].mean())
    cells = {}
    for row in rows:
        same = (
            row is not best and compare(row.figures[metric], best.figures[metric]).p_value >= 0.05
        )
        mean = float(row.figures[metric].mean())
        cells[row.name] = Cell(f"{mean:.3f} =") if same else _cell(mean, row is best)
    return cells


def _means(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Of the rows and metrics that all datasets have."""
    means = {
        row.name: {
            metric: mean
            for metric in row.figures
            if (mean := _mean(results, row.name, metric)) is not None
        }
        for row in results[0].rows
    }
    return {name: held for name, held in means.items() if held}


def _mean(results: Sequence[Result], name: str, metric: str) -> float | None:
    """A row's mean over the datasets; None unless all have it."""
    rows = [row for result in results for row in result.rows if row.name == name]
    if len(rows) < len(results) or any(metric not in row.figures for row in rows):
        return None
    return float(np.mean([row.figures[metric].mean() for row in rows]))


def _cell(mean: float, best: bool) -> Cell:
    return Cell(f"{mean:.3f}", "strong" if best else "")
