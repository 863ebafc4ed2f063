"""Ingestion on one page: documents -> admit -> look up -> cut -> encode -> write.

What a run is, of one process or of many; ``steps.py`` has each step but the last, which is the sink's.
A source knows nothing of the sink.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from m3connect.contract import CollectionInfo, Connector, Encoder, FieldKind
from m3connect.errors import ConnectorError, InputError
from m3connect.ingestion import pruning, restoring
from m3connect.ingestion.chunking import CONTEXT, Context
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource
from m3connect.ingestion.formats import Options
from m3connect.ingestion.ledger import INDEXED
from m3connect.ingestion.losses import Loss, Lost, ignore
from m3connect.ingestion.opening import (
    Source,
    choose_legs,
    collection_exists,
    open_source,
    require_unswitched,
    written_to,
)
from m3connect.ingestion.report import DeadLetters, IngestReport, KeptLetters, Part
from m3connect.ingestion.seen import Seen
from m3connect.ingestion.selection import Remarks
from m3connect.ingestion.sink import Event, Sink
from m3connect.ingestion.steps import (
    ROWS,
    ROWS_BYTES,
    LookUp,
    Recall,
    admit,
    as_they_are,
    assemble,
    encode,
    foresee,
    look_up,
    passages,
    together,
)
from m3connect.progress import Progress, silent
from m3connect.types import Leg


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
    context: Sequence[Context] = CONTEXT,
    reading: Options | None = None,
    legs: Sequence[Leg] | None = None,
    index_fields: Mapping[str, FieldKind] | None = None,
    source_name: str | None = None,
    take_over: bool = False,
    prune: bool = False,
    max_delete_ratio: float = pruning.MAX_DELETE_RATIO,
    patience: float = 0.0,
    dead_letters: str | Path | None = None,
    lost: Lost = ignore,
    progress: Progress = silent,
) -> IngestReport:
    """Bring documents into a collection, which is made if it does not exist.

    Running twice changes nothing: documents that the collection already holds as they are are
    skipped, changed ones are replaced, and a run that was interrupted is completed by the next.
    Documents that are no longer in the source stay unless ``prune`` is set, and are counted. Memory does not grow with
    the source: the ids that it gave lie in a temporary file.

    Args:
        source: paths (see :func:`m3connect.ingestion.sources.read`), Documents or dicts, a table
            (Arrow, pandas, Polars, a relation of DuckDB), or embeddings: a Parquet file of
            ``m3connect encode`` or an Arrow table, which are stored as they are. What
            :func:`open_source` gave is taken too; the options of reading and cutting are then its.
        encoder: the model; None for embeddings.
        connector: the collection.
        id_field, text_field, metadata_fields: of records in files, tables and dicts; see ``read``.
            Values are converted as :func:`m3connect.ingestion.values.json_value` says.
        chunk_tokens: most tokens of a passage; default 256, or what the encoder takes if less.
        chunk_overlap: tokens that a passage repeats of the one before.
        context: what is encoded with each passage: the document's ``title``, the ``headings`` above.
        reading: encoding, types of CSV, limits and a prefix of ids, for files.
        legs: representations to store; default all that the encoder makes and the database stores.
        index_fields: metadata fields to index for fast filters, with their kinds.
        source_name: of the source that the documents belong to. Default: the absolute path or the URL
            of files (:mod:`m3connect.ingestion.ownership`), ``unnamed`` for all else.
        take_over: whether documents of other sources, under the same ids, are replaced and are this
            source's from then on.
        prune: at the end, delete the documents of this source that it did not give; those of other
            sources stay.
        max_delete_ratio: the largest part of this source's documents that pruning deletes.
        patience: seconds that a run which has begun waits for a database that is away, longer than
            its connector does; reading pauses meanwhile.
        dead_letters: a JSONL file to which documents that fail are added; without it they are logged.
        lost: told what each document lost (:class:`m3connect.ingestion.Loss`), such as ``losses.append``.
        progress: told how many ``documents`` are through, and how many ``tokens`` were encoded.

    Raises:
        ConfigError: a bad path or option; nothing was written.
        InputError: every document failed.
        Refused: documents would replace those of another source, and nothing of them was written; or
            nothing was pruned, because documents failed, there were none, or too many would go (a
            :class:`m3connect.ingestion.NotPruned`, which has the report); or nothing was read, because
            only some files of a folder were chosen to prune it by.
        FingerprintMismatch, SchemaMismatch: the collection is another model's or another kind, or the name
            was switched to such a one while this run wrote.
        TransientError: the database stayed unreachable; run again to continue.
        ConnectorError: the database refused for a reason that is no document's.
    """
    with pruning.reading(to_prune=prune):
        opened = open_source(
            source,
            encoder,
            id_field=id_field,
            text_field=text_field,
            metadata_fields=metadata_fields,
            chunk_tokens=chunk_tokens,
            chunk_overlap=chunk_overlap,
            context=context,
            reading=reading,
            source_name=source_name,
            remarks=Remarks(lost=lost),
        )
    if prune:
        pruning.require_whole(opened)
    chosen, held, written = prepare(opened, connector, legs, index_fields or {})
    with DeadLetters(dead_letters) as letters, Seen() as seen:
        try:
            with Sink(
                connector,
                letters,
                progress,
                take_over=take_over,
                patience=patience,
                tenant_field=written.schema.tenant_field,
                lost=lost,
            ) as sink:
                sink.write(events(opened, chosen, seen, sink.look_up, sink.recall, held=held))
        except KeyboardInterrupt:
            with suppress(ConnectorError):  # the interrupt is told; the next run flushes
                connector.flush()
            raise
        sink.persist(connector.flush)
        if isinstance(opened, EncodedSource) and opened.restores and not sink.failed:
            restoring.finish(connector, opened.contents)
        if prune:
            pruning.prune(opened, seen, sink, most=max_delete_ratio)
            sink.persist(connector.flush)
        elif opened.whole and not sink.failed:
            present = sink.unchanged - sink.borrowed + sink.written
            sink.left_over = sink.persist(
                lambda: pruning.left_over(connector, {*opened.roots, *seen.sources()}, present)
            )
    require_unswitched(connector, written)
    _require_any(sink, dead_letters)
    return sink.report()


def prepare(
    source: DocumentSource | EncodedSource,
    connector: Connector,
    legs: Sequence[Leg] | None,
    index_fields: Mapping[str, FieldKind],
) -> tuple[tuple[Leg, ...], bool, CollectionInfo]:
    """Make the collection for a source, or see that it fits.

    Returns:
        the representations to store, whether the collection holds all of a copy already, and what the
        collection that the name stands for says of itself.

    Raises:
        as :func:`ingest`, before anything is written.
    """
    chosen = choose_legs(legs, source, connector)
    documents = isinstance(source, DocumentSource) or (source.passages and not source.restores)
    if documents and not connector.capabilities.embedded:
        index_fields = {**INDEXED, **index_fields}
    schema = source.schema(chosen, index_fields)
    collection_exists(connector, schema)
    connector.ensure(schema)
    if isinstance(source, EncodedSource) and source.restores:
        held = restoring.begin(connector, source.contents)
    else:
        held = False
        restoring.leave(connector)
    return chosen, held, written_to(connector, schema)


def _require_any(sink: Sink, dead_letters: str | Path | None) -> None:
    """A run in which every document failed is no success, whoever reads its report.

    Raises:
        InputError: that is so.
    """
    first = sink.first_failure
    if first is None or sink.failed < sink.read:
        return
    who = first.id or first.where or "one without an id"
    if sink.failed == 1:
        said, them = "the only document failed", "it"
    else:
        said, them = f"all {sink.failed} documents failed; the first", "every one"
    where = f"; {dead_letters} has {them}" if dead_letters else ""
    raise InputError(f"{said}: {who}: {first.reason}{where}")


def events(
    source: DocumentSource | EncodedSource,
    legs: Sequence[Leg],
    seen: Seen,
    ask: LookUp,
    recall: Recall | None = None,
    *,
    held: bool = False,
) -> Iterator[Event]:
    """All steps but the last: what the sink has to write, and what it has to count.

    Args:
        source: of documents or of records.
        legs: the representations to store.
        seen: is filled with the ids that the source gives, and the names of their sources.
        ask: what the collection holds.
        recall: the records that it holds, with vectors; without it all passages are encoded.
        held: whether the collection is known to hold all of a copy.
    """
    if isinstance(source, DocumentSource):
        if source.parts is not None:
            return together(source.parts, seen)
        made = encode(passages(source, seen, ask), source.encoder, legs, recall)
        return foresee(made, source.foreseen(), ask)
    records = admit(source.candidates(legs), seen)
    if source.restores:
        return assemble(as_they_are(records, held=held), marked=True)
    return assemble(look_up(records, ask, ROWS, ROWS_BYTES))


def ingest_part(
    source: DocumentSource,
    connector: Connector,
    legs: Sequence[Leg],
    losses: list[Loss],
    *,
    take_over: bool,
    tenant_field: str | None,
    patience: float = 0.0,
    progress: Progress = silent,
) -> Part:
    """The share of a worker in a run: another process made the collection, and counts all parts.

    Args:
        source: some of the documents.
        connector: the collection, which exists.
        legs: the representations to store.
        losses: what reading the source finds, to which all others are added.
        tenant_field: the payload field by which the collection keeps tenants apart, if it does.
        take_over, patience, progress: as in :func:`ingest`.

    Raises:
        as :func:`ingest`.
    """
    letters = KeptLetters()
    with Seen() as seen:
        with Sink(
            connector,
            letters,
            progress,
            take_over=take_over,
            patience=patience,
            tenant_field=tenant_field,
            lost=losses.append,
        ) as sink:
            sink.write(events(source, legs, seen, sink.look_up, sink.recall))
        sink.persist(connector.flush)
        given = dict(seen.items())
    return Part(sink.report(), given, letters.failures, losses, sink.borrowed)
