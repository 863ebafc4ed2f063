"""The in-memory connector: exact, in numpy, naive on purpose. It is the oracle of all others."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Self

import numpy as np

from m3connect.connecting.checks import check_ids, check_query, check_records, ids_or_filter
from m3connect.connecting.collection import Place, Stored, closed
from m3connect.connecting.naming import connector_repr
from m3connect.connecting.reading import read_embeddings, selected_legs
from m3connect.connecting.tenants import check_unmoved, scoped, tenants_of, with_tenants
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
)
from m3connect.filters import AnyFilter, Filter, as_filter, matches
from m3connect.searching import fusion, scoring
from m3connect.types import (
    LEGS,
    Embeddings,
    FloatArray,
    Hit,
    Leg,
    LegScores,
    Payload,
    Query,
    RecordBatch,
    SparseVector,
    TokenArray,
)
from m3connect.types.tokens import rounded


@dataclass(frozen=True, slots=True)
class _Record:
    payload: Payload
    dense: FloatArray | None
    sparse: SparseVector | None
    multivector: TokenArray | None
    n_tokens: int
    truncated: bool


@dataclass(slots=True)
class _Collection:
    """What it says of itself, None before it is made, and its records by id."""

    stored: Stored | None = None
    records: dict[str, _Record] = field(default_factory=dict)


@dataclass(slots=True)
class _Database:
    """The collections of connectors that are :meth:`MemoryConnector.beside` each other."""

    collections: dict[str, _Collection] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


class MemoryConnector:
    """One collection in this process's memory; see :class:`m3connect.contract.Connector`.

    Args:
        collection: its name.
        tenant_field: the payload field by which it keeps tenants apart.
    """

    name = "memory"
    capabilities = Capabilities(
        engine="numpy",
        embedded=True,
        legs=frozenset(LEGS),
        fusions=frozenset({"rrf", "weighted", "weighted_rescored"}),
        maxsim=True,
        scores_within=frozenset(LEGS),
        exact=True,
        aliases=True,
    )

    def __init__(self, *, collection: str, tenant_field: str | None = None) -> None:
        self.collection = collection
        self.tenant_field = tenant_field
        self._place = Place(self.name, collection)
        self.database = _Database()
        self._found: str | None = None  # what the name stood for when it was last looked up
        self._closed = False

    @property
    def _held(self) -> _Collection:
        name = self._found or self.collection
        return self.database.collections.setdefault(name, _Collection())

    @property
    def _stored(self) -> Stored | None:
        return self._held.stored

    @_stored.setter
    def _stored(self, stored: Stored | None) -> None:
        self._held.stored = stored

    @property
    def _records(self) -> dict[str, _Record]:
        return self._held.records

    @_records.setter
    def _records(self, records: dict[str, _Record]) -> None:
        self._held.records = records

    def ensure(self, schema: CollectionSchema) -> None:
        """Create the collection, or verify that it fits."""
        self._open("ensure")
        self._find("ensure")
        schema = with_tenants(schema, self.tenant_field)
        stored = self._stored or Stored(schema)
        stored.require(schema, self._place)
        self._stored = stored.merged(schema)

    def upsert(self, batch: RecordBatch) -> None:
        """Write records; the last of equal ids wins."""
        schema = self._require("upsert").schema
        check_records(batch, schema, self.capabilities.limits)
        held = [(id_, self._records[id_].payload) for id_ in batch.ids if id_ in self._records]
        check_unmoved(tenants_of(batch, schema), tenants_of(held, schema))
        for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
            self._records[id_] = _record(batch.embeddings, row, payload, schema)

    def flush(self) -> None:
        """Nothing to do: every write is visible at once."""
        self._require("flush")

    def delete(self, where: Sequence[str] | AnyFilter) -> int:
        """Delete by ids or by filter."""
        schema = self._require("delete").schema
        chosen = ids_or_filter(where)
        ids = self._matching(scoped(chosen, schema)) if isinstance(chosen, Filter) else chosen
        return sum(self._records.pop(id_, None) is not None for id_ in ids)

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids, in the order asked."""
        schema = self._require("fetch").schema
        check_ids(ids)
        present = [id_ for id_ in ids if id_ in self._records]
        records = [self._records[id_] for id_ in present]
        payloads = [copy.deepcopy(record.payload) for record in records]
        return RecordBatch(
            present, payloads, _embeddings(records, schema, selected_legs(vectors, schema))
        )

    def scan(
        self,
        where: AnyFilter | None = None,
        *,
        vectors: LegSelection = False,
        batch_size: int = 256,
    ) -> Iterator[RecordBatch]:
        """All matching records."""
        schema = self._require("scan").schema
        selected_legs(vectors, schema)
        ids = self._matching(scoped(where, schema))
        for start in range(0, len(ids), batch_size):
            yield self.fetch(ids[start : start + batch_size], vectors=vectors)

    def count(self, where: AnyFilter | None = None) -> int:
        """How many records match."""
        return len(self._matching(scoped(where, self._require("count").schema)))

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Merge notes; None removes a key."""
        self._stored = self._require("annotate").annotated(copy.deepcopy(dict(notes)))

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes."""
        stored = copy.deepcopy(self._require("describe", anew=True))
        return stored.info(self._place, self.capabilities.engine, self._found)

    def collections(self) -> list[str]:
        """This one, once it was made, and those beside it."""
        self._open("collections")
        kept = self.database.collections.items()
        return sorted(name for name, each in kept if each.stored is not None)

    def beside(self, collection: str) -> Self:
        """Another collection in the same memory."""
        other = type(self)(collection=collection)
        other.tenant_field = self.tenant_field
        other.database = self.database
        return other

    def switch(self, collection: str) -> None:
        """Set the alias, or note it in the collection of this name."""
        collections, aliases = self.database.collections, self.database.aliases

        def annotate(notes: Mapping[str, Any]) -> None:
            own = collections[self.collection]
            own.stored = own.stored and own.stored.annotated(notes)

        def set_alias(name: str) -> None:
            aliases[self.collection] = name

        self._place.switch(collection, self.collections(), annotate=annotate, set_alias=set_alias)

    def size(self) -> None:
        """Nothing is on disk."""
        self._require("size")

    def drop(self) -> None:
        """Forget schema, notes and records."""
        self._require("drop", anew=True)
        self._place.require_own(self._found or self.collection)
        self._stored = None
        self._records.clear()
        aliases = self.database.aliases
        self.database.aliases = {n: to for n, to in aliases.items() if to != self.collection}

    def close(self) -> None:
        """Forget nothing, refuse everything from now on."""
        self._closed = True

    __repr__ = connector_repr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------ search

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Answer every query exactly, as the docstring of :class:`Query` says."""
        schema = self._require("search").schema
        checked = [check_query(query, schema) for query in queries]
        return [self._answer(query) for query in checked]

    def _answer(self, query: Query) -> list[Hit]:
        scores = self._leg_scores(query)
        final = _final_scores(query, scores)
        best = fusion.top(final, query.limit)
        return [self._hit(query, rank, id_, final, scores) for rank, id_ in enumerate(best, 1)]

    def _leg_scores(self, query: Query) -> dict[Leg, dict[str, float]]:
        """Every matching record's score in every leg of the query."""
        ids = self._matching(query.filter)
        if query.within is not None:
            allowed = frozenset(query.within)
            ids = [id_ for id_ in ids if id_ in allowed]
        records = [self._records[id_] for id_ in ids]
        embeddings = _embeddings(records, self._require("search").schema, query.legs)
        return scoring.leg_scores(query, ids, embeddings)

    def _hit(
        self,
        query: Query,
        rank: int,
        id_: str,
        final: Mapping[str, float],
        scores: Mapping[Leg, Mapping[str, float]],
    ) -> Hit:
        payload = copy.deepcopy(self._records[id_].payload) if query.payload else {}
        legs = LegScores(**{leg: by_id[id_] for leg, by_id in scores.items()})
        return Hit(id_, final[id_], rank, payload, legs if query.leg_scores else None)

    def _matching(self, where: AnyFilter | None) -> list[str]:
        condition = as_filter(where)
        if condition is None:
            return list(self._records)
        return [id_ for id_, record in self._records.items() if matches(condition, record.payload)]

    def _open(self, operation: str) -> None:
        if self._closed:
            raise closed(self.name, operation)

    def _require(self, operation: str, *, anew: bool = False) -> Stored:
        self._open(operation)
        self._found = None if anew else self._found
        self._find(operation)
        if self._stored is None:
            self._found = None
            raise self._place.not_found(operation, self.collections)
        self._stored.require_tenants(self.tenant_field, self._place, operation)
        return self._stored

    def _find(self, operation: str) -> None:
        """Look up what the name stands for, unless that is known."""
        if self._found is not None:
            return
        kept = self.database.collections
        name = self.database.aliases.get(self.collection, self.collection)
        own = kept.get(name, _Collection()).stored
        if own is not None and name == self.collection and own.stands_for is not None:
            name = own.stands_for
        if name != self.collection and kept.get(name, _Collection()).stored is None:
            raise self._place.gone(name, operation)
        self._found = name


def _final_scores(query: Query, scores: Mapping[Leg, Mapping[str, float]]) -> dict[str, float]:
    """The candidates and their final scores."""
    if len(query.legs) == 1:
        return _found(query.legs[0], scores[query.legs[0]])
    depths: dict[Leg, int] = {"dense": query.dense_depth, "sparse": query.sparse_depth}
    rankings: dict[Leg, list[str]] = {
        leg: fusion.top(_found(leg, scores[leg]), depths[leg])
        for leg in query.legs
        if leg != "multivector"
    }
    return fusion.combine(query, rankings, scores)


def _found(leg: Leg, scores: Mapping[str, float]) -> dict[str, float]:
    """Whom a leg can find: sparse only what shares a term."""
    return {id_: score for id_, score in scores.items() if leg != "sparse" or score > 0}


def _record(
    embeddings: Embeddings, row: int, payload: Payload, schema: CollectionSchema
) -> _Record:
    embedding = embeddings.take(np.array([row]))
    multi = None
    if embedding.multivector is not None:
        multi = rounded(embedding.multivector[0], schema.multivector_dtype)
    return _Record(
        copy.deepcopy(dict(payload)),
        None if embedding.dense is None else embedding.dense[0],
        None if embedding.sparse is None else embedding.sparse[0],
        multi,
        int(embedding.n_tokens[0]),
        bool(embedding.truncated[0]),
    )


def _embeddings(
    records: Sequence[_Record], schema: CollectionSchema, legs: Sequence[Leg]
) -> Embeddings:
    return read_embeddings(
        records,
        schema,
        legs,
        {leg: attrgetter(leg) for leg in LEGS},
        n_tokens=(record.n_tokens for record in records),
        truncated=(record.truncated for record in records),
    )
