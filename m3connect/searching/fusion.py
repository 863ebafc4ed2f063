"""From the legs' rankings to one: pure functions on ranked lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from m3connect.types import Fusion, Leg, Query, Rrf


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
    for leg, by_id in scores.items():
        for id_, score in by_id.items():
            fused[id_] = fused.get(id_, 0.0) + weights[leg] * score
    return fused


def union(rankings: Iterable[Iterable[str]]) -> list[str]:
    """Every id of the rankings once, in order of first appearance.

    >>> union([["a", "b"], ["b", "c"]])
    ['a', 'b', 'c']
    """
    return list(dict.fromkeys(id_ for ranking in rankings for id_ in ranking))


def fuse(
    how: Fusion,
    rankings: Mapping[Leg, Sequence[str]],
    scores: Mapping[Leg, Mapping[str, float]],
) -> dict[str, float]:
    """The fused scores of all candidates: every id that a ranking holds.

    Args:
        how: the fusion and its weights.
        rankings: each leg's candidates, best first.
        scores: each leg's scores; with a rescoring fusion, of every candidate.
    """
    weights: dict[Leg, float] = {leg: getattr(how, leg) for leg in rankings}
    if isinstance(how, Rrf):
        return rrf(rankings, weights, how.k)
    candidates = union(rankings.values())
    listed = {leg: candidates if how.rescore else ids for leg, ids in rankings.items()}
    return weighted_sum(
        {leg: {id_: scores[leg][id_] for id_ in ids} for leg, ids in listed.items()}, weights
    )


def combine(
    query: Query,
    rankings: Mapping[Leg, Sequence[str]],
    scores: Mapping[Leg, Mapping[str, float]],
) -> dict[str, float]:
    """The final scores of a query with several legs, as :class:`Query` defines them.

    Args:
        query: its fusion and rerank depth.
        rankings: candidates of the dense and sparse legs, best first.
        scores: each leg's scores of the candidates.
    """
    candidates = union(rankings.values())
    if query.multivector is None:
        assert query.fusion is not None, "check_query saw to it"
        return fuse(query.fusion, rankings, scores)
    if query.rerank is None:
        assert query.fusion is not None, "check_query saw to it"
        late = {id_: scores["multivector"][id_] for id_ in candidates}
        return fuse(query.fusion, {**rankings, "multivector": top(late, len(late))}, scores)
    return {id_: scores["multivector"][id_] for id_ in reranked(query, rankings, scores)}


def reranked(
    query: Query,
    rankings: Mapping[Leg, Sequence[str]],
    scores: Mapping[Leg, Mapping[str, float]],
) -> list[str]:
    """The candidates that a reranking query orders by MaxSim: the best of the other legs.

    Args:
        query: its fusion and rerank depth.
        rankings: candidates of the dense and sparse legs, best first.
        scores: these legs' scores of the candidates.
    """
    assert query.rerank is not None
    if len(rankings) > 1:
        assert query.fusion is not None, "check_query saw to it"
        first = fuse(query.fusion, rankings, scores)
    else:
        ((leg, candidates),) = rankings.items()
        first = {id_: scores[leg][id_] for id_ in candidates}
    return top(first, query.rerank)
