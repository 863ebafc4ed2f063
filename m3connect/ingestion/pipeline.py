"""The main path: source -> what is unchanged is skipped -> passages -> vectors -> acknowledged records.

``documents.py`` and ``embedded.py`` are the two kinds of source, ``run.py`` overlaps encoding with
writing, ``writer.py`` writes in the order that ``ledger.py`` explains.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from m3connect.contract import CollectionSchema, Connector, Encoder, FieldKind
from m3connect.errors import CollectionNotFound, ConfigError, FingerprintMismatch, InputError
from m3connect.ingestion import pruning, sources
from m3connect.ingestion.chunking import Chunker
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EmbeddedSource, are_embedded, from_arrow, from_files
from m3connect.ingestion.report import DeadLetters, Failure, IngestReport
from m3connect.ingestion.run import Progress, Run
from m3connect.types import LEGS, Document, Leg

log = logging.getLogger(__name__)

Source: TypeAlias = (
    sources.Path
    | Iterable[sources.Path]
    | Iterable[Document]
    | pa.Table
    | pa.RecordBatch
    | Iterable[pa.RecordBatch]
    | DocumentSource
    | EmbeddedSource
)


def ingest(
    source: Source,
    encoder: Encoder | None,
    connector: Connector,
    *,
    id_field: str | None = None,
    text_field: str = "text",
    metadata_fields: Sequence[str] | None = None,
    chunk_tokens: int | None = None,
    chunk_overlap: int = 0,
    legs: Sequence[Leg] | None = None,
    index_fields: Mapping[str, FieldKind] | None = None,
    prune: bool = False,
    dead_letters: str | Path | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring documents into a collection, which is made if it does not exist.

    Running twice changes nothing: documents that the collection already holds as they are are
    skipped, changed ones are replaced, and a run that was interrupted is completed by the next.
    Documents that are no longer in the source stay unless ``prune`` is set. Memory does not grow with
    the source, but for the ids.

    Args:
        source: paths (see :func:`m3connect.ingestion.sources.read`), documents, or embeddings: a
            Parquet file of ``m3connect encode`` or Arrow batches, which are stored as they are. What
            :func:`open_source` gave is taken too; the options of reading and cutting are then its.
        encoder: the model; None for embeddings.
        connector: the collection.
        id_field, text_field, metadata_fields: of records in files; see ``read``.
        chunk_tokens: most tokens of a passage; default 256, or what the encoder takes if less.
        chunk_overlap: tokens that a passage repeats of the one before.
        legs: representations to store; default all that the encoder makes and the database stores.
        index_fields: metadata fields to index for fast filters, with their kinds.
        prune: at the end, delete all documents that this source did not give. It must then be the
            whole source of the collection.
        dead_letters: a JSONL file for documents that fail; without it they are logged.
        progress: called with the counts so far, after each piece of work.

    Raises:
        ConfigError: a bad path or option; nothing was written.
        InputError: nothing was pruned, because documents failed or there were none.
        FingerprintMismatch, SchemaMismatch: the collection is another model's or another kind.
        TransientError: the database stayed unreachable; run again to continue.
        ConnectorError: the database refused for a reason that is no document's.
    """
    opened = open_source(
        source,
        encoder,
        id_field=id_field,
        text_field=text_field,
        metadata_fields=metadata_fields,
        chunk_tokens=chunk_tokens,
        chunk_overlap=chunk_overlap,
    )
    chosen = choose_legs(legs, opened, connector)
    schema = opened.schema(chosen, index_fields or {})
    collection_exists(connector, schema)
    connector.ensure(schema)
    with DeadLetters(dead_letters) as letters:
        try:
            with Run(connector, letters, progress) as run:
                for work in opened.works(run, chosen):
                    run.write(work)
                run.finish()
        except KeyboardInterrupt:
            connector.flush()
            raise
        connector.flush()
        if prune:
            pruning.prune(connector, opened, run)
            connector.flush()
    return run.report()


def open_source(
    source: Source,
    encoder: Encoder | None,
    *,
    id_field: str | None = None,
    text_field: str = "text",
    metadata_fields: Sequence[str] | None = None,
    chunk_tokens: int | None = None,
    chunk_overlap: int = 0,
) -> DocumentSource | EmbeddedSource:
    """What a source is; nothing but names and columns is read yet. Arguments as in :func:`ingest`.

    Raises:
        ConfigError: a bad path or option, or no encoder for what is not encoded.
        InputError: a source of another type, or Arrow columns that are no embeddings.
    """
    if isinstance(source, DocumentSource | EmbeddedSource):
        return source
    made_by = encoder.info.fingerprint if encoder is not None else None
    if isinstance(source, pa.Table):
        source = source.to_reader()
    elif isinstance(source, pa.RecordBatch):
        source = [source]
    if isinstance(source, pa.RecordBatchReader):
        return from_arrow(source.schema, source, made_by)
    items: Iterator[Any] = iter([source] if isinstance(source, str | os.PathLike) else source)
    first = next(items, None)
    everything: Iterator[Any] = chain([first] if first is not None else [], items)
    if isinstance(first, pa.RecordBatch):
        return from_arrow(first.schema, everything, made_by)
    if isinstance(first, str | os.PathLike):
        paths = list(everything)
        files = sources.find(paths)
        if are_embedded(files):
            return from_files(files, made_by)
        everything = sources.read(
            paths, id_field=id_field, text_field=text_field, metadata_fields=metadata_fields
        )
    elif first is not None and not isinstance(first, Document | Failure):
        raise InputError(
            f"a source gives paths, Documents or Arrow batches, not {type(first).__name__}"
        )
    if encoder is None:
        raise ConfigError("documents need an encoder; only embeddings go without")
    return DocumentSource(
        everything, encoder, Chunker(encoder, tokens=chunk_tokens, overlap=chunk_overlap)
    )


def choose_legs(
    legs: Sequence[Leg] | None, source: DocumentSource | EmbeddedSource, connector: Connector
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
    if not legs:
        raise ConfigError(f"name at least one of {', '.join(LEGS)}")
    for leg in legs:
        if leg not in source.legs:
            raise ConfigError(f"the source has no {leg} vectors; it has {', '.join(source.legs)}")
        if leg not in stores:
            raise ConfigError(f"{connector.name} cannot store {leg} vectors here")
    return tuple(leg for leg in LEGS if leg in legs)


def collection_exists(connector: Connector, schema: CollectionSchema) -> bool:
    """Whether the collection exists, made by the same model.

    Raises:
        FingerprintMismatch: it was made by another model, or cut in another way.
    """
    try:
        stored = connector.describe().schema.fingerprint
    except CollectionNotFound:
        return False
    if stored is not None and schema.fingerprint is None:
        raise FingerprintMismatch(
            f"collection {connector.collection!r} was made by {stored.model!r}; these embeddings "
            "do not say which model made them. Write them with 'm3connect encode', which records "
            "it, or ingest into a new collection (--collection NAME)."
        )
    if stored is not None and schema.fingerprint is not None:
        schema.fingerprint.require(stored, collection=connector.collection, writing=True)
    return True
