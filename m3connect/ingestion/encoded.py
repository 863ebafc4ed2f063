"""Records that come with their vectors, as Arrow: nothing is cut and nothing is encoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from m3connect.contract import RESERVED_PREFIX, CollectionSchema, FieldKind, Fingerprint
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion.ledger import FIELD, Candidate, content_hash
from m3connect.ingestion.report import Failure
from m3connect.ingestion.sources import SourceFile, seekable
from m3connect.ingestion.values import json_value
from m3connect.stores.parquet import FINGERPRINT_KEY
from m3connect.types import LEGS, Embeddings, Leg, Payload, RecordBatch

ROWS = 256  # read at a time
_LEG_COLUMNS: Mapping[Leg, str] = {
    "dense": "dense",
    "sparse": "sparse_indices",
    "multivector": "multivector",
}
_NO_METADATA = {"id", *_LEG_COLUMNS.values(), "sparse_values", "n_tokens", "truncated"}


@dataclass(frozen=True, slots=True)
class EncodedSource:
    """Embeddings to ingest. Each row is a document of one passage, under its own id.

    Args:
        columns: of all batches: those of :meth:`Embeddings.to_arrow`, ``id``, and as a rule
            ``text``; all others are payload, ``document_id`` and ``position`` included.
        batches: the rows.
        fingerprint: the model that made the vectors, None if nobody knows.
    """

    columns: pa.Schema
    batches: Iterable[pa.RecordBatch]
    fingerprint: Fingerprint | None

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that are there."""
        return tuple(leg for leg in LEGS if _LEG_COLUMNS[leg] in self.columns.names)

    def schema(
        self, legs: Sequence[Leg], index_fields: Mapping[str, FieldKind]
    ) -> CollectionSchema:
        """A collection for these records."""
        widths = {
            leg: _width(self.columns.field(_LEG_COLUMNS[leg]).type)
            for leg in legs
            if leg != "sparse"
        }
        return CollectionSchema(
            widths.get("dense"),
            "sparse" in legs,
            widths.get("multivector"),
            payload_fields=index_fields,
            fingerprint=replace(self.fingerprint, legs=tuple(legs)) if self.fingerprint else None,
        )

    def owner(self, record_id: str, payload: Payload) -> str | None:
        """The record itself; None if ingestion did not write it."""
        return record_id if FIELD in payload else None

    def candidates(self, legs: Sequence[Leg]) -> Iterator[Candidate[RecordBatch] | Failure]:
        """Sound rows as records with some of their representations; all others are failures."""
        number = 0
        for batch in self.batches:
            for start in range(0, len(batch), ROWS):
                rows = batch.slice(start, ROWS)
                yield from _candidates(rows, legs, number)
                number += len(rows)


def from_arrow(
    columns: pa.Schema, batches: Iterable[pa.RecordBatch], made_by: Fingerprint | None
) -> EncodedSource:
    """Embeddings as a stream of Arrow batches.

    Args:
        columns: the schema of all batches.
        batches: the rows.
        made_by: the model to assume where the schema's metadata names none.

    Raises:
        InputError: a column is missing or has a reserved name.
    """
    if not _is_encoded(columns) or "id" not in columns.names:
        raise InputError(
            "these Arrow columns are no embeddings: they need id, n_tokens, truncated and one of "
            f"dense, sparse_indices, multivector; there are {', '.join(columns.names)}"
        )
    for name in columns.names:
        if name == FIELD or name.startswith(RESERVED_PREFIX):
            raise InputError(f"column {name!r} has a reserved name; rename it")
    stored = (columns.metadata or {}).get(FINGERPRINT_KEY)
    if stored:
        made_by = Fingerprint.from_json(json.loads(stored))
    return EncodedSource(columns, batches, made_by)


def are_encoded(files: Sequence[SourceFile]) -> bool:
    """Whether files hold embeddings, as ``m3connect encode`` writes them.

    Raises:
        ConfigError: some do and others do not, or their columns or models differ.
        InputError: a Parquet file cannot be read.
    """
    if not files or any(file.suffix != ".parquet" for file in files):
        return False
    schemas = [_parquet_schema(file) for file in files]
    if not any(_is_encoded(schema) for schema in schemas):
        return False
    for file, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0], check_metadata=True):
            raise ConfigError(
                f"{file.name} and {files[0].name} differ in their columns or their model; "
                "ingest them one by one"
            )
    return True


def from_files(files: Sequence[SourceFile], made_by: Fingerprint | None) -> EncodedSource:
    """Embeddings in Parquet files; see :func:`are_encoded` and :func:`from_arrow`."""
    return from_arrow(_parquet_schema(files[0]), _parquet_batches(files), made_by)


def _candidates(
    rows: pa.RecordBatch, legs: Sequence[Leg], number: int
) -> Iterator[Candidate[RecordBatch] | Failure]:
    """Rows of which ``number`` came before."""
    embeddings = _only(Embeddings.from_arrow(rows), legs)
    names = [name for name in rows.schema.names if name not in _NO_METADATA]
    payloads = rows.select(names).to_pylist()
    for row, (id_, payload) in enumerate(zip(rows["id"].to_pylist(), payloads, strict=True)):
        if not isinstance(id_, str) or not id_:
            yield Failure(f"{id_!r} is no id", where=f"record {number + row + 1}", id=id_)
            continue
        full = {"document_id": id_, "position": 0} | json_value(payload)
        record = RecordBatch([id_], [full], embeddings[row])
        try:
            hash_ = content_hash(full, _digest(record.embeddings))
        except (TypeError, ValueError) as error:
            yield Failure(f"a payload that JSON cannot hold: {error}", id=id_)
        else:
            yield Candidate(id_, hash_, (id_, None), record.embeddings.nbytes, record)


def _digest(embeddings: Embeddings) -> str:
    """A hash of one record's vectors."""
    hash_ = sha256()
    if embeddings.dense is not None:
        hash_.update(embeddings.dense.tobytes())
    if embeddings.sparse is not None:
        hash_.update(embeddings.sparse.indices.tobytes() + embeddings.sparse.values.tobytes())
    if embeddings.multivector is not None:
        hash_.update(embeddings.multivector.vectors.tobytes())
    return hash_.hexdigest()


def _only(embeddings: Embeddings, legs: Sequence[Leg]) -> Embeddings:
    others: dict[str, Any] = {leg: None for leg in LEGS if leg not in legs}
    return replace(embeddings, **others)


def _is_encoded(columns: pa.Schema) -> bool:
    names = set(columns.names)
    return {"n_tokens", "truncated"} <= names and bool(names & set(_LEG_COLUMNS.values()))


def _parquet_schema(file: SourceFile) -> pa.Schema:
    try:
        with file.open() as opened, seekable(file, opened) as stream:
            return pq.ParquetFile(stream).schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file.name} is no Parquet file that can be read: {error}") from error


def _parquet_batches(files: Sequence[SourceFile]) -> Iterator[pa.RecordBatch]:
    for file in files:
        with file.open() as opened, seekable(file, opened) as stream:
            yield from pq.ParquetFile(stream).iter_batches(batch_size=ROWS)


def _width(column: pa.DataType) -> int:
    """Of a fixed-size list, or of the fixed-size lists in a list."""
    vectors = column if pa.types.is_fixed_size_list(column) else column.value_type
    return int(vectors.list_size)
