"""Ingestion on one page: documents -> admit -> look up -> cut -> encode -> write.

Each step is a generator that takes what the step before it gives. What needs no further step, a
failure or a document that is unchanged, passes through to the sink, which counts it. A source knows
nothing of the sink, and nothing is in memory but a window of documents and a few groups of passages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from m3connect.contract import Connector, Encoder, FieldKind
from m3connect.errors import InputError
from m3connect.ingestion import pruning, restoring
from m3connect.ingestion.chunking import CONTEXT, Chunker, Context, chunk_ids
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource
from m3connect.ingestion.formats import Options
from m3connect.ingestion.ledger import COMMIT, INDEXED, Candidate, Mark, Stored, content_hash, step
from m3connect.ingestion.listing import Remarks
from m3connect.ingestion.losses import Loss, Lost, ignore
from m3connect.ingestion.opening import Source, choose_legs, collection_exists, open_source
from m3connect.ingestion.report import DeadLetters, Failure, IngestReport, KeptLetters, Part
from m3connect.ingestion.sink import Change, Empty, Event, Sink, Unchanged, Work
from m3connect.progress import Progress, silent
from m3connect.types import Chunk, Document, Embeddings, Leg, Payload, RecordBatch

T = TypeVar("T")
LookUp = Callable[[Sequence[Candidate[Any]]], Future[list[Stored]]]
Recall = Callable[[Sequence[str], Sequence[Leg]], Future[RecordBatch]]

# What is in memory at once. A window of documents is looked up in one request; a group of passages
# is encoded in one call, large enough to be sorted by length, small enough to wait in a queue
# (65,536 characters are about 16,000 tokens: 32 MiB of bge-m3's multi-vectors in float16).
WINDOW_DOCUMENTS, WINDOW_CHARACTERS = 128, 1 << 20
GROUP_PASSAGES, GROUP_CHARACTERS = 256, 1 << 16
# The same for records that come with their vectors, of which a few groups are in flight.
ROWS, ROWS_BYTES = 256, 32 * 1024 * 1024


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
    dead_letters: str | Path | None = None,
    lost: Lost = ignore,
    progress: Progress = silent,
) -> IngestReport:
    """Bring documents into a collection, which is made if it does not exist.

    Running twice changes nothing: documents that the collection already holds as they are are
    skipped, changed ones are replaced, and a run that was interrupted is completed by the next.
    Documents that are no longer in the source stay unless ``prune`` is set, and are counted. Memory does not grow with
    the source, but for the ids.

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
        dead_letters: a JSONL file to which documents that fail are added; without it they are logged.
        lost: told what each document lost (:class:`m3connect.ingestion.Loss`), such as ``losses.append``.
        progress: told how many documents are through.

    Raises:
        ConfigError: a bad path or option; nothing was written.
        InputError: every document failed.
        Refused: documents would replace those of another source, and nothing of them was written; or
            nothing was pruned, because documents failed, there were none, or too many would go; or
            nothing was read, because only single files of a folder were given to prune it by.
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
        context=context,
        reading=reading,
        source_name=source_name,
        remarks=Remarks(lost=lost),
    )
    if prune:
        pruning.require_whole(opened)
    chosen, held = prepare(opened, connector, legs, index_fields or {})
    seen: dict[str, str] = {}
    with DeadLetters(dead_letters) as letters:
        try:
            with Sink(connector, letters, progress, take_over=take_over, lost=lost) as sink:
                sink.write(events(opened, chosen, seen, sink.look_up, sink.recall, held=held))
        except KeyboardInterrupt:
            connector.flush()
            raise
        connector.flush()
        if isinstance(opened, EncodedSource) and opened.restores and not sink.failed:
            restoring.finish(connector, opened.contents)
        if prune:
            pruning.prune(opened, seen, sink, most=max_delete_ratio)
            connector.flush()
        elif opened.whole and not sink.failed:
            present = sink.unchanged - sink.borrowed + sink.written
            sink.left_over = pruning.left_over(connector, set(seen.values()), present)
    _require_any(sink, dead_letters)
    return sink.report()


def prepare(
    source: DocumentSource | EncodedSource,
    connector: Connector,
    legs: Sequence[Leg] | None,
    index_fields: Mapping[str, FieldKind],
) -> tuple[tuple[Leg, ...], bool]:
    """Make the collection for a source, or see that it fits.

    Returns:
        the representations to store, and whether the collection holds all of a copy already.

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
        return chosen, restoring.begin(connector, source.contents)
    restoring.leave(connector)
    return chosen, False


def _require_any(sink: Sink, dead_letters: str | Path | None) -> None:
    """A run in which every document failed is no success, whoever reads its report.

    Raises:
        InputError: that is so.
    """
    first = sink.first_failure
    if first is None or sink.failed < sink.read:
        return
    who = first.id or first.where or "one without an id"
    every = "the only document" if sink.failed == 1 else f"all {sink.failed} documents"
    raise InputError(
        f"{every} failed; the first: {who}: {first.reason}"
        + (f"; {dead_letters} has every one" if dead_letters else "")
    )


def events(
    source: DocumentSource | EncodedSource,
    legs: Sequence[Leg],
    seen: dict[str, str],
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
) -> Part:
    """The share of a worker in a run: another process made the collection, and counts all parts.

    Args:
        source: some of the documents.
        connector: the collection, which exists.
        legs: the representations to store.
        losses: what reading the source finds, to which all others are added.
        take_over: as in :func:`ingest`.

    Raises:
        as :func:`ingest`.
    """
    seen: dict[str, str] = {}
    letters = KeptLetters()
    with Sink(connector, letters, take_over=take_over, lost=losses.append) as sink:
        sink.write(events(source, legs, seen, sink.look_up, sink.recall))
    connector.flush()
    return Part(sink.report(), seen, letters.failures, losses, sink.borrowed)


def together(parts: Iterable[Part], seen: dict[str, str]) -> Iterator[Event]:
    """What the parts of a run did; an id that two of them gave is a failure, as it is in one process.

    Which of the two documents the collection holds is the one that was written last.
    """
    for part in parts:
        twice = sorted(part.seen.keys() & seen.keys())
        written = part.report.written - len(twice)
        report = replace(
            part.report, written=max(written, 0), unchanged=part.report.unchanged + min(written, 0)
        )
        failures = [
            Failure("another document of this run has the same id", id=id_) for id_ in twice
        ]
        yield replace(part, report=report, failures=[*part.failures, *failures])
        seen.update(part.seen)


def passages(
    source: DocumentSource, seen: dict[str, str], ask: LookUp
) -> Iterator[Passage | Unchanged | Empty | Failure]:
    """The steps before encoding: the passages of all documents that changed."""
    documents = admit(source.candidates(), seen)
    return cut(look_up(documents, ask, WINDOW_DOCUMENTS, WINDOW_CHARACTERS), source.chunker)


# ----------------------------------------------------------------------------- from step to step


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """A version that the collection does not hold as it is, and what it holds instead."""

    candidate: Candidate[T]
    stored: Stored

    @property
    def same(self) -> bool:
        """Whether the collection does hold it, but does not know whose it is."""
        return self.stored.is_complete(self.candidate.hash)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk on its way into the collection."""

    chunk: Chunk
    payload: Payload
    owner: Change


# --------------------------------------------------------------------------------------- the steps


def admit(
    candidates: Iterable[Candidate[T] | Failure], seen: dict[str, str]
) -> Iterator[Candidate[T] | Failure]:
    """Each id once; ``seen`` is filled with the ids and their sources."""
    for candidate in candidates:
        if isinstance(candidate, Failure):
            yield candidate
        elif candidate.id in seen:
            yield Failure("another document of this run has the same id", id=candidate.id)
        else:
            seen[candidate.id] = candidate.source
            yield candidate


def look_up(
    candidates: Iterable[Candidate[T] | Failure], ask: LookUp, count: int, size: int
) -> Iterator[Changed[T] | Unchanged | Empty | Failure]:
    """Whether the collection holds each version; asked in windows, one window ahead."""
    ahead: tuple[list[Candidate[T]], Future[list[Stored]]] | None = None
    for window in grouped(candidates, lambda candidate: candidate.size, count, size):
        if not isinstance(window, list):
            yield window
            continue
        asked = window, ask(window)
        if ahead is not None:
            yield from map(_changed, ahead[0], ahead[1].result())
        ahead = asked
    if ahead is not None:
        yield from map(_changed, ahead[0], ahead[1].result())


def _changed(candidate: Candidate[T], stored: Stored) -> Changed[T] | Unchanged:
    if not stored.is_complete(candidate.hash) or not stored.is_owned(candidate.source):
        return Changed(candidate, stored)
    assert stored.first is not None
    stale = chunk_ids(candidate.id, stored.first.chunks, stored.bound)
    return Unchanged(candidate.id, stale, borrowed=stored.first.source != candidate.source)


def cut(
    changes: Iterable[Changed[Document] | Unchanged | Empty | Failure], chunker: Chunker
) -> Iterator[Passage | Unchanged | Empty | Failure]:
    """The passages of each document, the first one last, as the ledger wants it."""
    for change in changes:
        if not isinstance(change, Changed):
            yield change
            continue
        document = change.candidate.item
        chunks = chunker.chunks(document)
        if not chunks:
            held = change.stored.bound
            stale = [*chunk_ids(document.id, 2, held), *chunk_ids(document.id, 0, 2)]
            yield Empty(document.id, stale if held else ())
            continue
        version, stored = change.candidate, change.stored
        bound = max(len(chunks), stored.bound)
        made_by = chunker.encoder.info.fingerprint.weights
        encoded = content_hash(made_by, *[chunk.encoded for chunk in chunks])
        owner = Change(
            document.id,
            Mark(version.hash, len(chunks), bound, version.source, encoded),
            same=change.same,
            kept=stored.has_vectors_of(version.hash, encoded),
        )
        for chunk in [*chunks[1:], chunks[0]]:
            payload: Payload = {
                **chunk.place,
                **document.metadata,
                "span": chunk.place["span"],
                "text": chunk.text,
                "document_id": document.id,
                "position": chunk.position,
                **owner.mark.at(chunk.position),
            }
            yield Passage(chunk, payload, owner)


def encode(
    passages: Iterable[Passage | Unchanged | Empty | Failure],
    encoder: Encoder,
    legs: Sequence[Leg],
    recall: Recall | None = None,
) -> Iterator[Event]:
    """The passages as records, encoded in groups; what is encoded already is recalled."""
    for group in grouped(
        passages, lambda each: len(each.chunk.encoded), GROUP_PASSAGES, GROUP_CHARACTERS
    ):
        if not isinstance(group, list):
            yield group
            continue
        ordered = sorted(group, key=lambda passage: step(passage.chunk.position))
        kept = [each.chunk.id for each in ordered if each.owner.kept]
        held = recall(kept, legs).result() if kept and recall is not None else None
        embeddings, tokens = _embeddings(ordered, held, encoder, legs)
        yield Work(
            RecordBatch(
                [passage.chunk.id for passage in ordered],
                [passage.payload for passage in ordered],
                embeddings,
            ),
            [passage.owner for passage in ordered],
            [step(passage.chunk.position) for passage in ordered],
            tokens,
        )


def _embeddings(
    passages: Sequence[Passage], held: RecordBatch | None, encoder: Encoder, legs: Sequence[Leg]
) -> tuple[Embeddings, int]:
    """Those that are held, and of all others encoded ones; and how many tokens these have."""
    rows = {} if held is None else {id_: row for row, id_ in enumerate(held.ids)}
    texts = [each.chunk.encoded for each in passages if each.chunk.id not in rows]
    parts = [] if held is None else [held.embeddings]
    if texts:
        parts.append(encoder.encode(texts, legs=legs))
    tokens = int(parts[-1].n_tokens.sum()) if texts else 0
    if not rows:
        return parts[-1], tokens
    new = count(len(rows))
    order = [rows[id_] if (id_ := each.chunk.id) in rows else next(new) for each in passages]
    return Embeddings.concat(parts).take(np.array(order)), tokens


def foresee(
    made: Iterable[Event], known: Iterable[Candidate[None]], ask: LookUp
) -> Iterator[Event]:
    """Before the first write of a source that is new to the collection: whether it may write at all.

    Documents of another source are refused where they are looked up; what is known of documents
    before they are read is asked here, so that this is not in the middle of a long run.
    """
    new = True
    for event in made:
        if new and isinstance(event, Work):
            for window in grouped(known, lambda _: 1, WINDOW_DOCUMENTS, WINDOW_DOCUMENTS):
                assert isinstance(window, list)
                ask(window).result()
        new = new and not isinstance(event, Work | Unchanged)
        yield event


def as_they_are(
    records: Iterable[Candidate[RecordBatch] | Failure], *, held: bool
) -> Iterator[Changed[RecordBatch] | Unchanged | Failure]:
    """The passages of a copy, of which the collection holds all or may hold some."""
    for record in records:
        if isinstance(record, Failure):
            yield record
        else:
            yield Unchanged(record.id, ()) if held else Changed(record, Stored())


def assemble(
    changes: Iterable[Changed[RecordBatch] | Unchanged | Empty | Failure], *, marked: bool = False
) -> Iterator[Event]:
    """Records that came with their vectors, each a document of one passage; or marked already."""
    for group in grouped(changes, lambda each: each.candidate.size, ROWS, ROWS_BYTES):
        if not isinstance(group, list):
            yield group
            continue
        versions = [each.candidate for each in group]
        marks = [Mark(each.hash, 1, 1, each.source) for each in versions]
        owners = [
            Change(each.candidate.id, mark, same=each.same)
            for each, mark in zip(group, marks, strict=True)
        ]
        records = RecordBatch.concat([each.item for each in versions])
        if not marked:
            payloads = [
                {**payload, **owner.mark.at(0)}
                for payload, owner in zip(records.payloads, owners, strict=True)
            ]
            records = replace(records, payloads=payloads)
        yield Work(records, owners, [COMMIT] * len(owners), tokens=0)


def grouped(
    items: Iterable[T | Unchanged | Empty | Failure],
    size_of: Callable[[T], int],
    most: int,
    size: int,
) -> Iterator[list[T] | Unchanged | Empty | Failure]:
    """Items in lists of at most ``most`` with at most ``size`` together; a larger one stands alone.

    What is unchanged, empty or failed passes at once.

    >>> list(grouped(["a", Failure("no"), "bb", "ccc", "d"], len, most=2, size=4))
    [Failure(reason='no', where=None, id=None), ['a', 'bb'], ['ccc', 'd']]
    >>> list(grouped(["a", "bbbbbb", "c"], len, most=9, size=4))
    [['a'], ['bbbbbb'], ['c']]
    """
    group: list[T] = []
    total = 0
    for item in items:
        if isinstance(item, Unchanged | Empty | Failure):
            yield item
            continue
        weight = size_of(item)
        if group and total + weight > size:
            yield group
            group, total = [], 0
        group.append(item)
        total += weight
        if len(group) == most:
            yield group
            group, total = [], 0
    if group:
        yield group
