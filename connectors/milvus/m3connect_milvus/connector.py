"""The connector: the contract of m3connect on top of Milvus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from m3connect.connecting import retry
from m3connect.connecting.checks import check_ids, check_query, check_records, ids_or_filter
from m3connect.connecting.naming import connector_repr
from m3connect.connecting.reading import selected_legs
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
    Limits,
)
from m3connect.errors import TransientError
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

LIMITS = Limits(id_bytes=TEXT_BYTES, results=RESULTS)


@dataclass(frozen=True, slots=True)
class Options:
    """How a collection is to be made.

    Args:
        dense_index: ``FLAT``, ``HNSW`` or ``AUTOINDEX``; None for FLAT in Milvus Lite and HNSW on
            a server.
        dense_dtype: ``float32`` or ``float16``.
        partition_key: the payload field by which records are partitioned.
        struct_array: whether multi-vectors are searched by the engine; None where it can.
    """

    dense_index: str | None = None
    dense_dtype: str = "float32"
    partition_key: str | None = None
    struct_array: bool | None = None


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
        self.collection = collection
        self._database = database
        self._store = Store(database, collection, parts_name(collection), consistency)
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
            limits=LIMITS,
        )

    def ensure(self, schema: CollectionSchema) -> None:
        """Create the collection, or verify that it fits; adds missing payload fields and indexes.

        Raises:
            SchemaMismatch: it differs; says in what.
            Unsupported: this Milvus cannot hold it; says which can.
        """
        engine = self._known_engine("ensure")
        with self._database.writing():
            known = self._store.stored("ensure") if self._store.exists("ensure") else None
            if known is None:
                layout = self._planned(schema)
                check_engine(layout, engine)
                stored = layout.stored()
            else:
                known.require(schema, self._store.place, self._wanted())
                stored = known.merged(schema)
            self._store.create(stored, engine, described=stored == known)
        self._layout = Layout.of(stored)

    def upsert(self, batch: RecordBatch) -> None:
        """Write records; the last of equal ids wins."""
        layout = self._require("upsert")
        check_records(batch, layout.schema, LIMITS)
        check_rows(batch, layout)
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

    def flush(self) -> None:
        """Seal, index and load what was written, so that it is found fast."""
        self._require("flush")
        with self._database.writing():
            self._store.flush()

    def delete(self, where: Sequence[str] | AnyFilter) -> int:
        """Delete by ids or by filter."""
        layout = self._require("delete")
        chosen = ids_or_filter(where)
        if isinstance(chosen, Filter):
            pages = self._store.pages("delete", expression(chosen, layout), [], RESULTS)
            keys = [row["id"] for page in pages for row in page]
        else:
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
        for page in self._store.pages("scan", expression(where, layout), fields, size):
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
        for query in queries:
            check_query(query, layout.schema)
        searcher = Searcher(self._store, layout, self.capabilities.fusions)
        return self._database.retried(lambda: searcher.answer(queries))

    def count(self, where: AnyFilter | None = None) -> int:
        """How many records match."""
        return self._store.count(expression(where, self._require("count")))

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Merge notes; None removes a key."""
        self._require("annotate")
        with self._database.writing():
            self._store.describe_as(self._store.stored("annotate").annotated(notes))

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes as Milvus holds them."""
        self._require("describe")
        stored = self._store.stored("describe")
        return stored.info(self._store.place, self._known_engine().name)

    def collections(self) -> list[str]:
        """The names of the collections in this database, or beside it where each has its own."""
        return self._store.names("collections")

    def size(self) -> int | None:
        """Bytes of Milvus Lite's folder, where it holds this collection alone; a server does not tell."""
        self._require("size")
        return self._store.size("size")

    def drop(self) -> None:
        """Remove the collection; the folder of Milvus Lite goes, too, where it is this one's own."""
        self._check_exists("drop")
        with self._database.writing():
            self._store.drop()
        self._layout = None

    def close(self) -> None:
        """Close the connection, and Milvus Lite with its lock."""
        self._database.close()

    __repr__ = connector_repr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------ parts

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
            options.partition_key,
            engine.struct_arrays if options.struct_array is None else options.struct_array,
        )

    def _require(self, operation: str) -> Layout:
        """How the collection is stored; opens it when first used."""
        if self._layout is None:
            self._check_exists(operation)
            stored = self._store.stored(operation)
            stored.require(stored.schema, self._store.place, self._wanted())
            self._store.load(operation)
            self._layout = Layout.of(stored)
        return self._layout

    def _check_exists(self, operation: str) -> None:
        if not (self._database.present and self._store.exists(operation)):
            raise self._store.place.not_found(operation, self.collections)

    def _wanted(self) -> dict[str, str]:
        """What is wanted of the layout of a collection that exists."""
        key = self._options.partition_key
        return {} if key is None else {"partition_key": key}

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


def _fields(legs: Sequence[Leg]) -> tuple[list[str], list[str]]:
    """The fields to read for these legs, and which of them may be kept in parts."""
    searched = [leg for leg in legs if leg != "multivector"]
    if "multivector" not in legs:
        return [*SCALARS, *searched], ["payload"]
    return [*SCALARS, "tokens", "token_parts", *searched], ["payload", "tokens"]
