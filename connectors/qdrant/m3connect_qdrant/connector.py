"""The connector: one collection in Qdrant, whichever engine holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from qdrant_client import models

from m3connect.connecting import retry
from m3connect.connecting.checks import check_ids, check_query, check_records
from m3connect.connecting.reading import selected_legs
from m3connect.connecting.retry import DEFAULT_POLICY, RetryPolicy
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
    Limits,
)
from m3connect.errors import (
    CollectionNotFound,
    PermanentError,
    SchemaMismatch,
    Unsupported,
)
from m3connect.filters import Filter
from m3connect.types import LEGS, Hit, Leg, Query, RecordBatch
from m3connect_qdrant import mapping
from m3connect_qdrant.engine import Engine
from m3connect_qdrant.errors import NAME, CollectionExists, translated
from m3connect_qdrant.filters import compile_filter, indexes
from m3connect_qdrant.mapping import ONLY_ID, WITHOUT_FACTS, MultivectorStorage, Point
from m3connect_qdrant.queries import (
    MULTIVECTOR_FLOATS,
    Answer,
    check_size,
    hits,
    is_cut_in_tie,
    request,
)

READ_AT_ONCE = 64
"""Records with vectors in one answer: at most 64 x 4 MiB."""
QUERIES_AT_ONCE = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What is stored with the collection itself, as JSON text."""

    schema: CollectionSchema
    notes: Mapping[str, Any]

    def to_text(self) -> str:
        return json.dumps({"schema": self.schema.to_json(), "notes": self.notes})

    @classmethod
    def from_text(cls, text: str) -> _Metadata:
        values = json.loads(text)
        return cls(CollectionSchema.from_json(values["schema"]), values["notes"])


class QdrantConnector:
    """See :class:`m3connect.contract.Connector`; :func:`m3connect_qdrant.connect` makes one.

    Args:
        collection: the collection's name.
        engine: what holds it.
        exact: whether dense vectors are searched without the graph.
        storage: how a new collection stores token values, if not as its schema says.
        policy: how often a transient failure is retried.
    """

    name = NAME

    def __init__(
        self,
        collection: str,
        engine: Engine,
        *,
        exact: bool = False,
        storage: MultivectorStorage | None = None,
        policy: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        self.collection = collection
        self._engine = engine
        self._exact = exact
        self._storage = storage
        self._policy = policy
        self._limits = Limits(
            request_bytes=engine.request_bytes, multivector_floats=MULTIVECTOR_FLOATS
        )
        self._version: str | None = None
        self._known_schema: CollectionSchema | None = None
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """All of it in one request a query; asks a server for its version, once."""
        if self._version is None:
            self._version = self._call("capabilities", self._engine.version)
        return Capabilities(
            engine=self._version,
            embedded=self._engine.embedded,
            legs=frozenset(LEGS),
            fusions=frozenset({"rrf", "weighted", "weighted_rescored"}),
            maxsim=True,
            exact=self._exact or self._engine.exact,
            limits=self._limits,
        )

    # -------------------------------------------------------------------------- the collection

    def ensure(self, schema: CollectionSchema) -> None:
        """Create the collection, or verify that it fits; add missing payload indexes."""
        try:
            stored = self._metadata("ensure")
        except CollectionNotFound:
            self._create(schema)
            stored = self._metadata("ensure")
        if differences := schema.differences(stored.schema):
            raise SchemaMismatch(
                f"collection {self.collection!r} differs: {'; '.join(differences)}. Use another "
                "name (--collection), or ingest with the representations that it has",
                connector=NAME,
                operation="ensure",
            )
        self._add_indexes(schema)
        fields = {**stored.schema.payload_fields, **schema.payload_fields}
        merged = replace(stored.schema, payload_fields=fields)
        if merged != stored.schema:
            self._save("ensure", replace(stored, schema=merged))
        self._known_schema = merged

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes as the collection itself holds them."""
        stored = self._metadata("describe")
        return CollectionInfo(
            self.collection, stored.schema, stored.notes, self.capabilities.engine
        )

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Merge notes; None removes a key."""
        stored = self._metadata("annotate")
        merged = {**stored.notes, **notes}
        kept = {key: value for key, value in merged.items() if value is not None}
        self._save("annotate", replace(stored, notes=kept))

    def flush(self) -> None:
        """Write to disk and build the indexes (embedded), or wait for them (server)."""
        self._schema("flush")
        self._call("flush", self._engine.optimize)

    def close(self) -> None:
        """Release the folder's lock or the connections."""
        self._closed = True
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------- records

    def upsert(self, batch: RecordBatch) -> None:
        """Write records in requests that a server takes; the last of equal ids wins."""
        schema = self._schema("upsert")
        check_records(batch, schema, self._limits)
        last = {id_: row for row, id_ in enumerate(batch.ids)}
        if len(last) < len(batch):
            batch = batch.take(np.array([*last.values()]))

        def send(part: RecordBatch) -> None:
            with translated("upsert"):
                self._engine.upsert([*mapping.points(part, schema)])

        retry.deliver(batch, send, self._limits, self._policy)

    def delete(self, where: Sequence[str] | Filter) -> int:
        """Delete by ids or by filter; the number is counted just before."""
        self._schema("delete")
        doomed: models.Filter | list[str]
        if isinstance(where, Filter):
            doomed = compile_filter(where)
            number = self._call("delete", self._engine.count, doomed)
        else:
            check_ids(where)
            doomed = [point.id for point in self._points("delete", where, ())]
            number = len(doomed)
        if number:
            self._call("delete", self._engine.delete, doomed)
        return number

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids, in the order asked."""
        schema = self._schema("fetch")
        check_ids(ids)
        legs = selected_legs(vectors, schema)
        found = {point.id: point for point in self._points("fetch", ids, legs)}
        wanted = [mapping.point_id(id_) for id_ in ids]
        ordered = [found[id_] for id_ in wanted if id_ in found]
        return mapping.records(ordered, schema, legs)

    def scan(
        self, where: Filter | None = None, *, vectors: LegSelection = False, batch_size: int = 256
    ) -> Iterator[RecordBatch]:
        """All matching records, page by page."""
        schema = self._schema("scan")
        legs = selected_legs(vectors, schema)
        condition = None if where is None else compile_filter(where)
        offset = None
        while True:
            page, offset = self._call(
                "scan", self._engine.scroll, condition, batch_size, offset, legs
            )
            if page:
                yield mapping.records(page, schema, legs)
            if offset is None:
                return

    def count(self, where: Filter | None = None) -> int:
        """How many records match."""
        self._schema("count")
        condition = None if where is None else compile_filter(where)
        return self._call("count", self._engine.count, condition)

    # -------------------------------------------------------------------------------- search

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Answer queries, each in one request, many in one message."""
        schema = self._schema("search")
        for query in queries:
            check_query(query, schema)
            check_size(query)
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            answers += self._answer(queries[start : start + QUERIES_AT_ONCE])
        return answers

    def _answer(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Ask for one answer more than wanted, and for more where a tie crosses the limit.

        The engines order ties as they like; ordering them by id needs all of them.
        """
        answers: list[list[Hit]] = [[] for _ in queries]
        open_, extra = list(range(len(queries))), 1
        while open_:
            found = self._ask([queries[at] for at in open_], extra)
            for at, scored in zip(open_, found, strict=True):
                answers[at] = hits(queries[at], scored)
            open_ = [
                at
                for at, scored in zip(open_, found, strict=True)
                if is_cut_in_tie(scored, queries[at].limit, extra)
            ]
            extra *= 16
        return answers

    def _ask(self, queries: Sequence[Query], extra: int) -> list[Answer]:
        requests = [request(q, q.limit + extra, exact=self._exact) for q in queries]
        sent = [one for one in requests if one is not None]
        found = iter(self._call("search", self._engine.query, sent) if sent else [])
        return [[] if one is None else next(found) for one in requests]

    # ------------------------------------------------------------------------------- the engine

    def _schema(self, operation: str) -> CollectionSchema:
        """The schema as the collection holds it, read once."""
        if self._closed or self._known_schema is None:
            self._known_schema = self._metadata(operation).schema
        return self._known_schema

    def _metadata(self, operation: str) -> _Metadata:
        text = self._call(operation, self._engine.metadata)
        if text is None:
            raise SchemaMismatch(
                f"collection {self.collection!r} was not made by m3connect; use another name "
                "(--collection)",
                connector=NAME,
                operation=operation,
            )
        return _Metadata.from_text(text)

    def _save(self, operation: str, metadata: _Metadata) -> None:
        self._call(operation, self._engine.set_metadata, metadata.to_text())

    def _create(self, schema: CollectionSchema) -> None:
        vectors = mapping.vector_params(schema, self._storage)
        sparse = mapping.sparse_params(schema)
        text = _Metadata(schema, {}).to_text()
        # Another process may be faster; then its collection is verified like any other.
        with suppress(CollectionExists), self._storage_refused():
            self._call("ensure", self._engine.create, vectors, sparse, text)

    @contextmanager
    def _storage_refused(self) -> Iterator[None]:
        """Tell a server that lacks a storage from other refusals: only asking shows which it has."""
        try:
            yield
        except PermanentError as error:
            if self._storage is None or type(error) is not PermanentError:
                raise
            raise Unsupported(
                f"multivector_storage={self._storage!r} was refused ({error}); float16 and "
                "float32 work everywhere",
                connector=NAME,
                operation="ensure",
            ) from error

    def _add_indexes(self, schema: CollectionSchema) -> None:
        if not schema.payload_fields:
            return
        present = self._call("ensure", self._engine.indexes)
        for field, kind in schema.payload_fields.items():
            for key, index in indexes(field, kind).items():
                if key not in present:
                    self._call("ensure", self._engine.add_index, key, index)

    def _points(self, operation: str, ids: Sequence[str], legs: Sequence[Leg]) -> Iterator[Point]:
        """Those of the ids that exist, each once."""
        wanted = [*dict.fromkeys(mapping.point_id(id_) for id_ in ids)]
        payload = WITHOUT_FACTS if operation == "fetch" else ONLY_ID
        for start in range(0, len(wanted), READ_AT_ONCE):
            part = wanted[start : start + READ_AT_ONCE]
            yield from self._call(operation, self._engine.retrieve, part, payload, legs)

    def _call(self, operation: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Ask the engine, retried; everything asked is idempotent."""
        if self._closed:
            raise PermanentError("the connector is closed", connector=NAME, operation=operation)

        def ask() -> T:
            with translated(operation):
                return function(*args, **options)

        return retry.call(ask, self._policy)
