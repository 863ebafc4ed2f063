"""From the legs' rankings to one: pure functions on ranked lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from m3connect.types import Leg


def top(scores: Mapping[str, float], depth: int) -> list[str]:
    """The best ids, by falling score and rising id.

    >>> top({"b": 1.0, "a": 1.0, "c": 2.0}, 2)
    ['c', 'a']
    """
    return sorted(scores, key=lambda id_: (-scores[id_], id_))[:depth]


def rrf(
    rankings: Mapping[Leg, Sequence[str]], weights: Mapping[Leg, float], k: float = 60.0
) -> dict[str, float]:
    """Reciprocal rank fusion: ``sum of weight / (k + rank)``, ranks from 1.

    Cormack, Clarke and Buettcher, SIGIR 2009. An id that a ranking lacks gets nothing from it.

    >>> rrf({"dense": ["a", "b"], "sparse": ["b"]}, {"dense": 1.0, "sparse": 2.0}, k=1)
    {'a': 0.5, 'b': 1.3333333333333333}
    """
    fused: dict[str, float] = {}
    for leg, ranking in rankings.items():
        for rank, id_ in enumerate(ranking, start=1):
            fused[id_] = fused.get(id_, 0.0) + weights[leg] / (k + rank)
    return fused


def weighted_sum(
    scores: Mapping[Leg, Mapping[str, float]], weights: Mapping[Leg, float]
) -> dict[str, float]:
    """``w1 * dense + w2 * sparse + w3 * multivector`` (M3 paper, section 3.2).

    An id that a leg lacks gets 0 from it.

    >>> weighted_sum({"dense": {"a": 0.5}, "sparse": {"a": 0.2, "b": 1.0}},
    ...              {"dense": 1.0, "sparse": 0.5})
    {'a': 0.6, 'b': 0.5}
    """
    fused: dict[str, float] = {}
    for leg, found in scores.items():
        for id_, score in found.items():
            fused[id_] = fused.get(id_, 0.0) + weights[leg] * score
    return fused


def union(rankings: Iterable[Iterable[str]]) -> list[str]:
    """Every id of the rankings once, in order of first appearance.

    >>> union([["a", "b"], ["b", "c"]])
    ['a', 'b', 'c']
    """
    return list(dict.fromkeys(id_ for ranking in rankings for id_ in ranking))
