"""The M3 paper's own figures, as data, to stand beside ours."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

BENCHMARKS = ("miracl", "mkqa", "mldr")


def figures(dataset: str) -> dict[str, dict[str, float]]:
    """What the paper reports for a dataset, by row and metric; empty for other datasets.

    Args:
        dataset: a benchmark with a language, such as ``miracl-de``.

    >>> figures("mldr-de")["all"]
    {'ndcg@10': 0.579}
    """
    benchmark, _, language = dataset.partition("-")
    if benchmark not in BENCHMARKS:
        return {}
    table = read(benchmark)
    metric = table["metric"]
    return {
        row: {metric: round(values[language] / 100, 6)}
        for row, values in table["rows"].items()
        if language in values
    }


@cache
def read(benchmark: str) -> dict[str, Any]:
    """A benchmark's table: its source, its metric, and per cent by row and language."""
    path = files("m3connect.evaluation.reports") / "paper" / f"{benchmark}.json"
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table
