"""Records in one Parquet file: the only layout that m3connect writes and the only one it reads.

``encode`` writes it, ``copy`` writes and reads it, ``ingest`` reads it. Columns: ``id`` string,
``text`` string (null where a record has none), ``payload`` (all other fields, as a JSON object), and
those of ``Embeddings.to_arrow``. The file's metadata holds layout, schema with fingerprint, and notes:

    id      text        payload                                dense     ...
    a.md#0  One two.    {"lang": "en", "document_id": ...}     [0.1, ..]

A file is written once and then only read. As a collection it searches nothing, so the planner scores
every record on the client: exact, and slow on large files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from m3connect import disk
from m3connect.connecting.checks import check_ids, check_records
from m3connect.connecting.collection import Place, Stored
from m3connect.connecting.naming import connector_repr
from m3connect.connecting.reading import selected_legs
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
)
from m3connect.errors import (
    CollectionNotFound,
    ConfigError,
    InputError,
    PermanentError,
    Unsupported,
)
from m3connect.filters import AnyFilter, as_filter
from m3connect.types import (
    Embeddings,
    Hit,
    Leg,
    MultiVectors,
    Payload,
    Query,
    RecordBatch,
    SparseVectors,
)
from m3connect.types.tokens import array_dtype

LAYOUT = 2
"""Raised when the columns or the metadata change their meaning."""
_METADATA = b"m3connect"  # layout and schema, which a table read from the file has, too
_COPY = b"m3connect.copy"  # schema, notes and digest as they are when the file is finished
WITHOUT_VECTORS = ["id", "text", "payload", "n_tokens", "truncated"]
_NO_ROOM = "Make room or choose another path, and write it again."
_COLUMNS: dict[Leg, tuple[str, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse_indices", "sparse_values"),
    "multivector": ("multivector",),
}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file of records says of itself.

    Args:
        schema: of the records, with the fingerprint.
        notes: of the collection that they are a copy of.
        digest: a hash of all ids and payloads: which file it is; None for a table read from it.
    """

    schema: CollectionSchema
    notes: Mapping[str, Any]
    digest: str | None


def contents(metadata: Mapping[bytes, bytes] | None, name: str) -> Contents | None:
    """What a file or table says of its records; None if m3connect did not write it.

    Args:
        metadata: of the file, or of a table's schema, which lacks notes and digest.
        name: of the file, for messages.

    Raises:
        InputError: it is of an older layout, or damaged.
    """
    stored = (metadata or {}).get(_METADATA)
    if stored is None:
        return None
    try:
        content = json.loads(stored)
        layout = content.get("layout", 1)
        if layout == LAYOUT:
            copy = json.loads((metadata or {}).get(_COPY, b"{}"))
            schema = CollectionSchema.from_json(copy.get("schema", content["schema"]))
            return Contents(schema, copy.get("notes", {}), copy.get("digest"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name}: its metadata of m3connect is damaged: {error!r}") from error
    raise InputError(
        f"{name} was written in layout {layout}, this version reads {LAYOUT}; write it again with "
        "'m3connect copy' or 'm3connect encode'"
    )


class RecordWriter:
    """Writes one file, which has its name only when it is complete.

    Args:
        path: of the file; what has this name stays until :meth:`finish`.
        schema: of the records.

    Raises:
        ConfigError: the path is a folder.
    """

    def __init__(self, path: Path, schema: CollectionSchema) -> None:
        disk.require_file_name(path)
        self.path = path
        self.stored = Stored(schema)
        self.count = 0
        self._hash = sha256()
        self._partial: Path | None = None
        self._file: pq.ParquetWriter | None = None

    def write(self, batch: RecordBatch) -> None:
        """Append records, as one row group.

        Raises:
            M3ConnectError: there is no room for them.
        """
        table = records_to_arrow(batch, self.stored.schema)
        with disk.writing(self.path, _NO_ROOM):
            if self._file is None:
                self._partial = disk.own(self.path)
                self._file = pq.ParquetWriter(
                    self._partial, table.schema, compression="zstd", write_page_checksum=True
                )
            self._file.write_table(table)
        for column in ("id", "text", "payload"):
            self._hash.update(json.dumps(table[column].to_pylist()).encode())
        self.count += len(batch)

    def finish(self) -> None:
        """Write the metadata and give the file its name.

        Raises:
            M3ConnectError: there is no room for it.
        """
        if self._file is None:
            self.write(no_records(self.stored.schema))
        assert self._file is not None
        assert self._partial is not None
        copy = {
            "schema": self.stored.schema.to_json(),
            "notes": dict(self.stored.notes),
            "digest": self._hash.hexdigest()[:32],
        }
        with disk.writing(self.path, _NO_ROOM):
            self._file.add_key_value_metadata({_COPY.decode(): json.dumps(copy)})
            self._file.close()
            disk.take_place(self._partial, self.path)

    def discard(self) -> None:
        """Half a file must not look like a whole one."""
        if self._file is not None:
            with suppress(OSError):  # its end finds no room either
                self._file.close()
        if self._partial is not None:
            disk.remove(self._partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()


def no_records(schema: CollectionSchema) -> RecordBatch:
    """A batch of none, with the representations of a schema."""
    multi = None
    if schema.multivector_width is not None:
        width, dtype = schema.multivector_width, array_dtype(schema.multivector_dtype)
        multi = MultiVectors.from_rows([], width=width, dtype=dtype)
    return RecordBatch(
        [],
        [],
        Embeddings(
            None if schema.dense_width is None else np.empty((0, schema.dense_width), np.float32),
            SparseVectors.from_rows([]) if schema.sparse else None,
            multi,
            np.empty(0, np.int32),
            np.empty(0, np.bool_),
        ),
    )


class ParquetConnector:
    """See :class:`m3connect.contract.Connector`; ``delete`` and native ``search`` are unsupported.

    Records are written beside ``path``, and have its name on :meth:`flush`.

    Args:
        collection: a name, for messages.
        path: of the file.
    """

    name = "parquet"
    capabilities = Capabilities("parquet", embedded=True, legs=frozenset(), exact=True)

    def __init__(self, *, collection: str, path: str) -> None:
        if not path.endswith(".parquet"):
            raise ConfigError(f"parquet: path must end in .parquet, got {path!r}")
        self.collection = collection
        self.path = Path(path)
        self._place = Place(self.name, path)
        self._writer: RecordWriter | None = None
        self._written: set[str] = set()

    # ------------------------------------------------------------------------------------ writing

    def ensure(self, schema: CollectionSchema) -> None:
        """Start a file, or verify the existing one."""
        if not self.path.exists():
            self._writer = self._writer or RecordWriter(self.path, schema)
            self._writer.stored.require(schema, self._place)
            self._writer.stored = self._writer.stored.merged(schema)
            return
        self._finished("ensure").require(schema, self._place)

    def upsert(self, batch: RecordBatch) -> None:
        """Append records to the file in progress.

        Raises:
            Unsupported: the file is finished, or an id was written before.
        """
        if self._writer is None:
            if self.path.exists():
                self._refuse("upsert", f"{self.path} is finished; choose another file")
            self._missing("upsert")
        check_records(batch, self._writer.stored.schema, self.capabilities.limits)
        if len(set(batch.ids)) < len(batch) or not self._written.isdisjoint(batch.ids):
            self._refuse("upsert", "an id is already in the file, which is written only once")
        self._writer.write(batch)
        self._written.update(batch.ids)

    def flush(self) -> None:
        """Finish the file and move it to its name."""
        if self._writer is not None:
            self._writer.finish()
            self._writer = None

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Notes of the file in progress; None removes a key."""
        if self._writer is None:
            self._refuse("annotate", "the file is finished")
        self._writer.stored = self._writer.stored.annotated(notes)

    def delete(self, where: Sequence[str] | AnyFilter) -> int:
        """Unsupported: a Parquet file is written once."""
        del where
        self._refuse("delete", "a Parquet file is written once")

    def collections(self) -> list[str]:
        """This one, once its file is finished: a file holds one."""
        return [self.collection] if self.path.exists() else []

    def size(self) -> int:
        """Bytes of the file."""
        self._open("size")
        return self.path.stat().st_size

    def drop(self) -> None:
        """Remove the file, finished or in progress."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
            self._written.clear()
            return
        if _METADATA not in (self._open("drop").metadata.metadata or {}):
            raise self._place.foreign("drop")
        disk.remove(self.path)

    def beside(self, collection: str) -> NoReturn:
        """Unsupported: a file holds one collection."""
        self._refuse("beside", f"a file holds one collection; {collection!r} takes another path")

    def switch(self, collection: str) -> None:
        """Unsupported: a file holds one collection."""
        self._refuse("switch", f"a file holds one collection, and never {collection!r}")

    def close(self) -> None:
        """Finish the file; see :meth:`flush`."""
        self.flush()

    __repr__ = connector_repr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *rest: object) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.discard()

    # ------------------------------------------------------------------------------------ reading

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes."""
        stored = self._writer.stored if self._writer is not None else self._finished("describe")
        return stored.info(self._place, "parquet")

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids; reads the whole file once."""
        check_ids(ids)
        named = pa.array(list(ids), pa.string())
        by_id: dict[str, RecordBatch] = {}
        empty = self._open("fetch").schema_arrow.empty_table()
        columns = self._columns(vectors)
        none = records_from_arrow(empty.select(columns))
        for table in self._tables(256, columns):
            for batch in records_from_arrow(table.filter(pc.is_in(table["id"], named))):
                by_id[batch.ids[0]] = batch
        rows = [by_id[id_] for id_ in ids if id_ in by_id]
        return RecordBatch.concat([none, *rows])

    def scan(
        self,
        where: AnyFilter | None = None,
        *,
        vectors: LegSelection = False,
        batch_size: int = 256,
    ) -> Iterator[RecordBatch]:
        """All matching records."""
        condition = as_filter(where)
        for table in self._tables(batch_size, self._columns(vectors)):
            if batch := records_from_arrow(table).matching(condition):
                yield batch

    def count(self, where: AnyFilter | None = None) -> int:
        """How many records match."""
        if self._writer is not None:
            return self._writer.count
        if where is None:
            return int(self._open("count").metadata.num_rows)
        return sum(len(batch) for batch in self.scan(where))

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Unsupported: the planner scores every record instead."""
        del queries
        self._refuse("search", "a file searches nothing; planner.run scores it on the client")

    def _columns(self, vectors: LegSelection) -> list[str]:
        """What holds the records with these legs."""
        legs = selected_legs(vectors, self.describe().schema)
        return [*WITHOUT_VECTORS, *(name for leg in legs for name in _COLUMNS[leg])]

    def _tables(self, batch_size: int, columns: list[str]) -> Iterator[pa.Table]:
        file = self._open("scan")
        with self._undamaged("scan"):
            for batch in file.iter_batches(batch_size, columns=columns):
                yield pa.table(batch)

    def _finished(self, operation: str) -> Stored:
        """What a finished file says of itself."""
        content = contents(self._open(operation).metadata.metadata, str(self.path))
        if content is None:
            raise self._place.foreign(operation)
        return Stored(content.schema, content.notes)

    def _open(self, operation: str) -> pq.ParquetFile:
        if self._writer is not None:
            self._refuse(
                operation,
                "a Parquet file is read once it is finished, so documents cannot be ingested into it; "
                "'m3connect encode' writes them to one",
            )
        if not self.path.exists():
            self._missing(operation)
        with self._undamaged(operation):
            return pq.ParquetFile(self.path, page_checksum_verification=True)

    @contextmanager
    def _undamaged(self, operation: str) -> Iterator[None]:
        """What is no Parquet, or was changed since it was written, is told by its checksums."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise PermanentError(
                f"{self.path} cannot be read, write it again: {' '.join(str(error).split())}",
                connector=self.name,
                operation=operation,
            ) from error

    def _missing(self, operation: str) -> NoReturn:
        raise CollectionNotFound(f"no file {self.path}", connector="parquet", operation=operation)

    def _refuse(self, operation: str, why: str) -> NoReturn:
        raise Unsupported(why, connector="parquet", operation=operation)


def records_to_arrow(batch: RecordBatch, schema: CollectionSchema) -> pa.Table:
    """Records as a table of the layout above, with layout and schema in its metadata."""
    embeddings = batch.embeddings
    table = embeddings.to_arrow()
    if embeddings.multivector is not None:
        column = table.schema.get_field_index("multivector")
        width = embeddings.multivector.width
        half = pa.float16() if schema.multivector_dtype == "float16" else pa.float32()
        stored = pa.list_(pa.list_(half, width))
        table = table.set_column(column, "multivector", table["multivector"].cast(stored))
    texts, others = zip(*map(_split, batch.payloads), strict=True) if len(batch) else ((), ())
    columns = {"payload": others, "text": texts, "id": list(batch.ids)}
    for name, values in columns.items():
        table = table.add_column(0, name, pa.array(values, pa.string()))
    content = {"layout": LAYOUT, "schema": schema.to_json()}
    return table.replace_schema_metadata({_METADATA: json.dumps(content)})


def _split(payload: Payload) -> tuple[str | None, str]:
    """The text, if it is one, and all other fields as JSON."""
    text = payload.get("text")
    others = payload
    if isinstance(text, str):
        others = {name: value for name, value in payload.items() if name != "text"}
    return text if isinstance(text, str) else None, json.dumps(others, ensure_ascii=False)


def payloads_from_arrow(table: pa.Table | pa.RecordBatch) -> list[Payload]:
    """The payloads in a table of :func:`records_to_arrow`."""
    columns = zip(table.column("text").to_pylist(), _strings(table, "payload"), strict=True)
    return [({} if text is None else {"text": text}) | json.loads(rest) for text, rest in columns]


def records_from_arrow(table: pa.Table) -> RecordBatch:
    """Records from a table of :func:`records_to_arrow`."""
    return RecordBatch(
        _strings(table, "id"), payloads_from_arrow(table), Embeddings.from_arrow(table)
    )


def _strings(table: pa.Table | pa.RecordBatch, name: str) -> list[str]:
    """A column that has a string in every row."""
    values = table.column(name).to_pylist()
    strings = [value for value in values if value is not None]
    if len(strings) < len(values):
        raise InputError(f"column {name!r} holds nulls")
    return strings
