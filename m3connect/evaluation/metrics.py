"""trec_eval's figures, through its binding ``pytrec_eval``.

Equal scores are ordered as trec_eval orders them. A query that found nothing scores 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import ConfigError, InputError
from m3connect.evaluation.datasets import Qrels

DEFAULT: tuple[str, ...] = ("ndcg@10", "mrr@10", "recall@10", "recall@100")

_MEASURES = {
    "ndcg": "ndcg_cut",
    "recall": "recall",
    "map": "map_cut",
    "precision": "P",
    "success": "success",
    "mrr": "recip_rank",
}
_CHUNK = 512

Figures = dict[str, NDArray[np.float64]]
"""``float64 [Q]`` by metric: one figure a query."""


def evaluate(
    run: Iterable[tuple[str, Mapping[str, float]]], qrels: Qrels, metrics: Sequence[str] = DEFAULT
) -> Figures:
    """Every query's figures, in the order of the run.

    Args:
        run: query ids with their documents' scores, every query once; read as a stream.
        qrels: judgements of at least these queries.
        metrics: names with a cut-off: ``ndcg@10``, ``recall@100``, ``mrr@10``, ``map@100``,
            ``precision@5``, ``success@1``.

    Raises:
        ConfigError: an unknown metric.
        InputError: a query has no judgements.

    >>> run = [("q", {"a": 0.9, "b": 0.8, "c": 0.7})]
    >>> evaluate(run, {"q": {"b": 1}}, ["mrr@10", "recall@1", "recall@2"])
    {'mrr@10': array([0.5]), 'recall@1': array([0.]), 'recall@2': array([1.])}
    """
    from pytrec_eval import RelevanceEvaluator

    measures = {name: _measure(name) for name in metrics}
    asked = {f"{measure}.{cut}" if cut else measure for measure, cut in measures.values()}
    asked = {"recip_rank" if name.startswith("recip_rank") else name for name in asked}
    figures: dict[str, list[float]] = {name: [] for name in metrics}
    stream = iter(run)
    while chunk := dict(islice(stream, _CHUNK)):
        judged = {query: dict(_judgements(qrels, query)) for query in chunk}
        found = RelevanceEvaluator(judged, asked).evaluate({q: dict(a) for q, a in chunk.items()})
        for query in chunk:
            for name, (measure, cut) in measures.items():
                figures[name].append(_figure(found.get(query, {}), measure, cut))
    return {name: np.array(values) for name, values in figures.items()}


def means(figures: Figures) -> dict[str, float]:
    """The mean of every metric over the queries."""
    return {name: float(values.mean()) for name, values in figures.items()}


def cutoff(metrics: Sequence[str]) -> int:
    """The deepest rank that the metrics look at.

    >>> cutoff(["ndcg@10", "recall@100"])
    100
    """
    return max(_measure(name)[1] for name in metrics)


def _measure(name: str) -> tuple[str, int]:
    kind, _, cut = name.partition("@")
    if kind not in _MEASURES or not cut.isdecimal() or int(cut) < 1:
        raise ConfigError(f"no metric {name!r}; there are {[f'{kind}@K' for kind in _MEASURES]}")
    return _MEASURES[kind], int(cut)


def _judgements(qrels: Qrels, query: str) -> Mapping[str, int]:
    if query not in qrels:
        raise InputError(f"query {query!r} has no judgements")
    return qrels[query]


def _figure(found: Mapping[str, float], measure: str, cut: int) -> float:
    if measure == "recip_rank":  # trec_eval has no cut-off for it
        value = found.get(measure, 0.0)
        return value if value >= 1 / cut else 0.0
    return found.get(f"{measure}_{cut}", 0.0)
