"""A row of figures from a row of answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from m3connect.datasets.beir import Dataset, TextQuery
from m3connect.errors import InputError
from m3connect.evaluation import answers, metrics
from m3connect.evaluation.metrics import Figures
from m3connect.evaluation.threshold import Calibration, Threshold

Answer = Mapping[str, float]
"""A query's documents by id, with scores."""
Recorder = Callable[[str, str, Answer], None]
"""Called with a row's name, a query's id and the query's answer."""


@dataclass(frozen=True, slots=True)
class Row:
    """One mode or baseline on one dataset.

    Args:
        name: of the mode or baseline.
        figures: ``float64 [Q]`` by metric.
        seconds: that its search took; encoding is not in it.
        size: mean bytes of what the row needs of a document, None where it is not known.
        live: what only a database has: latency percentiles and agreement with exact search.
        threshold: the score that tells queries with an answer from others, None where none does.
    """

    name: str
    figures: Figures
    seconds: float
    size: float | None = None
    live: Mapping[str, float] = field(default_factory=dict)
    threshold: Threshold | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured on one dataset.

    Args:
        dataset: its name.
        documents: how many it has.
        queries: in the order of the figures.
        rows: one a mode and baseline.
        settings: what it was measured with, as JSON values.
        warnings: what was odd.
    """

    dataset: str
    documents: int
    queries: tuple[TextQuery, ...]
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def languages(self) -> dict[str, list[int]]:
        """The places of each language's queries, when they name two languages or more."""
        places: dict[str, list[int]] = {}
        for place, query in enumerate(self.queries):
            places.setdefault(query.language, []).append(place)
        return dict(sorted(places.items())) if len(places) > 1 else {}


def measure(
    name: str,
    dataset: Dataset,
    ranked: Iterable[Answer],
    names: Sequence[str],
    record: Recorder | None = None,
) -> Row:
    """A row from one answer a query, in the order of the dataset's queries."""
    start = time.perf_counter()
    calibration = Calibration(dataset.qrels)
    run: Iterable[tuple[str, Answer]] = _recorded(name, dataset, ranked, record, calibration)
    plain, by_answer = _kinds(names)
    if by_answer:
        run = list(run)
    figures = metrics.evaluate(run, dataset.qrels, plain)
    if by_answer:
        figures |= answers.evaluate(list(run), dataset.queries, dataset.documents(), by_answer)
    return Row(
        name,
        {metric: figures[metric] for metric in names},
        time.perf_counter() - start,
        threshold=calibration.threshold(),
    )


def check(names: Sequence[str], dataset: Dataset) -> None:
    """See that metrics exist and that the queries have what they need.

    Raises:
        ConfigError: an unknown metric.
        InputError: no judgements, or a query without answers.
    """
    plain, by_answer = _kinds(names)
    metrics.check(plain)
    if plain and not any(dataset.qrels.values()):
        raise InputError(f"{dataset.name} has no judgements: measure answer_recall@K")
    if by_answer:
        answers.check(dataset.queries)
        if not dataset.ids:
            raise InputError(f"{dataset.name} has no corpus, whose texts answer_recall@K looks at")


def cutoff(names: Sequence[str]) -> int:
    """The deepest rank that metrics look at.

    >>> cutoff(["ndcg@10", "answer_recall@20"])
    20
    """
    return max(metrics.cut(name) for name in names)


def _kinds(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The metrics that need judgements, and those that need answers."""
    by_answer = [name for name in names if name.partition("@")[0] == "answer_recall"]
    return [name for name in names if name not in by_answer], by_answer


def _recorded(
    name: str,
    dataset: Dataset,
    ranked: Iterable[Answer],
    record: Recorder | None,
    calibration: Calibration,
) -> Iterator[tuple[str, Answer]]:
    for query, answer in zip(dataset.queries, ranked, strict=True):
        if record is not None:
            record(name, query.id, answer)
        calibration.note(query.id, answer)
        yield query.id, answer
