"""Records that come with their vectors, from Parquet or Arrow: nothing is cut and nothing is encoded.

Two forms are taken. What m3connect writes has the layout of ``stores/parquet.py``, and is told by its
metadata. A table of anybody else's has the columns of ``Embeddings.to_arrow`` (portable or not),
``id``, and any others, which are payload.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from m3connect.contract import RESERVED_PREFIX, CollectionSchema, FieldKind
from m3connect.conversion.converter import explain
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion import values
from m3connect.ingestion.formats import python_rows
from m3connect.ingestion.ledger import FIELD, Candidate, content_hash
from m3connect.ingestion.ownership import UNNAMED, around
from m3connect.ingestion.report import Failure
from m3connect.ingestion.row_groups import Unreadable, read_batches
from m3connect.ingestion.sources import SourceFile, seekable
from m3connect.ingestion.tables import identifier, no_id, of_one_name
from m3connect.stores.parquet import WITHOUT_VECTORS, Contents, contents, payloads_from_arrow
from m3connect.types import LEGS, Embeddings, Fingerprint, Leg, Payload, RecordBatch

FINGERPRINT_KEY = b"m3connect.fingerprint"
"""Schema metadata of other people's tables: their model's ``Fingerprint.to_json`` as JSON."""

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
        columns: of all batches.
        batches: the rows, and what of a file cannot be read.
        fingerprint: the model that made the vectors, None if nobody knows.
        contents: what m3connect wrote about them, None if another program wrote them.
        source: the name of the source that all of them belong to, if it was given one.
        root: of the one that they belong to otherwise, unless they say so themselves, as copies do.
        whole: whether they are all that their source has.
        files: names of the files that they come from, and how many each holds, in order.
        id_prefix: put before each id, and before the name of the document where a column gives one.
    """

    columns: pa.Schema
    batches: Iterable[pa.RecordBatch | Unreadable]
    fingerprint: Fingerprint | None
    contents: Contents | None = None
    source: str | None = None
    root: str = UNNAMED
    whole: bool = False
    files: Sequence[tuple[str, int]] = ()
    id_prefix: str = ""

    def __post_init__(self) -> None:
        if self.id_prefix and self.passages:
            raise ConfigError(
                "these are passages that ingestion cut from documents: they keep their ids (no --id-prefix)"
            )

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that are there."""
        return tuple(leg for leg in LEGS if _LEG_COLUMNS[leg] in self.columns.names)

    @property
    def roots(self) -> Sequence[str]:
        """The source that all of them belong to, whether or not there are any; of a copy each says its own."""
        return () if self.restores else (self.source or self.root,)

    @property
    def passages(self) -> bool:
        """Whether these are passages that ingestion cut from documents.

        They keep their payload to the letter, marks included: the ledger needs them when the
        documents are ingested again.
        """
        return self.contents is not None and bool(self.fingerprint and self.fingerprint.chunker)

    @property
    def restores(self) -> bool:
        """Whether this is a copy of a collection that documents were ingested into."""
        return self.passages and self.contents is not None and self.contents.digest is not None

    def schema(
        self, legs: Sequence[Leg], index_fields: Mapping[str, FieldKind]
    ) -> CollectionSchema:
        """A collection for these records."""
        fingerprint = replace(self.fingerprint, legs=tuple(legs)) if self.fingerprint else None
        if self.contents is not None:
            stored = self.contents.schema
            return replace(
                stored,
                dense_width=stored.dense_width if "dense" in legs else None,
                sparse="sparse" in legs,
                multivector_width=stored.multivector_width if "multivector" in legs else None,
                payload_fields={**stored.payload_fields, **index_fields},
                fingerprint=fingerprint,
            )
        return CollectionSchema(
            self._width("dense") if "dense" in legs else None,
            "sparse" in legs,
            self._width("multivector") if "multivector" in legs else None,
            payload_fields=index_fields,
            fingerprint=fingerprint,
        )

    def owner(self, record_id: str, payload: Payload) -> str | None:
        """The record itself; None if ingestion did not write it."""
        return record_id if FIELD in payload else None

    def candidates(self, legs: Sequence[Leg]) -> Iterator[Candidate[RecordBatch] | Failure]:
        """Sound rows as records with some of their representations; all others are failures."""
        number = 0
        schema = self.schema(legs, {})
        for each in self.batches:
            batch = self._like_the_first(each)
            if isinstance(batch, Unreadable):
                last = number + batch.rows
                where = self._where(number + 1, last) if batch.rows else None
                yield Failure(batch.reason, where)
                number = last
                continue
            for start in range(0, len(batch), ROWS):
                rows = batch.slice(start, ROWS)
                ids = python_rows(rows.select(["id"]))
                for row, embeddings in enumerate(_embeddings(rows, schema)):
                    one = rows.slice(row, 1)
                    yield self._candidate(one, ids[row], embeddings, number + row + 1)
                number += len(rows)

    def _like_the_first(self, batch: pa.RecordBatch | Unreadable) -> pa.RecordBatch | Unreadable:
        """A batch that has all columns, each once, since batches from Python may differ."""
        if isinstance(batch, Unreadable):
            return batch
        names = batch.schema.names
        if len(set(names)) < len(names):
            return Unreadable(len(batch), of_one_name(names))
        lacks = [name for name in self.columns.names if name not in names]
        why = f"a batch of {len(batch)} rows lacks columns of the first: {', '.join(lacks)}"
        return Unreadable(len(batch), why) if lacks else batch

    def _candidate(
        self,
        row: pa.RecordBatch,
        found: Mapping[str, object] | str,
        embeddings: Embeddings | str,
        number: int,
    ) -> Candidate[RecordBatch] | Failure:
        """One row, of which the id was read or why it could not be; or why the row cannot be taken."""
        where = self._where(number, number)
        if isinstance(found, str):
            return Failure(f"its id is {found}", where=where)
        given = found["id"]
        id_ = identifier(given)
        if id_ is None:
            return Failure(no_id(given), where=where)
        id_ = self.id_prefix + id_
        if isinstance(embeddings, str):
            return Failure(embeddings, where=where, id=id_)
        try:
            payload = self._payload(row)
            if isinstance(payload, str):
                return Failure(payload, where=where, id=id_)
            source = self.source or _owner(payload) or self.root
            if not self.passages:
                others = {name: value for name, value in payload.items() if name != FIELD}
                if (document := identifier(others.get("document_id"))) is not None:
                    others["document_id"] = self.id_prefix + document
                payload = {"document_id": id_, "position": 0} | others
            if fault := values.fault(payload):
                return Failure(fault, where=where, id=id_)
            hash_ = content_hash(payload, _digest(embeddings))
        except (TypeError, ValueError, RecursionError) as error:
            return Failure(f"a payload that JSON cannot hold: {error}", where=where, id=id_)
        record = RecordBatch([id_], [payload], embeddings)
        size = embeddings.nbytes
        return Candidate(id_, hash_, (id_, None), size, record, source, where, payload=payload)

    def _where(self, first: int, last: int) -> str:
        """Of records that one file holds, counted through all of them: which, in that file."""
        of = ""
        for name, rows in self.files:
            if first <= rows:
                of = f" of {name}"
                break
            first, last = first - rows, last - rows
        return (f"record {first}" if first == last else f"records {first} to {last}") + of

    def _payload(self, row: pa.RecordBatch) -> Payload | str:
        """Of one row, or why it has none."""
        if self.contents is not None:
            return payloads_from_arrow(row)[0]
        names = [name for name in row.schema.names if name not in _NO_METADATA]
        (record,) = python_rows(row.select(names))
        payload: Payload | str = values.json_value(record)
        return payload

    def _width(self, leg: Leg) -> int:
        """Of the column's lists, which have a fixed size, or else by the fingerprint."""
        column = self.columns.field(_LEG_COLUMNS[leg]).type
        vectors = column if leg == "dense" else column.value_type
        if pa.types.is_fixed_size_list(vectors):
            return int(vectors.list_size)
        if self.fingerprint is not None:
            made_by = self.fingerprint
            return made_by.dense_width if leg == "dense" else made_by.multivector_width
        raise InputError(
            f"column {_LEG_COLUMNS[leg]!r} holds {vectors}, lists of any size, and no fingerprint "
            "says how wide the vectors are; give the encoder that made them, or cast the column"
        )


def _owner(payload: Payload) -> str | None:
    """The source that a record of a copy belongs to."""
    mark = payload.get(FIELD)
    return mark.get("source") if isinstance(mark, Mapping) else None


def from_arrow(
    columns: pa.Schema,
    batches: Iterable[pa.RecordBatch | Unreadable],
    made_by: Fingerprint | None,
    name: str = "the table",
    metadata: Mapping[bytes, bytes] | None = None,
) -> EncodedSource:
    """Embeddings as a stream of Arrow batches.

    Args:
        columns: the schema of all batches.
        batches: the rows.
        made_by: the model to assume where the schema's metadata names none.
        name: of the source, for messages.
        metadata: of a file; None takes the schema's.

    Raises:
        InputError: a column is missing, is there twice or has a reserved name, or the metadata are damaged, or lost
            from a table that m3connect made.
    """
    if not is_encoded(columns) or "id" not in columns.names:
        raise InputError(
            "these Arrow columns are no embeddings: they need id, n_tokens, truncated and one of "
            f"dense, sparse_indices, multivector; there are {', '.join(columns.names)}"
        )
    if len(set(columns.names)) < len(columns.names):
        raise InputError(of_one_name(columns.names))
    metadata = columns.metadata if metadata is None else metadata
    stored = contents(metadata, name)
    if stored is not None:
        source = EncodedSource(columns, batches, stored.schema.fingerprint or made_by, stored)
        if source.passages and not source.restores:
            raise InputError(
                f"{name} holds passages that ingestion cut. Those of encode_batch are written by Sink "
                "(m3connect.integrations.arrow); of a copy of a collection, ingest the file itself"
            )
        return source
    if set(WITHOUT_VECTORS) <= set(columns.names):  # the payload would become a text in a payload
        raise InputError(
            f"{name} has the columns that m3connect writes but lacks its metadata, which say what made "
            "the vectors: a program that wrote it again left them out. Ingest the file that it was "
            "made of, or keep the schema's metadata"
        )
    for column in columns.names:
        if column == FIELD or column.startswith(RESERVED_PREFIX):
            raise InputError(f"column {column!r} has a reserved name; rename it")
    return EncodedSource(columns, batches, _fingerprint(metadata, name) or made_by)


def open_files(files: Sequence[SourceFile], made_by: Fingerprint | None) -> EncodedSource | None:
    """The embeddings in Parquet files, of which only footers are read; None if there are none.

    A file that cannot be read is one failure, and costs no other file. Where none can be, they count
    as documents, which fail one by one when they are read.

    Raises:
        ConfigError: some files hold embeddings and others do not, or their columns or models differ.
        InputError: see :func:`from_arrow`.
    """
    footers, damaged = _footers([file for file in files if _may_hold_embeddings(file)])
    schemas = {file: footer.schema.to_arrow_schema() for file, footer in footers.items()}
    encoded = next((file for file, schema in schemas.items() if is_encoded(schema)), None)
    if encoded is None:
        return None
    for file in files:
        if not _may_hold_embeddings(file):
            raise ConfigError(
                f"{encoded.name} holds embeddings and {file.name} does not; give one or the other, "
                "or leave one out (--exclude)"
            )
    (sample, first), *_ = schemas.items()
    made = {file: _identity(footer, file.name) for file, footer in footers.items()}
    for file, schema in schemas.items():
        if not schema.equals(first, check_metadata=False) or made[file] != made[sample]:
            raise ConfigError(
                f"{file.name} and {sample.name} differ in their columns or their model; "
                "ingest them one by one"
            )
    rows = chain(damaged, _rows(footers))
    source = from_arrow(first, rows, made_by, sample.name, footers[sample].metadata or {})
    if source.restores and len(files) > 1:
        raise ConfigError("these are copies of collections; ingest them one by one")
    root = around([file.root for file in files])
    held = [(file.name, footer.num_rows) for file, footer in footers.items()]
    return replace(source, root=root, whole=not source.restores, files=held)


def _may_hold_embeddings(file: SourceFile) -> bool:
    """By its name; or it is one of which nothing is known but that it cannot be read."""
    return file.suffix == ".parquet" or file.fault is not None


def _identity(footer: pq.FileMetaData, name: str) -> CollectionSchema | Fingerprint | None:
    """Which model made a file's vectors, and how they are stored."""
    stored = contents(footer.metadata, name)
    return stored.schema if stored is not None else _fingerprint(footer.metadata, name)


def _fingerprint(metadata: Mapping[bytes, bytes] | None, name: str) -> Fingerprint | None:
    stored = (metadata or {}).get(FINGERPRINT_KEY)
    if not stored:
        return None
    try:
        return Fingerprint.from_json(json.loads(stored))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{name}: its metadata {FINGERPRINT_KEY.decode()!r} is no fingerprint: {error}"
        ) from error


def _embeddings(rows: pa.RecordBatch, schema: CollectionSchema) -> list[Embeddings | str]:
    """Each row's embeddings, or why it has none. All at once, unless one of them is bad."""
    try:
        return list(_checked(rows, schema))
    except InputError as error:
        if len(rows) == 1:
            return [str(error)]
    return [each for row in range(len(rows)) for each in _embeddings(rows.slice(row, 1), schema)]


def _checked(rows: pa.RecordBatch, schema: CollectionSchema) -> Iterator[Embeddings]:
    """Embeddings of the widths that the collection has, one text each."""
    embeddings = Embeddings.from_arrow(rows).only(schema.legs)
    dense, multi = embeddings.dense, embeddings.multivector
    widths = {
        "dense": (None if dense is None else dense.shape[1], schema.dense_width),
        "multivector": (
            None if multi is None or not len(multi.vectors) else multi.width,
            schema.multivector_width,
        ),
    }
    for name, (width, expected) in widths.items():
        if width is not None and width != expected:
            raise InputError(f"column {name!r} holds a vector of width {width}, not {expected}")
    return (embeddings[row] for row in range(len(embeddings)))


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


def is_encoded(columns: pa.Schema) -> bool:
    """Whether a table holds embeddings."""
    names = set(columns.names)
    return {"n_tokens", "truncated"} <= names and bool(names & set(_LEG_COLUMNS.values()))


def _footers(
    files: Sequence[SourceFile],
) -> tuple[dict[SourceFile, pq.FileMetaData], list[Unreadable]]:
    """What files say of themselves, and those that cannot be read; empty files are neither."""
    footers: dict[SourceFile, pq.FileMetaData] = {}
    damaged = []
    for file in files:
        try:
            with file.open() as opened, seekable(file, opened) as stream:
                if stream.read(1):
                    footers[file] = pq.ParquetFile(stream).metadata
        except Exception as error:  # noqa: BLE001 - whatever a library raises is this file's fault
            damaged.append(Unreadable(0, f"{file.name} cannot be read: {explain(error)}"))
    return footers, damaged


def _rows(
    footers: Mapping[SourceFile, pq.FileMetaData],
) -> Iterator[pa.RecordBatch | Unreadable]:
    for file, footer in footers.items():
        with file.open() as opened, seekable(file, opened) as stream:
            for each in read_batches(stream, ROWS, footer):
                yield (
                    replace(each, reason=f"{file.name}: {each.reason}")
                    if isinstance(each, Unreadable)
                    else each
                )
