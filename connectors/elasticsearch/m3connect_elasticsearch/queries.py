"""Queries as bodies of ``_search``, and answers as hits. No I/O.

A leg is sorted by score and then by id, so that the server settles ties as the contract wants
them, also where the list is cut.

Scores come back as the contract defines them. ``max_inner_product`` makes 1 + s of an inner
product s, or 1 / (1 - s) of a negative one, because Lucene has no negative scores; that is undone.
A ``sparse_vector`` field keeps 9 significant bits of a weight, so a few more records are taken than
are wanted, and scored again by the weights that are kept exactly beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from m3connect.errors import Unsupported
from m3connect.searching import scoring
from m3connect.types import FloatArray, Hit, Query, Rrf, SparseVector, SparseVectors, TokenArray
from m3connect_elasticsearch.errors import NAME
from m3connect_elasticsearch.filters import compile_filter
from m3connect_elasticsearch.mapping import (
    Body,
    exact,
    id_of,
    key,
    payload_of,
    small,
    unpack_sparse,
)

RESULTS = 10_000
"""The most that a search returns: ``index.max_result_window``, and the largest ``k``."""
_BY_SCORE_AND_ID = [{"_score": "desc"}, {"id": "asc"}]
_MAXSIM = (
    "double s = maxSimDotProduct(params.query, 'tokens') / params.n;"
    " return s < 0 ? 1 / (1 - s) : 1 + s;"
)


def search_body(query: Query, *, candidates: int, weighs_rrf: bool) -> Body:
    """The body of ``_search`` that answers a query.

    Args:
        query: a checked one, with one leg, or with dense and sparse and an :class:`Rrf`.
        candidates: how many records a dense search considers in each shard, at least.
        weighs_rrf: whether the server's RRF takes weights.

    Raises:
        Unsupported: the server's RRF cannot mean what the query's does.
    """
    fields = ["id", "payload"] if query.payload else ["id"]
    if query.legs == ("sparse",):
        fields.append(exact("sparse"))
    returned = small(*fields) | {"track_total_hits": False}
    if len(query.legs) > 1:
        return _rrf(query, candidates, weighs_rrf=weighs_rrf) | returned
    ranked = _leg(query, candidates)
    return ranked | {"size": _size(query)} | returned


def read_hits(query: Query, answer: Mapping[str, Any]) -> list[Hit]:
    """The hits of an answer, best first, with the contract's scores."""
    found = answer["hits"]["hits"]
    scores = _scores(query, found)
    rows = [
        (-score, id_of(hit), row)
        for row, (hit, score) in enumerate(zip(found, scores, strict=True))
        if score > 0 or query.legs != ("sparse",)
    ]
    rows.sort()
    return [
        Hit(id_, -negated, rank, payload_of(found[row]) if query.payload else {})
        for rank, (negated, id_, row) in enumerate(rows[: query.limit], start=1)
    ]


# ------------------------------------------------------------------------------------------ legs


def _leg(query: Query, candidates: int) -> Body:
    """One leg as ``query`` and ``sort``."""
    if query.dense is not None:
        considered = min(max(candidates, 2 * query.limit), RESULTS)
        found = _dense(query.dense, _conditions(query), considered)
    elif query.sparse is not None:
        found = _sparse(query.sparse, _conditions(query))
    else:
        assert query.multivector is not None
        found = _multivector(query.multivector, _conditions(query))
    return {"query": found, "sort": _BY_SCORE_AND_ID}


def _conditions(query: Query) -> list[Body]:
    """Which records may be found: what all of these allow."""
    allowed = [] if query.filter is None else [compile_filter(query.filter)]
    if query.within is not None:
        allowed.append({"ids": {"values": [key(id_) for id_ in query.within]}})
    return allowed


def _dense(vector: FloatArray, conditions: list[Body], candidates: int) -> Body:
    knn: Body = {
        "field": "dense",
        "query_vector": vector.tolist(),
        "k": candidates,
        "num_candidates": candidates,
        # All candidates are scored again by their full vectors, so that scores are exact.
        "rescore_vector": {"oversample": 1.0},
    }
    return {"knn": knn | {"filter": conditions} if conditions else knn}


def _sparse(weights: SparseVector, conditions: list[Body]) -> Body:
    terms = zip(map(str, weights.indices.tolist()), weights.values.tolist(), strict=True)
    scored: Body = {
        "sparse_vector": {"field": "sparse", "query_vector": dict(terms), "prune": False}
    }
    if not conditions:
        return scored
    return {"bool": {"must": [scored], "filter": conditions}}


def _multivector(tokens: TokenArray, conditions: list[Body]) -> Body:
    """MaxSim over every matching record, by the server; the mean, as the M3 paper has it."""
    parameters = {"query": tokens.tolist(), "n": len(tokens)}
    return {
        "script_score": {
            "query": {"bool": {"filter": conditions}},
            "script": {"source": _MAXSIM, "params": parameters},
        }
    }


def _size(query: Query) -> int:
    """How many records to ask for, so that the best ``limit`` are among them."""
    if query.sparse is None:
        return query.limit
    return min(query.limit + query.limit // 4 + 16, RESULTS)


# ---------------------------------------------------------------------------------------- fusion


def _rrf(query: Query, candidates: int, *, weighs_rrf: bool) -> Body:
    """RRF by the server, for the paid licences that have it."""
    fusion = query.fusion
    assert isinstance(fusion, Rrf)
    window = query.dense_depth
    if query.sparse_depth != window or query.limit > window:
        raise _unsupported("legs of equal depth, and no more hits than that")
    if fusion.k != int(fusion.k):
        raise _unsupported("a whole k")
    weights = (fusion.dense, fusion.sparse)
    if weights != (1.0, 1.0) and not weighs_rrf:
        raise _unsupported("weights from version 9.2 on")
    dense = replace(query, sparse=None, limit=window)
    sparse = replace(query, dense=None, limit=window)
    retrievers: Sequence[Body] = [{"standard": _leg(leg, candidates)} for leg in (dense, sparse)]
    if weights != (1.0, 1.0):
        retrievers = [
            {"retriever": retriever, "weight": weight}
            for retriever, weight in zip(retrievers, weights, strict=True)
        ]
    rrf = {
        "retrievers": retrievers,
        "rank_constant": int(fusion.k),
        "rank_window_size": window,
    }
    return {"retriever": {"rrf": rrf}, "size": window}


def _unsupported(what: str) -> Unsupported:
    return Unsupported(
        f"the server's RRF takes only {what}; connect without server_fusion",
        connector=NAME,
        operation="search",
    )


# --------------------------------------------------------------------------------------- answers


def _scores(query: Query, found: Sequence[Body]) -> list[float]:
    if len(query.legs) > 1:
        return [float(hit["_score"]) for hit in found]
    if query.sparse is not None:
        stored = SparseVectors.from_rows([unpack_sparse(hit) for hit in found])
        return [float(score) for score in scoring.sparse_scores(query.sparse, stored)]
    return [_inner_product(hit["_score"]) for hit in found]


def _inner_product(score: float) -> float:
    """The inner product behind a ``max_inner_product`` score.

    >>> _inner_product(1.75), _inner_product(0.5)
    (0.75, -1.0)
    """
    return score - 1 if score >= 1 else 1 - 1 / score
