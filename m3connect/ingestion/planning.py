"""What a run of ingestion would do: everything but writing, and a sample of the encoding."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import numpy as np

from m3connect.connecting.retry import record_bytes
from m3connect.contract import Connector, Encoder, Limits
from m3connect.errors import Refused
from m3connect.ingestion import restoring
from m3connect.ingestion.chunking import added_tokens, chunk_ids
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource
from m3connect.ingestion.ledger import Removal
from m3connect.ingestion.opening import choose_legs, collection_exists
from m3connect.ingestion.pipeline import events
from m3connect.ingestion.pruning import MAX_DELETE_RATIO, require_whole, vanished
from m3connect.ingestion.report import KeptLetters
from m3connect.ingestion.seen import Seen
from m3connect.ingestion.sink import Empty, Sink, Unchanged, Work
from m3connect.ingestion.steps import GROUP_CHARACTERS, GROUP_PASSAGES, Passage, grouped, passages
from m3connect.progress import Progress, silent
from m3connect.types import Embeddings, Leg, TokenDtype
from m3connect.types.tokens import token_bytes

SAMPLE = 32  # passages encoded to measure speed and size


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What a run would do; ``read == unchanged + written + empty + failed``.

    Args:
        read, unchanged, taken_over, written, metadata_only, deleted, pruned, empty, failed, chunks: as an
            :class:`m3connect.ingestion.IngestReport` would count them. A document that the database
            refuses is among ``written`` here.
        encoded: of the passages those that would be encoded.
        tokens: of these, special ones included.
        truncated: of these, how many are longer than the encoder's limit.
        seconds: wall time to encode them here, by the speed of ``sample`` passages.
        sample: passages that were encoded to tell.
        bytes: of what would be new in the collection: ``payload`` (text, metadata and marks, as JSON) and
            each representation's vectors, by the sizes of the sample. Indexes come on top.
        reasons: why documents would fail, with how many.
        beyond: passages that exceed a limit of the database and would be refused, by the limit.
        legs: the representations that would be stored.
    """

    read: int
    unchanged: int
    taken_over: int
    written: int
    metadata_only: int
    deleted: int
    pruned: int
    empty: int
    failed: int
    chunks: int
    encoded: int
    tokens: int
    truncated: int
    seconds: float
    sample: int
    bytes: Mapping[str, int]
    reasons: Mapping[str, int]
    beyond: Mapping[str, int]
    legs: tuple[Leg, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"legs": list(self.legs)}


def plan(
    source: DocumentSource | EncodedSource,
    connector: Connector,
    *,
    legs: Sequence[Leg] | None = None,
    take_over: bool = False,
    prune: bool = False,
    max_delete_ratio: float = MAX_DELETE_RATIO,
    progress: Progress = silent,
) -> IngestPlan:
    """Read and cut everything, ask the collection, encode a sample, write nothing.

    Args:
        source: what :func:`m3connect.ingestion.open_source` gave; it is used up.
        connector: the collection; it need not exist.
        legs: representations to store; default as in :func:`m3connect.ingestion.ingest`.
        take_over: whether documents of other sources would be replaced.
        prune: count what pruning would delete.
        max_delete_ratio: the largest part of this source's documents that it may.
        progress: told how many documents are through.

    Raises:
        ConfigError, FingerprintMismatch, SchemaMismatch, InputError, Refused: as ``ingest`` would.
    """
    if prune:
        require_whole(source)
    chosen = choose_legs(legs, source, connector)
    exists = collection_exists(connector, source.schema(chosen, {}))
    held = False
    if exists and isinstance(source, EncodedSource) and source.restores:
        held = restoring.holds(connector, source.contents)
    elif exists:
        restoring.is_whole(connector)
    letters = KeptLetters()
    with Seen() as seen:
        with Sink(
            connector,
            letters,
            progress,
            exists=exists,
            take_over=take_over,
            tenant_field=connector.describe().schema.tenant_field if exists else None,
        ) as sink:
            if isinstance(source, EncodedSource):
                tally = _records(source, chosen, seen, sink, held=held)
            else:
                tally = _documents(source, chosen, seen, sink, exists=exists)
        done = sink.report()
        read = done.unchanged + done.empty + done.failed + tally.changed
        gone: dict[str, Removal] = {}
        if prune and exists:
            try:
                gone = vanished(
                    connector, source, seen, read=read, failed=done.failed, most=max_delete_ratio
                )
            except Refused as refusal:
                raise Refused(f"nothing would be deleted: {refusal}") from refusal
    unchanged = done.unchanged + tally.taken_over
    return IngestPlan(
        read=read,
        unchanged=unchanged,
        taken_over=tally.taken_over,
        written=tally.changed - tally.taken_over,
        metadata_only=tally.metadata_only,
        deleted=tally.deleted + sum(len(ids) for groups in gone.values() for ids in groups),
        pruned=len(gone),
        empty=done.empty,
        failed=done.failed,
        chunks=tally.chunks,
        encoded=tally.encoded,
        tokens=tally.tokens,
        truncated=tally.truncated,
        seconds=tally.seconds,
        sample=tally.sample,
        bytes=dict(tally.bytes),
        reasons=dict(Counter(each.reason for each in letters.failures).most_common()),
        beyond=dict(tally.beyond),
        legs=chosen,
    )


@dataclass(slots=True)
class _Tally:
    """What is to be done with documents that changed, if only whose they are."""

    changed: int = 0
    taken_over: int = 0
    metadata_only: int = 0
    deleted: int = 0
    chunks: int = 0
    encoded: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0
    sample: int = 0
    bytes: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)


def _records(
    source: EncodedSource, legs: Sequence[Leg], seen: Seen, sink: Sink, *, held: bool
) -> _Tally:
    tally = _Tally()
    for event in events(source, legs, seen, sink.look_up, held=held):
        sink.count(event)
        if isinstance(event, Work):
            new = [row for row, owner in enumerate(event.owners) if not owner.same]
            tally.changed += len(event.owners)
            tally.taken_over += len(event.owners) - len(new)
            tally.chunks += len(new)
            if not new:
                continue
            batch = event.batch.take(np.array(new))
            sizes = bytes_by_leg(batch.embeddings, source.schema(legs, {}).multivector_dtype)
            tally.bytes.update(sizes)
            whole = sum(record_bytes(batch, row) for row in range(len(batch)))
            tally.bytes["payload"] += whole - batch.embeddings.nbytes
    return tally


def _documents(
    source: DocumentSource, legs: Sequence[Leg], seen: Seen, sink: Sink, *, exists: bool
) -> _Tally:
    encoder = source.encoder
    added, longest = added_tokens(encoder), encoder.info.max_length
    limits, width = sink.connector.capabilities.limits, encoder.info.fingerprint.multivector_width
    tally = _Tally()
    sample = _Sample()
    for group in grouped(
        passages(source, seen, sink.look_up),
        lambda passage: len(passage.chunk.encoded),
        GROUP_PASSAGES,
        GROUP_CHARACTERS,
    ):
        if not isinstance(group, list):
            sink.count(group)
            stale = group.stale if isinstance(group, Unchanged) else ()
            if isinstance(group, Empty):
                stale = [id_ for ids in group.stale for id_ in ids]
            if exists and stale:
                tally.deleted += len(sink.recall(stale, ()).result())
            continue
        tally.chunks += sum(not each.owner.same for each in group)
        for owner in (each.owner for each in group if not each.chunk.position):
            tally.changed += 1
            tally.taken_over += owner.same
            tally.metadata_only += owner.kept and not owner.same
            stale = chunk_ids(owner.id, owner.mark.chunks, owner.mark.bound)
            tally.deleted += len(sink.recall(stale, ()).result()) if exists and stale else 0
        new = [each for each in group if not each.owner.kept]
        texts = [each.chunk.encoded for each in new]
        counts = [
            len(each) + added
            for each in encoder.tokenizer.encode_batch(texts, add_special_tokens=False)
        ]
        for passage, tokens in zip(new, counts, strict=True):
            payload = len(json.dumps(passage.payload, ensure_ascii=False).encode())
            tally.bytes["payload"] += payload
            tally.truncated += tokens > longest
            tally.tokens += min(tokens, longest)
            floats = width * min(tokens, longest) if "multivector" in legs else 0
            tally.beyond.update(_beyond(limits, passage, payload, floats))
            sample.offer(passage.chunk.encoded)
        tally.encoded += len(new)
    if sample.texts:
        cost = cost_of(encoder, sample.texts, legs)
        tally.sample = len(sample.texts)
        tally.seconds = tally.tokens * cost.seconds / cost.tokens
        for leg, size in cost.bytes.items():  # a dense vector is as long for any text
            share = tally.encoded / tally.sample if leg == "dense" else tally.tokens / cost.tokens
            tally.bytes[leg] = round(size * share)
    return tally


def _beyond(limits: Limits, passage: Passage, payload: int, floats: int) -> list[str]:
    """The limits that a passage exceeds."""
    sizes = {
        "id_bytes": len(passage.chunk.id.encode()),
        "payload_bytes": payload,
        "multivector_floats": floats + 1,  # the backend takes fewer
    }
    return [name for name, size in sizes.items() if size > (getattr(limits, name) or size)]


# ------------------------------------------------------------------------------ the sample


class _Sample:
    """Texts drawn evenly from all that are offered, the same ones each time."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._offered = 0
        self._random = Random(0)

    def offer(self, text: str) -> None:
        """Algorithm R (Vitter 1985): each text is kept with the same probability."""
        self._offered += 1
        if len(self.texts) < SAMPLE:
            self.texts.append(text)
        elif (position := self._random.randrange(self._offered)) < SAMPLE:
            self.texts[position] = text


@dataclass(frozen=True, slots=True)
class Cost:
    """What encoding some texts took: tokens, seconds, and bytes by representation."""

    tokens: int
    seconds: float
    bytes: Mapping[Leg, int]


def cost_of(encoder: Encoder, sample: Sequence[str], legs: Sequence[Leg]) -> Cost:
    """What it takes to encode texts here.

    Args:
        encoder: the model.
        sample: texts like those to come, not empty.
        legs: the representations that are made.
    """
    encoder.encode(sample[:1], legs=legs)  # the first call is slower than all others
    start = time.perf_counter()
    embeddings = encoder.encode(sample, legs=legs)
    seconds = time.perf_counter() - start
    dtype = encoder.info.fingerprint.compression.multivector_dtype
    return Cost(int(embeddings.n_tokens.sum()), seconds, bytes_by_leg(embeddings, dtype))


def bytes_by_leg(embeddings: Embeddings, dtype: TokenDtype | None = None) -> dict[Leg, int]:
    """What the vectors of each representation take.

    Args:
        embeddings: the vectors.
        dtype: in which token values are stored; None for the one that they have.
    """
    sizes: dict[Leg, int] = {leg: getattr(embeddings, leg).nbytes for leg in embeddings.legs}
    multi = embeddings.multivector
    if multi is not None and dtype is not None:
        sizes["multivector"] = len(multi.vectors) * token_bytes(multi.width, dtype)
    return sizes
