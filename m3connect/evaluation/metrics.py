"""trec_eval's figures, through its binding ``pytrec_eval``.

Equal scores are ordered as trec_eval orders them. A query that found nothing scores 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from m3connect.datasets.beir import Qrels
from m3connect.errors import ConfigError, InputError

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
    asked = {
        measure if measure == "recip_rank" else f"{measure}.{rank}"
        for measure, rank in measures.values()
    }
    figures: dict[str, list[float]] = {name: [] for name in metrics}
    stream = iter(run)
    while chunk := dict(islice(stream, _CHUNK)):
        judged = {
            # Below 0 is as irrelevant as 0, and trec_eval reads outside its memory.
            _c_string(query): {
                _c_string(id_): max(0, grade) for id_, grade in _judgements(qrels, query).items()
            }
            for query in chunk
        }
        found = {
            _c_string(query): {_c_string(id_): score for id_, score in answer.items()}
            for query, answer in chunk.items()
        }
        by_query = RelevanceEvaluator(judged, asked).evaluate(found)
        for query in chunk:
            for name, (measure, rank) in measures.items():
                figures[name].append(_figure(by_query.get(_c_string(query), {}), measure, rank))
    return {name: np.array(values) for name, values in figures.items()}


def means(figures: Figures) -> dict[str, float]:
    """The mean of every metric over the queries."""
    return {name: float(values.mean()) for name, values in figures.items()}


def check(names: Iterable[str]) -> None:
    """See that every metric exists.

    Raises:
        ConfigError: one does not.
    """
    for name in names:
        _measure(name)


def cut(name: str) -> int:
    """The rank at which a metric stops.

    Raises:
        ConfigError: the name has no cut-off.

    >>> cut("ndcg@10")
    10
    """
    _, _, rank = name.partition("@")
    if not rank.isdecimal() or int(rank) < 1:
        raise ConfigError(f"metric {name!r} has no cut-off, such as in ndcg@10")
    return int(rank)


def _measure(name: str) -> tuple[str, int]:
    kind = name.partition("@")[0]
    if kind not in _MEASURES:
        raise ConfigError(f"no metric {name!r}; there are {[f'{kind}@K' for kind in _MEASURES]}")
    return _MEASURES[kind], cut(name)


def _judgements(qrels: Qrels, query: str) -> Mapping[str, int]:
    if query not in qrels:
        raise InputError(f"query {query!r} has no judgements")
    return qrels[query]


def _c_string(id_: str) -> str:
    """An id that C reads whole: UTF-8 without NUL, which would end it."""
    return id_.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def _figure(values: Mapping[str, float], measure: str, rank: int) -> float:
    if measure == "recip_rank":  # trec_eval has no cut-off for it
        value = values.get(measure, 0.0)
        return value if value >= 1 / rank else 0.0
    return values.get(f"{measure}_{rank}", 0.0)
