"""A collection in one Parquet file: source and target of copies, readable by any Arrow tool.

Columns: ``id`` string, ``payload`` JSON string, and those of ``Embeddings.to_arrow``. The file's
metadata holds schema, fingerprint and notes. It is written once and then only read; the engine
searches nothing, so the planner scores every record on the client: exact, and slow on large files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from m3connect.connecting.checks import check_ids, check_records
from m3connect.connecting.collection import Place, Stored
from m3connect.connecting.reading import selected_legs
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
)
from m3connect.errors import CollectionNotFound, ConfigError, Unsupported
from m3connect.filters import Filter, matches
from m3connect.types import Embeddings, Hit, Leg, Query, RecordBatch

_METADATA = b"m3connect"
FINGERPRINT_KEY = b"m3connect.fingerprint"
"""Schema metadata of embeddings on disk: their model's ``Fingerprint.to_json`` as JSON."""
_WITHOUT_VECTORS = ["id", "payload", "n_tokens", "truncated"]
_COLUMNS: dict[Leg, tuple[str, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse_indices", "sparse_values"),
    "multivector": ("multivector",),
}


class ParquetConnector:
    """See :class:`m3connect.contract.Connector`; ``delete`` and native ``search`` are unsupported.

    Records are written to ``<path>.partial``, which becomes ``path`` on :meth:`flush`.

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
        self._partial = Path(f"{path}.partial")
        self._writer: pq.ParquetWriter | None = None
        self._place = Place(self.name, path)
        self._stored: Stored | None = None
        self._written: set[str] = set()

    # ------------------------------------------------------------------------------------ writing

    def ensure(self, schema: CollectionSchema) -> None:
        """Start a file, or verify the existing one."""
        if not self.path.exists():
            stored = self._stored or Stored(schema)
            stored.require(schema, self._place)
            self._stored = stored.merged(schema)
            return
        self._finished("ensure").require(schema, self._place)

    def upsert(self, batch: RecordBatch) -> None:
        """Append records to the file in progress.

        Raises:
            Unsupported: the file is finished, or an id was written before.
        """
        if self._stored is None:
            if self.path.exists():
                self._refuse("upsert", f"{self.path} is finished; choose another file")
            self._missing("upsert")
        schema = self._stored.schema
        check_records(batch, schema, self.capabilities.limits)
        if len(set(batch.ids)) < len(batch) or not self._written.isdisjoint(batch.ids):
            self._refuse("upsert", "an id is already in the file, which is written only once")
        table = records_to_arrow(batch, schema)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._written.update(batch.ids)

    def flush(self) -> None:
        """Finish the file and move it to its name."""
        if self._writer is None or self._stored is None:
            return
        self._writer.add_key_value_metadata({_METADATA: self._stored.to_text().encode()})
        self._writer.close()
        self._partial.replace(self.path)
        self._writer = self._stored = None

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Notes of the file in progress; None removes a key."""
        if self._stored is None:
            self._refuse("annotate", "the file is finished")
        self._stored = self._stored.annotated(notes)

    def delete(self, where: Sequence[str] | Filter) -> int:
        """Unsupported: a Parquet file is written once."""
        del where
        self._refuse("delete", "a Parquet file is written once")

    def close(self) -> None:
        """Finish the file; see :meth:`flush`."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:  # half a file must not look like a whole one
            self._writer.close()
            self._partial.unlink()

    # ------------------------------------------------------------------------------------ reading

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes."""
        stored = self._stored or self._finished("describe")
        return stored.info(self._place, "parquet")

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids; reads the whole file once."""
        check_ids(ids)
        wanted = pa.array(list(ids), pa.string())
        found: dict[str, RecordBatch] = {}
        empty = self._open("fetch").schema_arrow.empty_table()
        columns = self._columns(vectors)
        none = records_from_arrow(empty.select(columns))
        for table in self._tables(256, columns):
            for batch in records_from_arrow(table.filter(pc.is_in(table["id"], wanted))):
                found[batch.ids[0]] = batch
        rows = [found[id_] for id_ in ids if id_ in found]
        return RecordBatch.concat([none, *rows])

    def scan(
        self, where: Filter | None = None, *, vectors: LegSelection = False, batch_size: int = 256
    ) -> Iterator[RecordBatch]:
        """All matching records."""
        for table in self._tables(batch_size, self._columns(vectors)):
            batch = records_from_arrow(table)
            if where is not None:
                rows = [row for row, found in enumerate(batch.payloads) if matches(where, found)]
                batch = batch.take(np.array(rows, np.intp))
            if len(batch):
                yield batch

    def count(self, where: Filter | None = None) -> int:
        """How many records match."""
        if self._stored is not None:
            return len(self._written)
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
        return [*_WITHOUT_VECTORS, *(name for leg in legs for name in _COLUMNS[leg])]

    def _tables(self, batch_size: int, columns: list[str]) -> Iterator[pa.Table]:
        for batch in self._open("scan").iter_batches(batch_size, columns=columns):
            yield pa.table(batch)

    def _finished(self, operation: str) -> Stored:
        """What the finished file says of itself."""
        metadata = self._open(operation).metadata.metadata or {}
        if _METADATA not in metadata:
            self._refuse(operation, f"{self.path} was not written by m3connect copy")
        return Stored.from_text(metadata[_METADATA].decode(), self._place, operation)

    def _open(self, operation: str) -> pq.ParquetFile:
        if not self.path.exists():
            self._missing(operation)
        return pq.ParquetFile(self.path)

    def _missing(self, operation: str) -> NoReturn:
        raise CollectionNotFound(f"no file {self.path}", connector="parquet", operation=operation)

    def _refuse(self, operation: str, why: str) -> NoReturn:
        raise Unsupported(why, connector="parquet", operation=operation)


def records_to_arrow(batch: RecordBatch, schema: CollectionSchema) -> pa.Table:
    """Records as a table: id, payload as JSON, and the embeddings' columns."""
    embeddings = batch.embeddings
    table = embeddings.to_arrow()
    if embeddings.multivector is not None:
        at = table.schema.get_field_index("multivector")
        width = embeddings.multivector.width
        half = pa.float16() if schema.multivector_dtype == "float16" else pa.float32()
        stored = pa.list_(pa.list_(half, width))
        table = table.set_column(at, "multivector", table["multivector"].cast(stored))
    payloads = [json.dumps(payload, ensure_ascii=False) for payload in batch.payloads]
    table = table.add_column(0, "payload", pa.array(payloads, pa.string()))
    return table.add_column(0, "id", pa.array(list(batch.ids), pa.string()))


def records_from_arrow(table: pa.Table) -> RecordBatch:
    """Records from a table of :func:`records_to_arrow`."""
    payloads = [json.loads(payload) for payload in table["payload"].to_pylist()]
    return RecordBatch(table["id"].to_pylist(), payloads, Embeddings.from_arrow(table))
