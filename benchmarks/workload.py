"""Seeded random records and queries in the shape of bge-m3's output, and how calls are timed."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from m3connect.contract import CollectionSchema
from m3connect.types import (
    Embeddings,
    MultiVectors,
    Query,
    RecordBatch,
    SparseVector,
    SparseVectors,
    Weighted,
)

VOCABULARY = 250_002
MODES = ("dense", "sparse", "multivector", "hybrid", "all")


def schema(width: int) -> CollectionSchema:
    """All three representations, ``width`` wide."""
    return CollectionSchema(width, sparse=True, multivector_width=width)


def records(
    n: int, *, width: int = 1024, terms: int = 120, tokens: int = 20, seed: int = 0, step: int = 500
) -> Iterator[RecordBatch]:
    """``n`` records in batches; a few topics, so that neighbours exist."""
    centres = np.random.default_rng(seed).normal(size=(64, width)).astype(np.float32)
    for start in range(0, n, step):
        size = min(step, n - start)
        rng = np.random.default_rng([seed, start])
        topics = rng.integers(0, len(centres), size)
        dense = _unit(centres[topics] + rng.normal(size=(size, width)).astype(np.float32))
        sparse = SparseVectors.from_rows([_terms(rng, terms) for _ in range(size)])
        vectors = np.repeat(dense, tokens, axis=0) + 0.5 * rng.normal(
            size=(size * tokens, width)
        ).astype(np.float32) / np.sqrt(width)
        offsets = np.arange(size + 1, dtype=np.int64) * tokens
        multi = MultiVectors(offsets, _unit(vectors).astype(np.float16))
        yield RecordBatch(
            [f"record-{start + row}" for row in range(size)],
            [{"text": f"record {start + row}", "topic": int(topics[row])} for row in range(size)],
            Embeddings(
                dense, sparse, multi, np.full(size, tokens, np.int32), np.zeros(size, np.bool_)
            ),
        )


def queries(
    n: int, *, width: int = 1024, terms: int = 8, tokens: int = 12, seed: int = 1
) -> list[dict]:
    """The vectors of ``n`` queries, near the records' topics."""
    centres = np.random.default_rng(0).normal(size=(64, width)).astype(np.float32)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        dense = _unit(centres[rng.integers(64)] + rng.normal(size=width).astype(np.float32))
        late = _unit(dense + rng.normal(size=(tokens, width)).astype(np.float32) / np.sqrt(width))
        found.append({"dense": dense, "sparse": _terms(rng, terms), "multivector": late})
    return found


def query(vectors: dict, mode: str, *, limit: int = 10) -> Query:
    """A query in one of the modes of ``m3connect search``."""
    legs = {"hybrid": ["dense", "sparse"], "all": list(vectors), "multivector": list(vectors)}
    late_only = Weighted(0.0, 0.0, 1.0, rescore=False)
    return Query(
        **{leg: vectors[leg] for leg in legs.get(mode, [mode])},
        fusion=late_only if mode == "multivector" else Weighted(),
        limit=limit,
    )


def percentiles(call: Callable[[Query], object], asked: Sequence[Query]) -> tuple[float, float]:
    """p50 and p99 of one call a query, in milliseconds, after a warm-up of five."""
    for one in asked[:5]:
        call(one)
    times = []
    for one in asked:
        start = time.perf_counter()
        call(one)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))


def _terms(rng: np.random.Generator, n: int) -> SparseVector:
    """Terms by a Zipf-like law, so that common ones are shared."""
    drawn = np.unique((VOCABULARY * rng.random(2 * n) ** 3).astype(np.uint32))
    chosen = rng.permutation(drawn)[:n]
    return SparseVector(chosen, rng.uniform(0.01, 0.4, len(chosen)).astype(np.float32))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
