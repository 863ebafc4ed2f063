"""The connector: one collection in Qdrant, whichever engine holds it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

import numpy as np

from m3connect.connecting import retry, ties
from m3connect.connecting.checks import check_ids, check_query, check_records, ids_or_filter
from m3connect.connecting.collection import Place, Stored
from m3connect.connecting.naming import connector_repr
from m3connect.connecting.portions import portions
from m3connect.connecting.reading import selected_legs
from m3connect.connecting.retry import DEFAULT_POLICY, RetryPolicy
from m3connect.connecting.tenants import check_unmoved, scoped, tenants_of, with_tenants
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
    Limits,
)
from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    CollectionOutdated,
    PermanentError,
    Unsupported,
)
from m3connect.filters import And, AnyFilter, Filter
from m3connect.types import LEGS, Hit, Query, RecordBatch, TokenDtype
from m3connect_qdrant import mapping
from m3connect_qdrant.engine.protocol import Engine
from m3connect_qdrant.errors import NAME, CollectionExists
from m3connect_qdrant.filters import Json, compile_filter, indexes
from m3connect_qdrant.mapping import (
    ONLY_ID,
    ONLY_ROWS,
    WITHOUT_FACTS,
    MultivectorStorage,
    Placing,
)
from m3connect_qdrant.naming import check_name
from m3connect_qdrant.points import QUERIES_AT_ONCE, Points
from m3connect_qdrant.queries import (
    MULTIVECTOR_FLOATS,
    Answer,
    check_size,
    hits,
    id_of,
    request,
    score_of,
    spare,
)

HITS_AT_ONCE = 10_000
_TOKEN_DTYPES: frozenset[TokenDtype] = frozenset({"float16", "float32"})

log = logging.getLogger(__name__)


class QdrantConnector:
    """See :class:`m3connect.contract.Connector`; :func:`m3connect_qdrant.connect` makes one.

    Args:
        collection: the collection's name.
        engine: what holds it.
        exact: whether dense vectors are searched without the graph.
        storage: how a new collection stores token values, if not as its schema says.
        placing: how a server is to keep a new collection.
        tenant_field: the payload field by which it keeps tenants apart.
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
        placing: Placing | None = None,
        tenant_field: str | None = None,
        policy: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        self.collection = collection
        self._place = Place(NAME, collection)
        self._by_name = Points(engine, policy)
        self._points = self._by_name  # of what the name stands for, once it was looked up
        self._stands_for = collection
        self._looked_up = False
        self._may_be_alias = True
        self._exact = exact
        self._storage = storage
        self._placing = placing or Placing()
        self._tenant_field = tenant_field
        self._version: str | None = None
        self._known_schema: CollectionSchema | None = None
        self._parsed: tuple[str, Stored] | None = None  # the text as last read, and what it says
        self._quantized = False  # as last read, with the schema

    @property
    def capabilities(self) -> Capabilities:
        """All of it in one request a query; asks a server for its version, once.

        The collection's strict mode may allow less, once it was read; the planner composes the rest.
        """
        allowed = self._engine.allowance
        return Capabilities(
            engine=self._engine_version(),
            embedded=self._engine.embedded,
            legs=frozenset(LEGS if allowed.exact else ("dense", "sparse")),
            token_dtypes=_TOKEN_DTYPES,
            fusions=frozenset({"rrf", "weighted", "weighted_rescored"}),
            maxsim=allowed.exact,
            exact=self._exact or self._engine.exact,
            aliases=self._engine.aliases,
            limits=self._limits,
            licence="Apache-2.0",
        )

    def _engine_version(self) -> str:
        if self._version is None:
            self._version = self._points.ask("capabilities", self._engine.version)
        return self._version

    @property
    def _limits(self) -> Limits:
        allowed = self._engine.allowance
        return Limits(
            request_bytes=self._engine.request_bytes,
            multivector_floats=MULTIVECTOR_FLOATS,
            results=allowed.results,
            results_by="strict mode's max_query_limit",
            candidates=allowed.results,
            records=allowed.records,
        )

    # -------------------------------------------------------------------------- the collection

    def ensure(self, schema: CollectionSchema) -> None:
        """Create the collection, or verify that it fits; add missing payload indexes."""
        schema = with_tenants(schema, self._tenant_field)
        try:
            stored = self._stored("ensure")
        except CollectionNotFound:
            self._create(schema)
            stored = self._stored("ensure")
        stored.require(schema, self._place)
        merged = stored.merged(schema)
        self._add_indexes(merged.schema)
        if merged != stored:
            self._points.ask("ensure", self._engine.set_metadata, merged.to_text())
        self._known_schema = merged.schema

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes as the collection itself holds them."""
        stored = self._find("describe")
        self._known_schema = stored.schema
        return stored.info(self._place, self._engine_version(), self._stands_for)

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Merge notes; None removes a key."""
        self._stored("annotate")
        self._note("annotate", self._points, notes)

    def collections(self) -> list[str]:
        """The names of the collections in the same folder or server that m3connect made."""
        return self._by_name.ask("collections", self._by_name.engine.collections)

    def beside(self, collection: str) -> QdrantConnector:
        """Another collection in the same folder or server."""
        engine = self._by_name.engine
        check_name(collection, engine.longest_name)
        return QdrantConnector(
            collection,
            engine.beside(collection),
            exact=self._exact,
            storage=self._storage,
            placing=self._placing,
            tenant_field=self._tenant_field,
            policy=self._by_name.policy,
        )

    def switch(self, collection: str) -> None:
        """Set the alias (server), or note it in the collection of this name."""
        own, engine = self._by_name, self._by_name.engine
        self._place.switch(
            collection,
            own.ask("switch", engine.collections),
            annotate=partial(self._note, "switch", own),
            set_alias=partial(own.ask, "switch", engine.set_alias) if engine.aliases else None,
        )
        self._may_be_alias = True

    def size(self) -> int | None:
        """Bytes of the folder (embedded); a server does not tell."""
        self._schema("size")
        return self._points.ask("size", self._engine.size)

    def drop(self) -> None:
        """Remove the collection: its folder, or the server's collection of this name."""
        with suppress(CollectionOutdated):  # whose name stands for no other
            self._find("drop")
            self._place.require_own(self._stands_for)
        self._by_name.ask("drop", self._by_name.engine.drop)
        self._known_schema, self._looked_up, self._may_be_alias = None, False, True

    def flush(self) -> None:
        """Write to disk and build the indexes (embedded), or wait for them (server)."""
        self._schema("flush")
        self._points.ask("flush", self._engine.optimize)

    def close(self) -> None:
        """Release the folder's lock or the connections."""
        for points in (self._points, self._by_name):
            points.close()
        self._known_schema = None

    __repr__ = connector_repr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------- records

    def upsert(self, batch: RecordBatch) -> None:
        """Write records in requests that a server takes; the last of equal ids wins."""
        # Read anew: who made the collection anew meanwhile may keep tenants apart in it.
        schema = self._stored("upsert").schema
        check_records(batch, schema, self._limits)
        last = {id_: row for row, id_ in enumerate(batch.ids)}
        if len(last) < len(batch):
            batch = batch.take(np.array([*last.values()]))

        if whose := tenants_of(batch, schema):
            wanted = [mapping.point_id(id_) for id_ in whose]
            points = self._points.retrieve("upsert", wanted, mapping.ONLY_TENANT, ())
            check_unmoved(whose, dict(map(mapping.whose, points)))

        def send(part: RecordBatch) -> None:
            self._points.upsert([*mapping.points(part, schema)])

        retry.deliver(batch, send, self._limits, self._points.policy)

    def delete(self, where: Sequence[str] | AnyFilter) -> int:
        """Delete by ids or by filter; the number is counted just before."""
        chosen = ids_or_filter(where)
        selected: Json | list[str]
        if isinstance(chosen, Filter):
            condition = scoped(chosen, self._stored("delete").schema)  # anew, as upsert
            selected = compile_filter(And(()) if condition is None else condition)
            number = self._points.count("delete", selected)
        else:
            self._schema("delete")
            keys = [*dict.fromkeys(map(mapping.point_id, chosen))]
            points = self._points.retrieve("delete", keys, ONLY_ID, ())
            selected = [point.id for point in points]
            number = len(selected)
        if number:
            self._points.ask("delete", self._engine.delete, selected)
        return number

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids, in the order asked."""
        schema = self._schema("fetch")
        check_ids(ids)
        legs = selected_legs(vectors, schema)
        keys = [*map(mapping.point_id, ids)]
        unique = [*dict.fromkeys(keys)]
        read = self._points.read("fetch", unique, WITHOUT_FACTS, legs, schema)
        points = {point.id: point for point in read}
        return mapping.records([points[key] for key in keys if key in points], schema, legs)

    def scan(
        self,
        where: AnyFilter | None = None,
        *,
        vectors: LegSelection = False,
        batch_size: int = 256,
    ) -> Iterator[RecordBatch]:
        """All matching records, page by page."""
        schema = self._schema("scan")
        legs = selected_legs(vectors, schema)
        condition = _compiled(where, schema)
        if "multivector" not in legs:
            for page in self._points.pages("scan", condition, batch_size, WITHOUT_FACTS, legs):
                yield mapping.records(page, schema, legs)
            return
        for page in self._points.pages("scan", condition, batch_size, ONLY_ROWS, ()):
            for points in self._points.retrieve_large("scan", page, WITHOUT_FACTS, legs, schema):
                yield mapping.records(points, schema, legs)

    def count(self, where: AnyFilter | None = None) -> int:
        """How many records match."""
        condition = _compiled(where, self._schema("count"))  # first: it may turn to other points
        return self._points.count("count", condition)

    # -------------------------------------------------------------------------------- search

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Answer queries, each in one request, many in one message."""
        schema = self._schema("search")
        queries = [check_query(query, schema) for query in queries]
        for query in queries:
            check_size(query)
            self._check_allowed(query)
        answers: list[list[Hit]] = []
        sizes = (query.limit for query in queries)
        for part in portions(sizes, count=QUERIES_AT_ONCE, weight=HITS_AT_ONCE):
            some = queries[part]
            ranked = ties.best(
                [query.limit for query in some],
                partial(self._ask, some),
                score=score_of,
                id_=id_of,
                most=self._engine.allowance.results,
                spare=[spare(query) for query in some],
            )
            answers += map(hits, some, ranked)
        return answers

    def _check_allowed(self, query: Query) -> None:
        """Refuse what strict mode does not let one request do, as :attr:`capabilities` says."""
        allowed = self._engine.allowance
        setting = ""
        if query.multivector is not None and not allowed.exact:
            setting = "search_allow_exact=false forbids MaxSim"
        elif allowed.results is not None:
            both = {"dense", "sparse"} <= {*query.legs}
            together = query.dense_depth + query.sparse_depth if both else 0
            if (candidates := max(together, query.rerank or 0)) > allowed.results:
                setting = (
                    f"max_query_limit is {allowed.results}, {candidates} candidates are asked for"
                )
        if setting:
            raise Unsupported(
                f"strict mode's {setting}; m3connect.searching.planner composes it",
                connector=NAME,
                operation="search",
            )

    def _ask(
        self, queries: Sequence[Query], chosen: Sequence[int], sizes: Sequence[int]
    ) -> list[Answer]:
        requests = [
            request(queries[row], size, exact=self._exact, quantized=self._quantized)
            for row, size in zip(chosen, sizes, strict=True)
        ]
        answers = self._points.query([body for body in requests if body is not None])
        return [[] if body is None else next(answers) for body in requests]

    # ------------------------------------------------------------------- what the name stands for

    @property
    def _engine(self) -> Engine:
        return self._points.engine

    def _schema(self, operation: str) -> CollectionSchema:
        """The schema as last read."""
        return self._known_schema or self._stored(operation).schema

    def _stored(self, operation: str) -> Stored:
        """What the collection says of itself now; which one that is is looked up once."""
        return self._read(operation, self._points) if self._looked_up else self._find(operation)

    def _find(self, operation: str) -> Stored:
        """Look up which collection the name stands for, and what that says of itself."""
        self._looked_up = False
        name = self._alias(operation) or self.collection
        if name == self.collection:
            self._may_be_alias = True
            try:
                stored = self._read(operation, self._by_name)
            except CollectionNotFound:
                self._turn_to(name)
                raise
            self._may_be_alias = False  # while there is a collection of this name
            name = stored.stands_for or name
        self._turn_to(name)
        if name != self.collection:
            try:
                stored = self._read(operation, self._points)
            except CollectionNotFound as error:
                raise self._place.gone(name, operation) from error
        self._looked_up = True
        return stored

    def _alias(self, operation: str) -> str | None:
        """The collection that the name is an alias of, if it is one."""
        if self._may_be_alias:
            with suppress(AuthError):  # who may use one collection may not list all aliases
                return self._by_name.ask(operation, self._by_name.engine.alias)
        return None

    def _turn_to(self, name: str) -> None:
        """Ask the engine of this collection from now on."""
        if name != self._stands_for:
            if self._points is not self._by_name:
                self._points.close()
            own = name == self.collection
            self._points = self._by_name if own else self._by_name.beside(name)
            self._stands_for, self._known_schema = name, None

    def _read(self, operation: str, points: Points) -> Stored:
        text, notes = self._about(operation, points)
        if self._parsed is None or self._parsed[0] != text:
            self._parsed = text, Stored.from_text(text, self._place, operation)
        stored = self._parsed[1]
        stored.require_tenants(self._tenant_field, self._place, operation)
        self._quantized = "quantization" in stored.layout
        self._known_schema = stored.schema
        return stored.annotated({key: json.loads(note) for key, note in notes.items()})

    def _about(self, operation: str, points: Points) -> tuple[str, Mapping[str, str]]:
        """What the collection says of itself, and the notes that came later."""
        try:
            about = points.ask(operation, points.engine.metadata)
        except CollectionNotFound as error:
            if operation == "ensure":  # which is about to make it
                raise
            raise self._place.not_found(operation, self.collections) from error
        if about is None:
            raise self._place.foreign(operation)
        return about

    def _note(self, operation: str, points: Points, notes: Mapping[str, Any]) -> None:
        texts = {key: json.dumps(note) for key, note in notes.items()}
        points.ask(operation, points.engine.note, texts)

    def _create(self, schema: CollectionSchema) -> None:
        if schema.multivector_dtype not in _TOKEN_DTYPES:
            raise Unsupported(
                f"Qdrant has no token values of the kind {schema.multivector_dtype} (--multivector-dtype)"
                ": it compresses float16 itself where it is told to, with --target-option "
                "multivector_storage=turbo8 or turbo4",
                connector=NAME,
                operation="ensure",
            )
        # Another process may be faster; then its collection is verified like any other.
        with suppress(CollectionExists):
            try:
                self._create_with(schema, self._storage)
            except PermanentError as error:  # only asking shows which storages a server has
                if self._storage is None or type(error) is not PermanentError:
                    raise
                log.warning(
                    "multivector_storage=%s was refused (%s): token values are stored in %s",
                    self._storage,
                    error,
                    schema.multivector_dtype,
                )
                self._create_with(schema, None)

    def _create_with(self, schema: CollectionSchema, storage: MultivectorStorage | None) -> None:
        placing = self._placing
        vectors = mapping.vector_params(schema, storage, placing)
        sparse = mapping.sparse_params(schema, placing)
        layout = {"quantization": placing.quantization} if placing.quantization else {}
        about = Stored(schema, layout=layout).to_text()
        self._points.ask("ensure", self._engine.create, vectors, sparse, about, placing.settings())

    def _add_indexes(self, schema: CollectionSchema) -> None:
        tenant = schema.tenant_field
        if not schema.payload_fields and tenant is None:
            return
        present = self._points.ask("ensure", self._engine.indexes)
        if tenant is not None:
            for key, index in indexes(tenant, "keyword").items():
                if key not in present:
                    self._points.ask("ensure", self._engine.add_index, key, index, tenant=True)
                present.add(key)
        for field, kind in schema.payload_fields.items():
            for key, index in indexes(field, kind).items():
                if key not in present:
                    self._points.ask("ensure", self._engine.add_index, key, index)


def _compiled(where: AnyFilter | None, schema: CollectionSchema) -> Json | None:
    condition = scoped(where, schema)
    return None if condition is None else compile_filter(condition)
