"""The connector: the contract of m3connect on top of Milvus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from m3connect.connecting import retry
from m3connect.connecting.checks import check_ids, check_query, check_records, ids_or_filter
from m3connect.connecting.collection import Stored
from m3connect.connecting.naming import connector_repr
from m3connect.connecting.reading import selected_legs
from m3connect.connecting.tenants import check_unmoved, scoped, tenants_of, with_tenants
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
    Limits,
)
from m3connect.errors import CollectionNotFound, CollectionOutdated, TransientError
from m3connect.filters import AnyFilter, Filter
from m3connect.types import LEGS, Hit, Leg, Query, RecordBatch
from m3connect_milvus.engine.database import Database
from m3connect_milvus.engine.engine import Engine
from m3connect_milvus.errors import NAME
from m3connect_milvus.filters import expression
from m3connect_milvus.mapping import SCALARS, check_rows, record_batch, rows
from m3connect_milvus.queries import Searcher
from m3connect_milvus.storing.keys import digest
from m3connect_milvus.storing.layout import RESULTS, TEXT_BYTES, Layout, check_engine, parts_name
from m3connect_milvus.storing.store import ROWS, Store

LIMITS = Limits(id_bytes=TEXT_BYTES, results=RESULTS, results_by="topK")


@dataclass(frozen=True, slots=True)
class Options:
    """How a collection is to be made.

    Args:
        dense_index: ``FLAT``, ``HNSW`` or ``AUTOINDEX``; None for FLAT in Milvus Lite and HNSW on
            a server.
        dense_dtype: ``float32`` or ``float16``.
        partition_key: the payload field by which records are partitioned.
        struct_array: whether multi-vectors are searched by the engine; None where it can.
        tenant_field: the payload field by which it keeps tenants apart.
    """

    dense_index: str | None = None
    dense_dtype: str = "float32"
    partition_key: str | None = None
    struct_array: bool | None = None
    tenant_field: str | None = None


class MilvusConnector:
    """One collection in Milvus; see :class:`m3connect.contract.Connector`.

    Args:
        collection: its name.
        database: where it is.
        consistency: the consistency level of reads.
        options: how it is made, if it is to be made.
    """

    name = NAME

    def __init__(
        self, *, collection: str, database: Database, consistency: str, options: Options
    ) -> None:
        parts_name(collection)  # refuses what is no name
        self.collection = collection
        self._by_name = Store(database, collection, consistency)
        self._store = self._by_name  # that the name stands for, once it was looked up
        self._may_be_alias = True
        self._options = options
        self._engine: Engine | None = None
        self._layout: Layout | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the engine does itself; asks a server for its version once."""
        engine = self._known_engine()
        layout = self._layout or self._planned(CollectionSchema(None, False, None))
        stores = frozenset(LEGS) if engine.sparse_vectors else frozenset(LEGS) - {"sparse"}
        return Capabilities(
            engine=engine.name,
            embedded=self._database.url is None,
            legs=stores if layout.struct_array else stores - {"multivector"},
            stores=stores,
            fusions=frozenset({"weighted"}) if engine.raw_weighted else frozenset(),
            # Of struct arrays no server here could be asked, so theirs are scored on the client.
            scores_within=stores - {"multivector"},
            exact=layout.dense_index == "FLAT",
            aliases=self._database.url is not None,
            limits=LIMITS,
            licence="Apache-2.0",
        )

    def ensure(self, schema: CollectionSchema) -> None:
        """Create the collection, or verify that it fits; adds missing payload fields and indexes.

        Raises:
            SchemaMismatch: it differs; says in what.
            Unsupported: this Milvus cannot hold it; says which can.
        """
        schema = with_tenants(schema, self._options.tenant_field)
        engine = self._known_engine("ensure")
        try:
            held = self._stored("ensure")
        except CollectionNotFound:
            held = None
        with self._database.writing():
            if held is None:
                layout = self._planned(schema)
                check_engine(layout, engine)
                stored = layout.stored()
            else:
                held.require(schema, self._store.place, self._wanted())
                stored = held.merged(schema)
            self._store.create(stored, engine, described=stored == held)
        self._layout = Layout.of(stored)

    def upsert(self, batch: RecordBatch) -> None:
        """Write records; the last of equal ids wins."""
        layout = self._anew("upsert")
        check_records(batch, layout.schema, LIMITS)
        check_rows(batch, layout)
        self._check_unmoved(tenants_of(batch, layout.schema))
        last = {id_: row for row, id_ in enumerate(batch.ids)}
        if len(last) < len(batch):
            batch = batch.take(np.array(list(last.values()), np.intp))
        # All rows are made before the first is written, since making them finds bad records.
        made = dict(zip(batch.ids, rows(batch, layout), strict=True))

        def send(part: RecordBatch) -> None:
            self._database.check_room()
            with self._database.writing():
                self._store.write([made[id_] for id_ in part.ids])

        retry.deliver(batch, send, LIMITS, self._database.policy)

    def _check_unmoved(self, whose: Mapping[str, str]) -> None:
        if whose:
            keys = [digest(id_) for id_ in whose]
            rows = self._store.rows("upsert", keys, ["record_id", "partition"])
            wanted = {id_: digest(tenant) for id_, tenant in whose.items()}
            check_unmoved(wanted, {row["record_id"]: row["partition"] for row in rows})

    def flush(self) -> None:
        """Seal, index and load what was written, so that it is found fast."""
        self._require("flush")
        with self._database.writing():
            self._store.flush()

    def delete(self, where: Sequence[str] | AnyFilter) -> int:
        """Delete by ids or by filter."""
        chosen = ids_or_filter(where)
        if isinstance(chosen, Filter):
            layout = self._anew("delete")
            condition = scoped(chosen, layout.schema)
            pages = self._store.pages("delete", expression(condition, layout), [], RESULTS)
            keys = [row["id"] for page in pages for row in page]
        else:
            self._require("delete")
            keys = [digest(id_) for id_ in chosen]
        with self._database.writing():
            return self._store.remove(keys)

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids, in the order asked."""
        layout = self._require("fetch")
        check_ids(ids)
        legs = selected_legs(vectors, layout.schema)
        return self._read("fetch", [digest(id_) for id_ in ids], layout, legs)

    def scan(
        self,
        where: AnyFilter | None = None,
        *,
        vectors: LegSelection = False,
        batch_size: int = 256,
    ) -> Iterator[RecordBatch]:
        """All matching records."""
        layout = self._require("scan")
        legs = selected_legs(vectors, layout.schema)
        fields, texts = _fields(legs)
        size = ROWS if legs else 4 * ROWS
        condition = expression(scoped(where, layout.schema), layout)
        for page in self._store.pages("scan", condition, fields, size):
            try:
                parts = self._store.texts("scan", page, texts)
            except TransientError:
                keys = [row["id"] for row in page]
                batch = self._read("scan", keys, layout, legs)
            else:
                batch = record_batch(page, parts, layout, legs)
            for start in range(0, len(batch), batch_size):
                yield batch[start : start + batch_size]

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Answer one leg, or the weighted sum of dense and sparse where the engine has it."""
        layout = self._require("search")
        checked = [check_query(query, layout.schema) for query in queries]
        searcher = Searcher(self._store, layout, self.capabilities.fusions)
        return self._database.retried(lambda: searcher.answer(checked))

    def count(self, where: AnyFilter | None = None) -> int:
        """How many records match."""
        layout = self._require("count")
        return self._store.count(expression(scoped(where, layout.schema), layout))

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Merge notes; None removes a key."""
        self._require("annotate")
        with self._database.writing():
            self._store.describe_as(self._stored("annotate").annotated(notes))

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes as Milvus holds them."""
        stored = self._find("describe")
        self._open(stored, "describe")
        return stored.info(self._by_name.place, self._known_engine().name, self._store.records)

    def collections(self) -> list[str]:
        """The names of the collections in this database, or beside it where each has its own."""
        return self._by_name.names("collections")

    def beside(self, collection: str) -> MilvusConnector:
        """Another collection in the same database, or beside it where each has its own."""
        return MilvusConnector(
            collection=collection,
            database=self._by_name.database.again().of(collection),
            consistency=self._by_name.consistency,
            options=self._options,
        )

    def switch(self, collection: str) -> None:
        """Set the alias (server), or note it in the collection of this name."""
        own = self._by_name

        def annotate(notes: Mapping[str, Any]) -> None:
            with own.database.writing():
                own.describe_as(own.stored("switch").annotated(notes))

        set_alias = own.set_alias if self.capabilities.aliases else None
        own.place.switch(collection, own.names("switch"), annotate=annotate, set_alias=set_alias)
        self._may_be_alias = True

    def size(self) -> int | None:
        """Bytes of Milvus Lite's folder, where it holds this collection alone; a server does not tell."""
        self._require("size")
        return self._store.size("size")

    def drop(self) -> None:
        """Remove the collection; the folder of Milvus Lite goes, too, where it is this one's own."""
        own = self._by_name
        with suppress(CollectionOutdated):  # whose name stands for no other
            self._find("drop").require_tenants(self._options.tenant_field, own.place, "drop")
            own.place.require_own(self._store.records)
        with own.database.writing():
            own.drop()
        self._layout, self._may_be_alias = None, True

    def close(self) -> None:
        """Close the connection, and Milvus Lite with its lock."""
        for store in (self._store, self._by_name):
            store.database.close()

    __repr__ = connector_repr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------ parts

    @property
    def _database(self) -> Database:
        return self._store.database

    def _known_engine(self, operation: str = "connect") -> Engine:
        if self._engine is None:
            self._engine = self._database.engine(operation)
        return self._engine

    def _planned(self, schema: CollectionSchema) -> Layout:
        """How the collection is stored if it is made now."""
        engine, options = self._known_engine(), self._options
        return Layout(
            schema,
            "text" if engine.lite else "array",
            options.dense_index or ("FLAT" if engine.lite else "HNSW"),
            options.dense_dtype,
            schema.tenant_field or options.partition_key,
            # The engine's own form is float32: where values are to be small it is not made unasked.
            engine.struct_arrays and schema.multivector_dtype in ("float16", "float32")
            if options.struct_array is None
            else options.struct_array,
        )

    def _require(self, operation: str) -> Layout:
        """How the collection is stored; opens it when first used."""
        return self._layout or self._open(self._find(operation), operation)

    def _anew(self, operation: str) -> Layout:
        """How it is stored now: who made the collection anew meanwhile may keep tenants apart in it."""
        return self._open(self._stored(operation), operation)

    def _open(self, stored: Stored, operation: str) -> Layout:
        """Make the collection readable that the name was found to stand for; again, where it was made anew."""
        layout = Layout.of(stored)
        if self._layout != layout:
            stored.require_tenants(self._options.tenant_field, self._store.place, operation)
            stored.require(stored.schema, self._store.place, self._wanted())
            self._store.load(operation)
            self._layout = layout
        return layout

    def _stored(self, operation: str) -> Stored:
        """What the collection says of itself now; which one that is is looked up once."""
        if self._layout is None:
            return self._find(operation)
        stored = self._store.restated(operation)
        if stored is None and not _is_there(self._store, operation):
            raise self._store.place.not_found(operation, self.collections)
        return self._store.stored(operation) if stored is None else stored

    def _find(self, operation: str) -> Stored:
        """Look up which collection the name stands for, and what that says of itself."""
        name = self._by_name.alias(operation) if self._may_be_alias else None
        if name is None:
            self._may_be_alias = True
            is_open = self._layout is not None and self._store is self._by_name
            stored = self._by_name.restated(operation) if is_open else None
            if stored is None:
                if not _is_there(self._by_name, operation):
                    self._turn_to(self._by_name)
                    raise self._by_name.place.not_found(operation, self.collections)
                stored = self._by_name.stored(operation)
            self._may_be_alias = False  # while there is a collection of this name
            name = stored.stands_for or self.collection
            if name == self.collection:
                self._turn_to(self._by_name)
                return stored
        if name != self._store.records:
            database = self._by_name.database.of(name)
            self._turn_to(replace(self._by_name, database=database, records=name))
        if not _is_there(self._store, operation):
            raise self._by_name.place.gone(name, operation)
        return self._store.stored(operation)

    def _turn_to(self, store: Store) -> None:
        """Ask this collection from now on."""
        if store is not self._store:
            if self._store.database is not self._by_name.database:
                self._store.database.close()
            self._store, self._layout = store, None

    def _wanted(self) -> dict[str, str]:
        """What is wanted of the layout of a collection that exists."""
        key = self._options.partition_key
        # A tenant field of that name says the same, and is what users name.
        return {} if key in (None, self._options.tenant_field) else {"partition_key": key}

    def _read(
        self, operation: str, keys: Sequence[str], layout: Layout, legs: Sequence[Leg]
    ) -> RecordBatch:
        fields, texts = _fields(legs)

        def once() -> RecordBatch:
            by_key = {row["id"]: row for row in self._store.rows(operation, unique, fields)}
            rows = [by_key[key] for key in keys if key in by_key]
            parts = self._store.texts(operation, list(by_key.values()), texts)
            return record_batch(rows, parts, layout, legs)

        unique = list(dict.fromkeys(keys))
        return self._database.retried(once)


def _is_there(store: Store, operation: str) -> bool:
    """Whether the collection exists; asking does not make its folder."""
    return store.database.present and store.exists(operation)


def _fields(legs: Sequence[Leg]) -> tuple[list[str], list[str]]:
    """The fields to read for these legs, and which of them may be kept in parts."""
    searched = [leg for leg in legs if leg != "multivector"]
    if "multivector" not in legs:
        return [*SCALARS, *searched], ["payload"]
    return [*SCALARS, "tokens", "token_parts", *searched], ["payload", "tokens"]
