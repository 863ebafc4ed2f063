"""What a run of ingestion would do: everything but encoding and writing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from m3connect.connecting.retry import record_bytes
from m3connect.contract import Connector, Encoder
from m3connect.ingestion.chunking import added_tokens
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource
from m3connect.ingestion.opening import choose_legs, collection_exists
from m3connect.ingestion.pipeline import events
from m3connect.ingestion.pruning import MAX_DELETE_RATIO, require_whole, vanished
from m3connect.ingestion.report import DeadLetters, IngestEstimate
from m3connect.ingestion.sink import Sink, Work
from m3connect.ingestion.steps import GROUP_CHARACTERS, GROUP_PASSAGES, grouped, passages
from m3connect.progress import Progress, silent
from m3connect.types import Leg

SAMPLE = 32  # passages encoded to measure speed and size


def estimate(
    source: DocumentSource | EncodedSource,
    connector: Connector,
    *,
    legs: Sequence[Leg] | None = None,
    take_over: bool = False,
    prune: bool = False,
    max_delete_ratio: float = MAX_DELETE_RATIO,
    progress: Progress = silent,
) -> IngestEstimate:
    """Read and cut everything, encode a sample, write nothing.

    Args:
        source: what :func:`m3connect.ingestion.open_source` gave; it is used up.
        connector: the collection; it need not exist.
        legs: representations to store; default as in :func:`m3connect.ingestion.ingest`.
        take_over: whether documents of other sources would be replaced.
        prune: count what pruning would delete.
        max_delete_ratio: the largest part of this source's documents that it may.
        progress: told how many documents are through.

    Raises:
        ConfigError, FingerprintMismatch, InputError, Refused: as ``ingest`` would.
    """
    if prune:
        require_whole(source)
    chosen = choose_legs(legs, source, connector)
    exists = collection_exists(connector, source.schema(chosen, {}))
    seen: dict[str, str] = {}
    letters = DeadLetters()
    with Sink(connector, letters, progress, exists=exists, take_over=take_over) as sink:
        if isinstance(source, EncodedSource):
            to_do = _records(source, chosen, seen, sink)
        else:
            to_do = _documents(source, chosen, seen, sink)
    done = sink.report()
    read = len(seen) + done.failed
    gone = {}
    if prune and exists:
        gone = vanished(
            connector, source, seen, read=read, failed=done.failed, most=max_delete_ratio
        )
    return IngestEstimate(
        read=read,
        unchanged=done.unchanged + to_do.unchanged,
        pruned=len(gone),
        failed=done.failed,
        chunks=to_do.chunks,
        tokens=to_do.tokens,
        seconds=to_do.seconds,
        bytes=to_do.bytes,
    )


@dataclass(slots=True)
class _ToDo:
    """What is left to do: passages, their tokens, the seconds to encode them, and their bytes.

    ``unchanged`` are documents of which no more is to be written than whose they are.
    """

    unchanged: int = 0
    chunks: int = 0
    tokens: int = 0
    seconds: float = 0.0
    bytes: int = 0


def _records(source: EncodedSource, legs: Sequence[Leg], seen: dict[str, str], sink: Sink) -> _ToDo:
    to_do = _ToDo()
    for event in events(source, legs, seen, sink.look_up):
        sink.count(event)
        if isinstance(event, Work):
            to_do.chunks += len(event.batch)
            to_do.bytes += sum(record_bytes(event.batch, row) for row in range(len(event.batch)))
    return to_do


def _documents(
    source: DocumentSource, legs: Sequence[Leg], seen: dict[str, str], sink: Sink
) -> _ToDo:
    encoder = source.encoder
    added = added_tokens(encoder)
    to_do = _ToDo()
    sample: list[str] = []
    for group in grouped(
        passages(source, seen, sink.look_up),
        lambda passage: len(passage.chunk.encoded),
        GROUP_PASSAGES,
        GROUP_CHARACTERS,
    ):
        if not isinstance(group, list):
            sink.count(group)
            continue
        to_do.unchanged += sum(each.owner.same and not each.chunk.position for each in group)
        texts = [passage.chunk.encoded for passage in group if not passage.owner.kept]
        sample += texts[: SAMPLE - len(sample)]
        counted = encoder.tokenizer.encode_batch(texts, add_special_tokens=False)
        to_do.chunks += len(texts)
        to_do.tokens += sum(len(encoding) + added for encoding in counted)
        to_do.bytes += sum(len(text.encode()) for text in texts)
    if sample:
        seconds_per_token, bytes_per_token = cost_per_token(encoder, sample, legs)
        to_do.seconds = to_do.tokens * seconds_per_token
        to_do.bytes += round(to_do.tokens * bytes_per_token)
    return to_do


def cost_per_token(
    encoder: Encoder, sample: Sequence[str], legs: Sequence[Leg]
) -> tuple[float, float]:
    """Seconds to encode a token here, and bytes of its vectors, measured on some texts.

    Args:
        encoder: the model.
        sample: texts like those to come, not empty.
        legs: the representations that are made.
    """
    encoder.encode(sample[:1], legs=legs)  # the first call is slower than all others
    start = time.perf_counter()
    embeddings = encoder.encode(sample, legs=legs)
    tokens = int(embeddings.n_tokens.sum())
    return (time.perf_counter() - start) / tokens, embeddings.nbytes / tokens
