"""Queries as one Qdrant request each, and its answers as hits. Pure: no engine is called here.

A request is the JSON that Qdrant's REST interface documents; each engine makes its own classes of it.

Candidates come from prefetches, one a leg. Equally weighted ranks are fused by Qdrant; its weighted rank
fusion divides a rank by its weight, so that what else fuses is a formula over the prefetches' scores, in
which a candidate that a prefetch lacks counts 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m3connect.errors import InputError
from m3connect.types import Fusion, Hit, Leg, Query, Rrf
from m3connect_qdrant.filters import RESERVED, Json, compile_filter
from m3connect_qdrant.mapping import ONLY_ID, WITHOUT_FACTS, point_id, user_payload

OVERSAMPLING = 2.0
"""So many times the wanted candidates are found by quantised vectors, to be scored by the full ones."""
MULTIVECTOR_FLOATS = 1_048_576
"""A server refuses a multi-vector of this many values, stored or asked."""

Answer = Sequence[tuple[float, Mapping[str, Any]]]
"""Scores and stored payloads, best first."""
Searches = Mapping[Leg, Json]
Vectors = Mapping[Leg, Json]


_TIED = 4
"""Spare answers of a rank fusion, whose ties are pairs mostly: first in one leg, first in the other."""


def spare(query: Query) -> int:
    """How many answers more than wanted are asked for, so that a tie at the limit ends among them."""
    return _TIED if isinstance(query.fusion, Rrf) and query.rerank is None else 1


def check_size(query: Query) -> None:
    """Refuse a multi-vector that a server would refuse.

    Raises:
        InputError: it has too many values.
    """
    if query.multivector is not None and query.multivector.size >= MULTIVECTOR_FLOATS:
        raise InputError(
            f"the multivector query has {query.multivector.size} values, Qdrant takes fewer than "
            f"{MULTIVECTOR_FLOATS}: ask with a shorter text"
        )


def request(
    query: Query, limit: int, *, exact: bool = False, quantized: bool = False
) -> Json | None:
    """The request that answers a query; None when no record can match.

    Args:
        query: a checked query.
        limit: how many answers to ask for.
        exact: whether dense candidates are searched without the graph.
        quantized: whether the graph walks smaller vectors: then more are found, and scored by the full ones.
    """
    params: Json = {"exact": True} if exact else {}
    if quantized:
        params["quantization"] = {"rescore": True, "oversampling": OVERSAMPLING}
    last = _last_stage(query, limit, params)
    if last is None:
        return None
    return {**last, "with_payload": WITHOUT_FACTS if query.payload else ONLY_ID}


def score_of(answer: tuple[float, Mapping[str, Any]]) -> float:
    """The score of one answer."""
    return answer[0]


def id_of(answer: tuple[float, Mapping[str, Any]]) -> str:
    """The record's id of one answer."""
    return str(answer[1][RESERVED]["id"])


def hits(query: Query, answer: Answer) -> list[Hit]:
    """The hits of a query, from its best answers in order."""
    # Qdrant's MaxSim is a sum over the query's tokens, here it is their mean.
    tokens = 1
    if query.multivector is not None and (len(query.legs) == 1 or query.rerank is not None):
        tokens = len(query.multivector)
    return [
        Hit(
            payload[RESERVED]["id"],
            score / tokens,
            rank,
            user_payload(payload) if query.payload else {},
        )
        for rank, (score, payload) in enumerate(answer, start=1)
    ]


def _last_stage(query: Query, limit: int, params: Json) -> Json | None:
    vectors = _vectors(query)
    how: Json = {"params": params} if params else {}
    if (condition := _condition(query)) is not None:
        how["filter"] = condition

    def search(leg: Leg, depth: int) -> Json:
        return {"query": vectors[leg], "using": leg, **how, "limit": depth}

    if len(query.legs) == 1:
        (leg,) = query.legs
        return search(leg, limit) if leg in vectors else None
    depths: dict[Leg, int] = {"dense": query.dense_depth, "sparse": query.sparse_depth}
    searches = {leg: search(leg, depth) for leg, depth in depths.items() if leg in vectors}
    if not searches:
        return None
    if query.rerank is None:
        return _by_rank(query, searches, limit) or _fused(query, searches, vectors, limit)
    return {
        "prefetch": [_best(query, searches, vectors, query.rerank)],
        "query": vectors["multivector"],
        "using": "multivector",
        "limit": limit,
    }


def _condition(query: Query) -> Json | None:
    """Which points may be found."""
    allowed = None if query.filter is None else compile_filter(query.filter)
    if query.within is None:
        return allowed
    named = {"has_id": [point_id(id_) for id_ in query.within]}
    return {"must": [named] if allowed is None else [named, allowed]}


def _vectors(query: Query) -> dict[Leg, Json]:
    """The query's vectors that can find anything: a sparse one without terms cannot."""
    vectors: dict[Leg, Json] = {}
    if query.dense is not None:
        vectors["dense"] = {"nearest": query.dense.tolist()}
    if query.sparse is not None and len(query.sparse):
        indices, values = query.sparse.indices.tolist(), query.sparse.values.tolist()
        vectors["sparse"] = {"nearest": {"indices": indices, "values": values}}
    if query.multivector is not None:
        vectors["multivector"] = {"nearest": query.multivector.tolist()}
    return vectors


def _best(query: Query, searches: Searches, vectors: Vectors, depth: int) -> Json:
    """The best of the dense and sparse legs, to be reranked."""
    if len(query.legs) == 3:
        return _fused(query, searches, vectors, depth)
    (search,) = searches.values()
    return {**search, "limit": min(depth, search["limit"])}


def _by_rank(query: Query, searches: Searches, limit: int) -> Json | None:
    """Qdrant's own rank fusion of the last stage, where it means what the query's does.

    It counts ranks from 0, and has no order for ties, which are settled among the answers.
    """
    how = query.fusion
    if not isinstance(how, Rrf) or query.multivector is not None or not float(how.k).is_integer():
        return None
    if (how.dense, how.sparse) != (1.0, 1.0):
        return None
    fused = {"rrf": {"k": int(how.k) + 1}}
    return {"prefetch": [*searches.values()], "query": fused, "limit": limit}


def _fused(query: Query, searches: Searches, vectors: Vectors, limit: int) -> Json:
    """The stages that score the candidates, and the formula over their scores."""
    how = query.fusion
    assert how is not None, "check_query saw to it"
    legs: list[Leg] = [*searches]
    if query.multivector is not None and query.rerank is None:
        legs.append("multivector")
    names = [f"$score[{position}]" for position in range(len(legs))]
    terms = [_term(query, how, leg, name) for leg, name in zip(legs, names, strict=True)]
    return {
        "prefetch": [_stage(how, leg, searches, vectors) for leg in legs],
        "query": {"formula": {"sum": terms}, "defaults": dict.fromkeys(names, 0.0)},
        "limit": limit,
    }


def _stage(how: Fusion, leg: Leg, searches: Searches, vectors: Vectors) -> Json:
    """What gives candidates their score in a leg; for rank fusion, 1 / rank."""
    if leg in searches and (isinstance(how, Rrf) or not how.rescore):
        stage = searches[leg]
    else:
        stage = {
            "prefetch": [*searches.values()],
            "query": vectors[leg],
            "using": leg,
            "limit": sum(search["limit"] for search in searches.values()),
        }
    if isinstance(how, Rrf):
        return {"prefetch": [stage], "query": {"rrf": {"k": 1}}, "limit": stage["limit"]}
    return stage


def _term(query: Query, how: Fusion, leg: Leg, score: str) -> Json:
    """A leg's part of the sum."""
    weight: float = getattr(how, leg)
    if isinstance(how, Rrf):
        # With s = 1 / rank, weight / (k + rank) is weight * s / (1 + k * s), and 0 for s = 0.
        below = {"sum": [1.0, {"mult": [how.k, score]}]}
        return {"div": {"left": {"mult": [weight, score]}, "right": below}}
    if leg == "multivector" and query.multivector is not None:
        weight /= len(query.multivector)
    return {"mult": [weight, score]}
