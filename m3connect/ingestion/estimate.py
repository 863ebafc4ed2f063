"""What a run of ingestion would do: everything but encoding and writing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from m3connect.connecting.retry import record_bytes
from m3connect.contract import Connector, Encoder
from m3connect.ingestion.chunking import added_tokens
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EmbeddedSource
from m3connect.ingestion.pipeline import choose_legs, collection_exists
from m3connect.ingestion.pruning import vanished
from m3connect.ingestion.report import DeadLetters, IngestEstimate
from m3connect.ingestion.run import Progress, Run
from m3connect.types import Leg

SAMPLE = 32  # passages encoded to measure speed and size


def estimate(
    source: DocumentSource | EmbeddedSource,
    connector: Connector,
    *,
    legs: Sequence[Leg] | None = None,
    prune: bool = False,
    progress: Progress | None = None,
) -> IngestEstimate:
    """Read and cut everything, encode a sample, write nothing.

    Args:
        source: what :func:`m3connect.ingestion.open_source` gave; it is used up.
        connector: the collection; it need not exist.
        legs: representations to store; default as in :func:`m3connect.ingestion.ingest`.
        prune: count what pruning would delete.
        progress: called with the counts so far.

    Raises:
        ConfigError, FingerprintMismatch, InputError: as ``ingest`` would.
    """
    chosen = choose_legs(legs, source, connector)
    exists = collection_exists(connector, source.schema(chosen, {}))
    with Run(connector, DeadLetters(), progress, exists=exists, dry=True) as run:
        if isinstance(source, EmbeddedSource):
            batches = (work.batch for work in source.works(run, chosen))
            size = sum(record_bytes(batch, row) for batch in batches for row in range(len(batch)))
            tokens, seconds = 0, 0.0
        else:
            tokens, seconds, size = _documents(source, run, chosen)
        pruned = len(vanished(connector, source, run)) if prune and exists else 0
    done = run.report()
    return IngestEstimate(
        done.read, done.unchanged, pruned, done.failed, done.chunks, tokens, seconds, size
    )


def _documents(source: DocumentSource, run: Run, legs: Sequence[Leg]) -> tuple[int, float, int]:
    """Tokens, seconds and bytes of all passages to encode."""
    encoder = source.encoder
    added = added_tokens(encoder)
    sample: list[str] = []
    tokens = size = 0
    for group in source.groups(run):
        texts = [passage.chunk.text for passage in group]
        sample += texts[: SAMPLE - len(sample)]
        counted = encoder.tokenizer.encode_batch(texts, add_special_tokens=False)
        tokens += sum(len(encoding) + added for encoding in counted)
        size += sum(len(text.encode()) for text in texts)
    if not sample:
        return 0, 0.0, 0
    seconds_per_token, bytes_per_token = _measure(encoder, sample, legs)
    return tokens, tokens * seconds_per_token, size + round(tokens * bytes_per_token)


def _measure(encoder: Encoder, sample: Sequence[str], legs: Sequence[Leg]) -> tuple[float, float]:
    """Seconds and bytes of vectors a token."""
    encoder.encode(sample[:1], legs=legs)  # the first call is slower than all others
    start = time.perf_counter()
    embeddings = encoder.encode(sample, legs=legs)
    tokens = int(embeddings.n_tokens.sum())
    return (time.perf_counter() - start) / tokens, embeddings.nbytes / tokens
