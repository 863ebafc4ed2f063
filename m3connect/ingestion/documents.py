"""From documents to records: admit, skip the unchanged, cut, encode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from m3connect.contract import RESERVED_PREFIX, CollectionSchema, Encoder, FieldKind
from m3connect.ingestion.chunking import Chunker, chunk_id, chunk_ids
from m3connect.ingestion.ledger import Mark, Stored, content_hash
from m3connect.ingestion.report import Failure
from m3connect.ingestion.run import Run
from m3connect.ingestion.writer import Change, Work, step
from m3connect.types import PASSAGE_FIELDS, Chunk, Document, Leg, Payload, RecordBatch

T = TypeVar("T")

# What is in memory at once. A window of documents is looked up in one request; a group of passages
# is encoded in one call, large enough to be sorted by length, small enough to wait in a queue
# (65,536 characters are about 16,000 tokens: 32 MiB of bge-m3's multi-vectors in float16).
WINDOW_DOCUMENTS, WINDOW_CHARACTERS = 128, 1 << 20
GROUP_PASSAGES, GROUP_CHARACTERS = 256, 1 << 16


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk on its way into the collection."""

    chunk: Chunk
    payload: Payload
    owner: Change


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Documents to ingest.

    Args:
        items: documents, and what could not become one.
        encoder: encodes their passages.
        chunker: cuts them.
    """

    items: Iterable[Document | Failure]
    encoder: Encoder
    chunker: Chunker

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that the encoder makes."""
        return self.encoder.info.fingerprint.legs

    def schema(
        self, legs: Sequence[Leg], index_fields: Mapping[str, FieldKind]
    ) -> CollectionSchema:
        """A collection for their passages."""
        made_by = self.encoder.info.fingerprint
        return CollectionSchema(
            made_by.dense_width if "dense" in legs else None,
            "sparse" in legs,
            made_by.multivector_width if "multivector" in legs else None,
            payload_fields=index_fields,
            fingerprint=replace(made_by, legs=tuple(legs), chunker=self.chunker.description),
        )

    def owner(self, record_id: str, payload: Payload) -> str | None:
        """The document that a record is a passage of; None if ingestion did not write it."""
        document, position = payload.get("document_id"), payload.get("position")
        if isinstance(document, str) and isinstance(position, int):
            return document if chunk_id(document, position) == record_id else None
        return None

    def works(self, run: Run, legs: Sequence[Leg]) -> Iterator[Work]:
        """The passages of what changed as records, encoded in groups."""
        for group in self.groups(run):
            ordered = sorted(group, key=lambda passage: step(passage.chunk.position))
            texts = [passage.chunk.text for passage in ordered]
            embeddings = self.encoder.encode(texts, legs=legs)
            run.counts["tokens"] += int(embeddings.n_tokens.sum())
            run.counts["truncated"] += int(embeddings.truncated.sum())
            yield Work(
                RecordBatch(
                    [passage.chunk.id for passage in ordered],
                    [passage.payload for passage in ordered],
                    embeddings,
                ),
                [passage.owner for passage in ordered],
                [step(passage.chunk.position) for passage in ordered],
            )

    def groups(self, run: Run) -> Iterator[list[Passage]]:
        """The passages of all documents that changed, as many as are encoded in one call."""
        return batched(
            self._passages(run),
            lambda passage: len(passage.chunk.text),
            GROUP_PASSAGES,
            GROUP_CHARACTERS,
        )

    def _passages(self, run: Run) -> Iterator[Passage]:
        """The passages of all documents that changed, each document's in the ledger's order."""
        admitted = _admitted(run, self.items, self._version)
        windows = batched(
            admitted, lambda pair: len(pair[0].text), WINDOW_DOCUMENTS, WINDOW_CHARACTERS
        )
        for (document, hash_), stored in run.look_up(windows, _record_ids):
            if stored.is_complete(hash_):
                assert stored.first is not None
                run.counts["unchanged"] += 1
                run.delete(chunk_ids(document.id, stored.first.chunks, stored.bound))
            else:
                yield from _cut(run, document, hash_, stored, self.chunker)

    def _version(self, document: Document) -> str:
        """A hash of all that a document's records are made of."""
        return content_hash(
            document.text,
            document.metadata,
            document.format,
            self.chunker.description,
            self.encoder.info.fingerprint.weights,
        )


def batched(
    items: Iterable[T], weight: Callable[[T], int], count: int, limit: int
) -> Iterator[list[T]]:
    """Lists of at most ``count`` items that weigh at most ``limit``; a heavier item stands alone.

    >>> list(batched(["a", "bb", "ccc", "d"], len, count=2, limit=4))
    [['a', 'bb'], ['ccc', 'd']]
    >>> list(batched(["a", "bbbbbb", "c"], len, count=9, limit=4))
    [['a'], ['bbbbbb'], ['c']]
    """
    batch: list[T] = []
    total = 0
    for item in items:
        size = weight(item)
        if batch and total + size > limit:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
        if len(batch) == count:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _admitted(
    run: Run, items: Iterable[Document | Failure], version: Callable[[Document], str]
) -> Iterator[tuple[Document, str]]:
    """Sound documents with the hash of their version; all others are failures."""
    for item in items:
        run.counts["read"] += 1
        if isinstance(item, Failure):
            run.fail(item)
            continue
        try:
            hash_ = version(item)
            reason = _fault(item, run.seen)
        except (TypeError, ValueError) as error:
            reason = f"metadata that JSON cannot hold: {error}"
        if reason is not None:
            run.fail(Failure(reason, id=item.id))
            continue
        run.seen.add(item.id)
        yield item, hash_


def _fault(document: Document, seen: set[str]) -> str | None:
    if not document.id:
        return "the document has no id"
    if document.id in seen:
        return "another document of this run has the same id"
    if not document.text.strip():
        return "the document is empty"
    for name in document.metadata:
        if name in PASSAGE_FIELDS or str(name).startswith(RESERVED_PREFIX):
            return (
                f"metadata field {name!r} is reserved; rename it, or name the fields to keep "
                "(--metadata-field)"
            )
    for name, value in (("id", document.id), ("text", document.text)):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"the {name} is not valid unicode: {error.reason} at character {error.start + 1}"
    return None


def _record_ids(admitted: tuple[Document, str]) -> tuple[str, str]:
    document, _ = admitted
    return chunk_id(document.id, 0), chunk_id(document.id, 1)


def _cut(
    run: Run, document: Document, hash_: str, stored: Stored, chunker: Chunker
) -> Iterator[Passage]:
    chunks = chunker.chunks(document)
    run.counts["chunks"] += len(chunks)
    mark = Mark(hash_, len(chunks), max(len(chunks), stored.bound))
    owner = Change(document.id, mark)
    for chunk in [*chunks[1:], chunks[0]]:
        payload: Payload = {
            **document.metadata,
            "text": chunk.text,
            "document_id": document.id,
            "position": chunk.position,
            **(mark.to_payload() if chunk.position < 2 else {}),
        }
        yield Passage(chunk, payload, owner)
