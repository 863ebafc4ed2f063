"""Queries as bodies of ``_search``, and answers as hits. No I/O.

A dense leg is sorted by score and then by id, so that the server settles ties as the contract wants
them, also where the list is cut. Where more tie than are scored, more are scored, up to 10,000. A graph
need not lead to every record: where it gives fewer than many that are wanted, the others are compared, too.

Scores come back as the contract defines them. ``max_inner_product`` makes 1 + s of an inner
product s, or 1 / (1 - s) of a negative one, because Lucene has no negative scores; that is undone.
A ``sparse_vector`` field keeps 9 significant bits of a weight, so a few more records are taken than
are wanted, and scored again by the weights that are kept exactly beside it. Where the best may still not
be among them, more are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from m3connect.errors import Unsupported
from m3connect.searching import scoring
from m3connect.types import Hit, Payload, Query, Rrf, SparseVector, TokenArray
from m3connect_elasticsearch.errors import NAME
from m3connect_elasticsearch.filters import compile_filter
from m3connect_elasticsearch.mapping import (
    Body,
    exact,
    id_of,
    key,
    lexical_weights,
    pack_dense,
    payloads_of,
    small,
)

RESULTS = 10_000
"""The most that a search returns: ``index.max_result_window``, and the largest ``k``."""
_ROUNDED = 1 + 2**-8 + 1e-5
"""The most by which a lexical score exceeds the server's, which cuts weights off and adds in float32."""
_WIDER = 8
_SCORED = 300
"""Dense candidates scored by their full vectors, at least: 8 bits a value do not misplace one by so much."""
_DEEP = 1000
"""Records wanted beyond which so few that are found are looked into: one graph in pieces was seen to give 3,821."""
_BY_SCORE_AND_ID = [{"_score": "desc"}, {"id": "asc"}]
_MAXSIM = (
    "double s = maxSimDotProduct(params.query, 'tokens') / params.n;"
    " return s < 0 ? 1 / (1 - s) : 1 + s;"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server takes in the body of a search.

    Args:
        candidates: how many records a dense search considers in each shard, at least.
        coarse: whether the dense index is so coarse that all of these are scored by their full vectors.
        packed: whether it takes the dense vector of a query as base64; otherwise it goes as a list.
        weighs_rrf: whether its RRF takes weights.
    """

    candidates: int
    coarse: bool
    packed: bool
    weighs_rrf: bool


def search_body(query: Query, dialect: Dialect) -> Body:
    """The body of ``_search`` that answers a query.

    Args:
        query: a checked one, with one leg, or with dense and sparse and an :class:`Rrf`.
        dialect: of the server.

    Raises:
        Unsupported: the server's RRF cannot mean what the query's does.
    """
    fields = ["id", "payload"] if query.payload else ["id"]
    if query.legs == ("sparse",):
        fields.append(exact("sparse"))
    returned = small(*fields) | {"track_total_hits": False}
    if len(query.legs) > 1:
        return _rrf(query, dialect) | returned
    if query.sparse is not None:
        return _lexical(query, query.limit + query.limit // 16 + 16) | returned
    # One more than wanted shows whether a tie crosses the limit.
    return _leg(query, dialect) | {"size": min(query.limit + 1, RESULTS)} | returned


def wider(query: Query, body: Body, returned: Sequence[Body], hits: Sequence[Hit]) -> Body | None:
    """The body that asks for more records, where one that was not found may be among the best.

    Args:
        query: what is asked.
        body: what was sent.
        returned: what came back.
        hits: those made of it.
    """
    size = body["size"]
    if query.legs == ("dense",):
        return _past_gaps(query, body, returned) or _past_ties(query, body, returned)
    if query.legs != ("sparse",) or len(returned) < size or size == RESULTS:
        return None
    if len(hits) == query.limit and hits[-1].score > returned[-1]["_score"] * _ROUNDED:
        return None
    return body | _lexical(query, size * _WIDER)


def read_hits(query: Query, returned: Sequence[Body]) -> list[Hit]:
    """What was returned as hits, best first, with the contract's scores."""
    scores = _scores(query, returned)
    rows = [
        (-score, id_of(hit), row)
        for row, (hit, score) in enumerate(zip(returned, scores, strict=True))
        if score > 0 or query.legs != ("sparse",)
    ]
    rows.sort()
    del rows[query.limit :]
    best = [returned[row] for _, _, row in rows]
    payloads: Sequence[Payload] = payloads_of(best) if query.payload else [{} for _ in best]
    return [
        Hit(id_, -negated, rank, payload)
        for rank, ((negated, id_, _), payload) in enumerate(zip(rows, payloads, strict=True), 1)
    ]


# ------------------------------------------------------------------------------------------ legs


def _leg(query: Query, dialect: Dialect) -> Body:
    """One leg as ``query`` and ``sort``."""
    conditions = _conditions(query)
    if query.dense is not None:
        considered = min(max(dialect.candidates, 2 * query.limit), RESULTS)
        if query.within is not None:
            considered = min(considered, max(1, len(query.within)))
        vector = pack_dense(query.dense) if dialect.packed else query.dense.tolist()
        scored = considered if dialect.coarse else max(_SCORED, 3 * query.limit)
        query_body = _dense(vector, conditions, considered, min(scored, considered))
    elif query.sparse is not None:
        query_body = _sparse(query.sparse, conditions)
    else:
        assert query.multivector is not None
        query_body = _multivector(query.multivector, conditions)
    return {"query": query_body, "sort": _BY_SCORE_AND_ID}


def _past_gaps(query: Query, body: Body, returned: Sequence[Body]) -> Body | None:
    """The dense search of what was found and of what was not, where the index gave fewer than many.

    A server compares each record where a filter leaves no more than it is to give.
    """
    knn = body["query"].get("knn")
    if knn is None or not returned or not _DEEP < query.limit > len(returned):
        return None
    found = {"ids": {"values": [key(id_of(hit)) for hit in returned]}}
    others = {"bool": {"must_not": [found]}}
    parts = [knn | {"filter": [*knn.get("filter", ()), part]} for part in (found, others)]
    return body | {"query": {"bool": {"should": [{"knn": part} for part in parts]}}}


def _past_ties(query: Query, body: Body, returned: Sequence[Body]) -> Body | None:
    """The dense search of more records, where those that tie at the limit may not all have been scored."""
    if "knn" not in body["query"]:  # all were compared
        return None
    knn, size = body["query"]["knn"], body["size"]
    scored = knn["k"]
    if len(returned) <= query.limit or len(returned) < min(size, scored):
        return None
    if returned[query.limit - 1]["_score"] > returned[-1]["_score"]:
        return None
    if size < scored:  # they may end among those that were scored
        return body | {"size": scored}
    if scored == RESULTS:
        return None
    more = min(_WIDER * scored, RESULTS)
    wide = knn | {"k": more, "num_candidates": max(more, knn["num_candidates"])}
    return body | {"query": {"knn": wide}, "size": more}


def _lexical(query: Query, size: int) -> Body:
    """The best records of the lexical leg; in the server's order, for sorting by id costs it a third."""
    assert query.sparse is not None
    body: Body = {"query": _sparse(query.sparse, _conditions(query)), "size": min(size, RESULTS)}
    if size < RESULTS:
        return body
    return body | {"sort": _BY_SCORE_AND_ID}  # no more can be asked for: it settles ties itself


def _conditions(query: Query) -> list[Body]:
    """Which records may be found: what all of these allow."""
    allowed = [] if query.filter is None else [compile_filter(query.filter)]
    if query.within is not None:
        allowed.append({"ids": {"values": [key(id_) for id_ in query.within]}})
    return allowed


def _dense(vector: str | list[float], conditions: list[Body], candidates: int, scored: int) -> Body:
    knn: Body = {
        "field": "dense",
        "query_vector": vector,
        "k": scored,
        "num_candidates": candidates,
        # The best are scored again by their full vectors, so that scores are exact.
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


# ---------------------------------------------------------------------------------------- fusion


def _rrf(query: Query, dialect: Dialect) -> Body:
    """RRF by the server, for the paid licences that have it."""
    fusion = query.fusion
    assert isinstance(fusion, Rrf)
    window = query.dense_depth
    if query.sparse_depth != window or query.limit > window:
        raise _unsupported("legs of equal depth, and no more hits than that (rank_window_size)")
    if fusion.k != int(fusion.k):
        raise _unsupported("a whole k")
    weights = (fusion.dense, fusion.sparse)
    if weights != (1.0, 1.0) and not dialect.weighs_rrf:
        raise _unsupported("weights from version 9.2 on")
    dense = replace(query, sparse=None, limit=window)
    sparse = replace(query, dense=None, limit=window)
    retrievers: Sequence[Body] = [{"standard": _leg(leg, dialect)} for leg in (dense, sparse)]
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


def _scores(query: Query, returned: Sequence[Body]) -> list[float]:
    if len(query.legs) > 1:
        return [float(hit["_score"]) for hit in returned]
    if query.sparse is not None:
        scores = scoring.sparse_scores(query.sparse, lexical_weights(returned))
        return [float(score) for score in scores]
    return [_inner_product(hit["_score"]) for hit in returned]


def _inner_product(score: float) -> float:
    """The inner product behind a ``max_inner_product`` score.

    >>> _inner_product(1.75), _inner_product(0.5)
    (0.75, -1.0)
    """
    return score - 1 if score >= 1 else 1 - 1 / score
