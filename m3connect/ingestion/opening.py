"""What a source is, and whether the collection can take it; nothing is read but names and columns."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, TypeAlias

import pyarrow as pa

from m3connect.connecting.collection import Place, Stored
from m3connect.contract import CollectionInfo, CollectionSchema, Connector, Encoder
from m3connect.errors import CollectionNotFound, ConfigError, FingerprintMismatch, InputError
from m3connect.ingestion import tables
from m3connect.ingestion.chunking import CONTEXT, Chunker, Context, options_of
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource, from_arrow, is_encoded, open_files
from m3connect.ingestion.files import SourceFile
from m3connect.ingestion.formats import RECORDS, Fields, Options
from m3connect.ingestion.listing import find
from m3connect.ingestion.report import Failure
from m3connect.ingestion.selection import Path, Remarks
from m3connect.ingestion.sources import read_files
from m3connect.types import LEGS, Document, Fingerprint, Leg

log = logging.getLogger(__name__)

Source: TypeAlias = (
    Path
    | Iterable[Path]
    | Sequence[SourceFile]
    | Iterable[Document]
    | Iterable[Mapping[str, Any]]
    | pa.Table
    | pa.RecordBatch
    | Iterable[pa.RecordBatch]
    | DocumentSource
    | EncodedSource
    | Any  # a data frame: whatever has Arrow's C interface
)


def open_source(
    source: Source,
    encoder: Encoder | Callable[[], Encoder] | None,
    *,
    id_field: str | None = None,
    text_field: str = "text",
    metadata_fields: Sequence[str] | None = None,
    chunk_tokens: int | None = None,
    chunk_overlap: int = 0,
    context: Sequence[Context] = CONTEXT,
    reading: Options | None = None,
    source_name: str | None = None,
    remarks: Remarks | None = None,
) -> DocumentSource | EncodedSource:
    """What a source is; nothing but names and columns is read yet.

    Args:
        source: paths, or files that :func:`m3connect.ingestion.find` found, and all others that
            :func:`m3connect.ingestion.ingest` takes.
        encoder: or a function that loads it, which is called only if it is needed.
        id_field, text_field, metadata_fields, chunk_tokens, chunk_overlap, context, reading: as in
            ``ingest``.
        source_name: of the source that the documents belong to; see ``ingest``.
        remarks: counts what reading leaves out or guesses.

    Raises:
        ConfigError: a bad path or option, or no encoder for what is not encoded.
        InputError: a source of another type, or Arrow columns that are no embeddings.
    """
    if isinstance(source, DocumentSource | EncodedSource):
        return source
    made_by = None if encoder is None or callable(encoder) else encoder.info.fingerprint
    fields = Fields(id_field, text_field, _names(metadata_fields))
    options = replace(reading or Options(), fields=fields)
    remarks = Remarks() if remarks is None else remarks
    opened, files = _open(source, made_by, options, remarks)
    if isinstance(opened, EncodedSource):
        return replace(opened, source=source_name, id_prefix=options.id_prefix)
    if encoder is None:
        raise ConfigError("documents need an encoder; only embeddings that can be read go without")
    if callable(encoder):
        encoder = encoder()
    chunker = Chunker(encoder, tokens=chunk_tokens, overlap=chunk_overlap, context=context)
    whole = bool(files) and not any(file.part or file.filesystem is None for file in files)
    pages = [
        (options.id_prefix + file.name, file.root) for file in files if file.suffix not in RECORDS
    ]
    piece_of = None if source_name else next((file.root for file in files if file.part), None)
    roots = dict.fromkeys([file.root for file in files] + remarks.barren)
    return DocumentSource(
        opened,
        encoder,
        chunker,
        source_name,
        whole,
        pages,
        piece_of=piece_of,
        roots=[source_name] if source_name else [*roots],
    )


def _open(
    source: Any, made_by: Fingerprint | None, options: Options, remarks: Remarks
) -> tuple[EncodedSource | Iterable[Document | Failure], Sequence[SourceFile]]:
    """Embeddings, or documents to encode; and the files that they are in."""
    reader = tables.as_reader(source)
    if reader is not None:
        return _open_batches(reader.schema, reader, made_by, options), ()
    if isinstance(source, Mapping | Document | SourceFile):
        raise InputError(f"a source is many documents, not one {type(source).__name__}: [it]")
    if not isinstance(source, Iterable | os.PathLike):
        raise _no_source(source)
    items: Iterator[Any] = iter([source] if isinstance(source, str | os.PathLike) else source)
    opening = list(islice(items, 1))
    first = opening[0] if opening else None
    everything = chain(opening, items)
    if isinstance(first, pa.RecordBatch):
        return _open_batches(first.schema, everything, made_by, options), ()
    if isinstance(first, str | os.PathLike | SourceFile):
        named = list(everything)
        files = named if isinstance(first, SourceFile) else find(named, remarks=remarks)
        return _open_files(files, made_by, options, remarks), files
    if opening and not isinstance(first, Document | Failure | Mapping):
        raise _no_source(first)
    return _prefixed(tables.from_records(everything, options.fields), options.id_prefix), ()


def _no_source(given: object) -> InputError:
    return InputError(
        "a source gives paths, Documents or Arrow batches, not "
        f"{type(given).__name__}; tables, data frames and dicts are taken, too"
    )


def _open_batches(
    columns: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    made_by: Fingerprint | None,
    options: Options,
) -> EncodedSource | Iterable[Document | Failure]:
    if is_encoded(columns):
        return from_arrow(columns, batches, made_by)
    return _prefixed(tables.from_batches(columns, batches, options.fields), options.id_prefix)


def _prefixed(items: Iterable[Document | Failure], prefix: str) -> Iterable[Document | Failure]:
    """Documents of tables and Python under the ids that those of files get as they are read."""
    if not prefix:
        return items
    return (item if item.id is None else replace(item, id=prefix + item.id) for item in items)


def _open_files(
    files: Sequence[SourceFile],
    made_by: Fingerprint | None,
    options: Options,
    remarks: Remarks,
) -> EncodedSource | Iterable[Document | Failure]:
    encoded = open_files(files, made_by)
    return read_files(files, options, remarks) if encoded is None else encoded


def _names(fields: Sequence[str] | str | None) -> Sequence[str] | None:
    """Fields to keep; a string is one field, and not its letters."""
    return (fields,) if isinstance(fields, str) else fields


def choose_legs(
    legs: Sequence[Leg] | None, source: DocumentSource | EncodedSource, connector: Connector
) -> tuple[Leg, ...]:
    """The representations to store, in their usual order.

    Raises:
        ConfigError: the source does not have one, or the database cannot store it.
    """
    stores = connector.capabilities.stores
    if legs is None:
        chosen = tuple(leg for leg in source.legs if leg in stores)
        if left_out := ", ".join(leg for leg in source.legs if leg not in stores):
            engine = connector.capabilities.engine
            log.warning("%s cannot store %s vectors; they are left out", engine, left_out)
        return chosen
    chosen = require_legs(legs, source.legs)
    for leg in chosen:
        if leg not in stores:
            raise ConfigError(f"{connector.name} cannot store {leg} vectors here")
    return chosen


def require_legs(legs: Sequence[Leg], offered: Sequence[Leg]) -> tuple[Leg, ...]:
    """Representations that were asked for, in their usual order.

    Args:
        legs: those.
        offered: what the source has.

    Raises:
        ConfigError: none is named, or one that the source does not have.
    """
    if isinstance(legs, str):
        raise ConfigError(f"legs are a list: legs=[{legs!r}]")
    if not legs:
        raise ConfigError(f"name at least one of {', '.join(LEGS)}")
    for leg in legs:
        if leg not in offered:
            raise ConfigError(f"the source has no {leg} vectors; it has {', '.join(offered)}")
    return tuple(leg for leg in LEGS if leg in legs)


def collection_exists(connector: Connector, schema: CollectionSchema) -> bool:
    """Whether the collection exists, made by the same model and of the same shape.

    Raises:
        FingerprintMismatch: it was made by another model, or cut in another way.
        SchemaMismatch: it holds other representations.
    """
    try:
        info = connector.describe()
    except CollectionNotFound:
        return False
    _require_alike(connector, info, schema)
    return True


def written_to(connector: Connector, schema: CollectionSchema) -> CollectionInfo:
    """Which collection all is written to from now on: what the name stands for is looked up once more.

    Raises:
        as :func:`collection_exists`, and CollectionNotFound.
    """
    info = connector.describe()
    _require_alike(connector, info, schema)
    return info


def require_unswitched(connector: Connector, written: CollectionInfo) -> None:
    """At the end of a run: the name still stands for the collection that was written to.

    Raises:
        FingerprintMismatch: it was switched meanwhile.
    """
    info, collection = connector.describe(), written.stands_for
    if info.stands_for != collection:
        made_by = info.schema.fingerprint
        model = "its model" if made_by is None else f"--model {made_by.model}"
        raise FingerprintMismatch(
            f"{info.name!r} was switched from {collection!r} to {info.stands_for!r} while this run wrote "
            f"into the former: what it wrote last may be missing now. Run it again with {model}."
        )


def _require_alike(connector: Connector, info: CollectionInfo, schema: CollectionSchema) -> None:
    """Raises as :func:`collection_exists`."""
    held = info.schema
    stored = held.fingerprint
    if stored is not None and schema.fingerprint is None:
        raise FingerprintMismatch(
            f"collection {connector.collection!r} was made by {stored.model!r}; these embeddings "
            "do not say which model made them. Write them with 'm3connect encode', which records "
            "it, or ingest into a new collection (--collection NAME)."
        )
    if stored is not None and schema.fingerprint is not None:
        schema.fingerprint.require(
            stored,
            collection=connector.collection,
            writing=True,
            cut_alike=options_of(stored.chunker),
        )
    Stored(held).require(schema, Place(connector.name, connector.collection))
