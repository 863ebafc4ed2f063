"""The steps of ingestion, each a generator that takes what the step before it gives.

What needs no further step, a failure or a document that is unchanged, passes through to the sink, which
counts it. Nothing is in memory but a window of documents and a few groups of passages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np

from m3connect.contract import Encoder
from m3connect.ingestion.chunking import Chunker, chunk_id, chunk_ids
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.ledger import (
    COMMIT,
    Candidate,
    Mark,
    Stored,
    encoded_hash,
    removal,
    step,
)
from m3connect.ingestion.report import TWICE, Failure, IngestReport, Part
from m3connect.ingestion.seen import Seen
from m3connect.ingestion.sink import Change, Empty, Event, Unchanged, Work
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


def passages(
    source: DocumentSource, seen: Seen, ask: LookUp
) -> Iterator[Passage | Unchanged | Empty | Failure]:
    """The steps before encoding: the passages of all documents that changed."""
    documents = admit(source.candidates(), seen)
    return cut(look_up(documents, ask, WINDOW_DOCUMENTS, WINDOW_CHARACTERS), source.chunker)


def admit(
    candidates: Iterable[Candidate[T] | Failure], seen: Seen
) -> Iterator[Candidate[T] | Failure]:
    """Each id once; ``seen`` is filled with the ids and their sources."""
    for candidate in candidates:
        if isinstance(candidate, Failure) or seen.add(candidate.id, candidate.source):
            yield candidate
        else:
            yield Failure(TWICE, candidate.where, candidate.id, candidate.root)


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


def _changed(candidate: Candidate[T], stored: Stored) -> Changed[T] | Unchanged | Failure:
    if stored.misplaced is not None:
        return Failure(stored.misplaced, candidate.where, candidate.id, candidate.root)
    if not stored.is_complete(candidate.hash) or not stored.is_owned(candidate.source):
        return Changed(candidate, stored)
    assert stored.first is not None
    stale = [chunk_id(candidate.id, at) for at in stored.beyond(stored.first.chunks)]
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
            yield emptied(document.id, change.stored, document.metadata)
            continue
        version, stored = change.candidate, change.stored
        bound = max(len(chunks), stored.bound)
        made_by = chunker.encoder.info.fingerprint.weights
        encoded = encoded_hash(made_by, [chunk.encoded for chunk in chunks])
        owner = Change(
            document.id,
            Mark(version.hash, len(chunks), bound, version.source, encoded),
            same=change.same,
            kept=stored.has_vectors_of(version.hash, encoded),
            where=version.where,
            root=version.root,
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


def emptied(document: str, stored: Stored, metadata: Payload) -> Empty:
    """A document that has no text any more: all that the collection holds of it goes."""
    held = stored.bound
    first = chunk_ids(document, 0, min(held, 1))
    second = chunk_ids(document, 1, 2) if stored.second else []
    stale = removal(first, second, chunk_ids(document, 1 + len(second), held))
    return Empty(document, stale, metadata)


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


def together(parts: Iterable[Part], seen: Seen) -> Iterator[Event]:
    """What the parts of a run did; an id that two of them gave is a failure, as it is in one process.

    Which of the two documents the collection holds is the one that was written last.
    """
    for part in parts:
        twice = sorted(id_ for id_, source in part.seen.items() if not seen.add(id_, source))
        failures = [*part.failures, *(Failure(TWICE, id=id_) for id_ in twice)]
        yield replace(part, report=_without(part.report, len(twice)), failures=failures)


def _without(report: IngestReport, twice: int) -> IngestReport:
    """A part's counts, of which so many documents are failures; nobody tells what else they were.

    >>> report = _without(IngestReport(written=1, metadata_only=1, unchanged=1, empty=1), 2)
    >>> report.written, report.metadata_only, report.unchanged, report.empty
    (0, 0, 0, 1)
    """
    written = max(report.written - twice, 0)
    twice -= report.written - written
    unchanged = max(report.unchanged - twice, 0)
    twice -= report.unchanged - unchanged
    return replace(
        report,
        written=written,
        metadata_only=min(report.metadata_only, written),
        unchanged=unchanged,
        taken_over=min(report.taken_over, unchanged),
        empty=max(report.empty - twice, 0),
    )


def grouped(
    items: Iterable[T | Unchanged | Empty | Failure],
    size_of: Callable[[T], int],
    most: int,
    size: int,
) -> Iterator[list[T] | Unchanged | Empty | Failure]:
    """Items in lists of at most ``most`` with at most ``size`` together; a larger one stands alone.

    What is unchanged, empty or failed passes at once.

    >>> list(grouped(["a", Failure("no"), "bb", "ccc", "d"], len, most=2, size=4))
    [Failure(reason='no', where=None, id=None, root=None), ['a', 'bb'], ['ccc', 'd']]
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
