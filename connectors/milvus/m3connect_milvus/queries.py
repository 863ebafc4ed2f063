"""Queries as Milvus searches: what can be asked together, what is asked, what comes back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymilvus import AnnSearchRequest, MilvusClient, WeightedRanker
from pymilvus.client.embedding_list import EmbeddingList

from m3connect.connecting import ties
from m3connect.errors import InputError, Unsupported
from m3connect.types import Hit, Leg, Payload, Query, Weighted
from m3connect_milvus.errors import NAME
from m3connect_milvus.filters import expression
from m3connect_milvus.mapping import NO_TERM, payloads_of, sparse_field
from m3connect_milvus.storing.keys import digest, one_of
from m3connect_milvus.storing.layout import RESULTS, TOKENS_VECTOR, Layout
from m3connect_milvus.storing.store import Store
from m3connect_milvus.storing.texts import Row

_QUERIES, _HITS = 16, 1500
"""Queries of one request, and hits, since their payloads must fit one answer of 100 MiB."""
_FIELDS: dict[Leg, str] = {"dense": "dense", "sparse": "sparse", "multivector": TOKENS_VECTOR}


@dataclass(frozen=True, slots=True)
class Shape:
    """All of a query but its vectors: queries of one shape are asked in one request.

    Args:
        legs: what is searched.
        depths: candidates of each leg.
        weights: of each leg in the sum; a leg alone may have one too.
        filter: a Milvus expression.
        limit: results to rank, of which the query's limit is returned.
        payload: whether hits carry their payload.
    """

    legs: tuple[Leg, ...]
    depths: tuple[int, ...]
    weights: tuple[float, ...]
    filter: str
    limit: int
    payload: bool

    @property
    def scale(self) -> float:
        """What the engine's scores are multiplied by: it takes weights from 0 to 1."""
        return self.weights[0] if len(self.legs) == 1 else max(1.0, *self.weights)

    @property
    def output(self) -> list[str]:
        """The fields that come with a hit."""
        fields = ["record_id"]
        return [*fields, "payload", "payload_parts", "generation"] if self.payload else fields


def shape_of(query: Query, layout: Layout, native: frozenset[str]) -> Shape | None:
    """The shape of a checked query; None when nothing can match.

    Args:
        query: what is asked.
        layout: how the collection is stored.
        native: the fusions that the engine has.

    Raises:
        Unsupported: the engine does not answer it in one request.
        InputError: it wants more results than Milvus gives.
    """
    searches = _wanted(query, layout, native)
    if (most := max(query.limit, *(depth for _, depth, _ in searches))) > RESULTS:
        raise InputError(
            f"a search of Milvus returns at most {RESULTS:,} results (topK), not {most:,}"
        )
    sent = [each for each in searches if each[0] != "sparse" or _sparse(query)]
    if not sent or query.within == ():
        return None
    legs, depths, weights = zip(*sent, strict=True)
    limit = query.limit
    if len(legs) == 1:  # at a weight of 0, all that it brings tie
        limit = min(limit, *depths) if weights[0] else depths[0]
    where = _where(query, layout)
    return Shape(legs, depths, weights, where, limit, query.payload)


def _where(query: Query, layout: Layout) -> str:
    """Which records may be found, as an expression."""
    allowed = expression(query.filter, layout)
    if query.within is None:
        return allowed
    named = one_of("id", [digest(id_) for id_ in query.within])
    return f"{named} and ({allowed})" if allowed else named


def _wanted(query: Query, layout: Layout, native: frozenset[str]) -> list[tuple[Leg, int, float]]:
    """The legs to search, each with its depth and weight."""
    if len(query.legs) == 1:
        (leg,) = query.legs
        if leg == "multivector" and not layout.struct_array:
            raise _unsupported("multi-vectors are not searched here, only stored")
        return [(leg, query.limit, 1.0)]
    fusion = query.fusion
    if query.multivector is not None or not isinstance(fusion, Weighted) or fusion.rescore:
        raise _unsupported(f"Milvus does not fuse {query.legs} by {fusion} in one request")
    if "weighted" not in native:
        raise _unsupported("this version changes the scores before it adds them")
    return [
        ("dense", query.dense_depth, fusion.dense),
        ("sparse", query.sparse_depth, fusion.sparse),
    ]


def _unsupported(message: str) -> Unsupported:
    return Unsupported(message, connector=NAME, operation="search")


def _sparse(query: Query) -> dict[int, float]:
    """The terms of a query that can match."""
    if query.sparse is None:
        return {}
    return {term: weight for term, weight in sparse_field(query.sparse).items() if term != NO_TERM}


def _vector(query: Query, leg: Leg, layout: Layout) -> Any:
    if leg == "dense":
        return None if query.dense is None else query.dense.astype(layout.dense_dtype)
    if leg == "sparse":
        return _sparse(query)
    return None if query.multivector is None else EmbeddingList(np.float32(query.multivector))


def _params(leg: Leg, layout: Layout, size: int) -> dict[str, Any]:
    """The parameters of one leg's search for ``size`` results."""
    if leg == "sparse":
        return {"metric_type": "IP"}
    metric = "IP" if leg == "dense" else "MAX_SIM_IP"
    if leg == "dense" and layout.dense_index != "HNSW":
        return {"metric_type": metric}
    # Wider than asked, so that the approximate index misses little.
    return {"metric_type": metric, "params": {"ef": max(128, 2 * size)}}


# ---------------------------------------------------------------------------------- asking

_Found = list[tuple[float, Row]]
"""Scores and rows, best first."""


@dataclass(frozen=True, slots=True)
class Searcher:
    """Answers queries on one collection.

    Args:
        store: its data.
        layout: how it is stored.
        native: the fusions that the engine has.
    """

    store: Store
    layout: Layout
    native: frozenset[str]

    def answer(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """The hits of each query.

        Raises:
            TransientError: a record was rewritten meanwhile.
        """
        hits: list[_Found] = [[] for _ in queries]
        for shape, positions in self._grouped(queries):
            results = self._best(shape, [queries[position] for position in positions])
            for position, result in zip(positions, results, strict=True):
                hits[position] = result
        rows = [row for result in hits for _, row in result if "payload" in row]
        parts = self.store.texts("search", rows, ["payload"])
        return [_hits(result, parts) for result in hits]

    def _grouped(self, queries: Sequence[Query]) -> Iterator[tuple[Shape, list[int]]]:
        """The positions of queries that are asked together."""
        groups: defaultdict[Shape, list[int]] = defaultdict(list)
        for row, query in enumerate(queries):
            if (shape := shape_of(query, self.layout, self.native)) is not None:
                groups[shape].append(row)
        for shape, positions in groups.items():
            size = max(1, min(_QUERIES, _HITS // shape.limit))
            for start in range(0, len(positions), size):
                yield shape, positions[start : start + size]

    def _best(self, shape: Shape, queries: Sequence[Query]) -> list[_Found]:
        """Results by (-score, id).

        They are ranked by the engine's own scores, since a weight of 0 leaves no order among them.
        """

        def ask(chosen: Sequence[int], sizes: Sequence[int]) -> list[_Found]:
            return self._ask(shape, [queries[row] for row in chosen], sizes[0])

        ranked = ties.best(
            [shape.limit] * len(queries),
            ask,
            score=lambda hit: hit[0],
            id_=_record_id,
            most=RESULTS,
        )
        return [
            _scaled(found, _scale(shape, query), query.limit)
            for found, query in zip(ranked, queries, strict=True)
        ]

    def _ask(self, shape: Shape, queries: Sequence[Query], size: int) -> list[_Found]:
        answers = (
            self._fused(shape, queries, size)
            if len(shape.legs) > 1
            else self._single(shape, queries, size)
        )
        return [
            [
                (hit["distance"], {"id": hit["id"], **hit["entity"]})
                for hit in hits
                # A sparse search may fill up with records that share no term.
                if shape.legs != ("sparse",) or hit["distance"] > 0
            ]
            for hits in answers
        ]

    def _single(self, shape: Shape, queries: Sequence[Query], size: int) -> Any:
        (leg,) = shape.legs
        return self.store.database.call(
            "search",
            MilvusClient.search,
            self.store.records,
            data=[_vector(query, leg, self.layout) for query in queries],
            anns_field=_FIELDS[leg],
            filter=shape.filter,
            limit=size,
            output_fields=shape.output,
            search_params=_params(leg, self.layout, size),
            consistency_level=self.store.consistency,
        )

    def _fused(self, shape: Shape, queries: Sequence[Query], size: int) -> Any:
        legs = [
            AnnSearchRequest(
                [_vector(query, leg, self.layout) for query in queries],
                _FIELDS[leg],
                _params(leg, self.layout, depth),
                depth,
                expr=shape.filter,
            )
            for leg, depth in zip(shape.legs, shape.depths, strict=True)
        ]
        weights = [weight / shape.scale for weight in shape.weights]
        return self.store.database.call(
            "search",
            MilvusClient.hybrid_search,
            self.store.records,
            legs,
            WeightedRanker(*weights, norm_score=False),
            limit=size,
            output_fields=shape.output,
            consistency_level=self.store.consistency,
        )


def _scale(shape: Shape, query: Query) -> float:
    """MAX_SIM sums over the query's tokens, the score is their mean."""
    if shape.legs == ("multivector",) and query.multivector is not None:
        return shape.scale / len(query.multivector)
    return shape.scale


def _record_id(hit: tuple[float, Row]) -> str:
    return str(hit[1]["record_id"])


def _scaled(found: _Found, scale: float, limit: int) -> _Found:
    """The best of what was found, with the scores of the contract."""
    if scale:
        return [(score * scale, row) for score, row in found[:limit]]
    return [(0.0, row) for _, row in sorted(found, key=_record_id)[:limit]]


def _hits(found: _Found, parts: Mapping[str, str]) -> list[Hit]:
    """What was found as hits, with payloads where rows have them."""
    rows = [row for _, row in found]
    payloads: Sequence[Payload] = [{} for _ in rows]
    if rows and "payload" in rows[0]:
        payloads = payloads_of(rows, parts)
    return [
        Hit(row["record_id"], score, rank, payload)
        for rank, ((score, row), payload) in enumerate(zip(found, payloads, strict=True), start=1)
    ]
