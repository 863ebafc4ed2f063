"""Seeded random records and queries in the shape of bge-m3's output."""

from collections.abc import Iterator, Sequence

import numpy as np

from m3connect.contract import CollectionSchema
from m3connect.types import (
    LEGS,
    Embeddings,
    FloatArray,
    Leg,
    MultiVectors,
    Query,
    RecordBatch,
    Rrf,
    SparseVector,
    SparseVectors,
    TokenDtype,
    Weighted,
)

VOCABULARY = 250_002
MODES: dict[str, tuple[Leg, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse",),
    "rrf": ("dense", "sparse"),
    "hybrid": ("dense", "sparse"),
    "multivector": LEGS,
    "all": LEGS,
}
"""Every mode that is measured, and the legs of its queries."""
_FUSIONS = {"rrf": Rrf(), "multivector": Weighted(0.0, 0.0, 1.0, rescore=False)}


def schema(
    width: int,
    legs: Sequence[Leg] = LEGS,
    *,
    token_width: int | None = None,
    late_dtype: TokenDtype = "float16",
) -> CollectionSchema:
    """The representations, ``width`` wide; token vectors ``token_width``, if that is given."""
    return CollectionSchema(
        width if "dense" in legs else None,
        sparse="sparse" in legs,
        multivector_width=(token_width or width) if "multivector" in legs else None,
        multivector_dtype=late_dtype,
    )


def records(
    n: int,
    *,
    legs: Sequence[Leg] = LEGS,
    width: int = 1024,
    token_width: int | None = None,
    terms: int = 120,
    tokens: int = 20,
    seed: int = 0,
    first: int = 0,
    step: int = 500,
) -> Iterator[RecordBatch]:
    """The first ``n`` records in batches, from ``first`` on; a few topics, so that neighbours exist."""
    centres = np.random.default_rng(seed).normal(size=(64, width)).astype(np.float32)
    for start in range(first, n, step):
        rng = np.random.default_rng([seed, start])
        topics = rng.integers(0, len(centres), step)
        dense = _unit(centres[topics] + rng.normal(size=(step, width)).astype(np.float32))
        sparse = SparseVectors.from_rows([_terms(rng, terms) for _ in range(step)])
        batch = RecordBatch(
            [f"record-{start + row}" for row in range(step)],
            [{"text": f"record {start + row}", "topic": int(topics[row])} for row in range(step)],
            Embeddings(
                dense if "dense" in legs else None,
                sparse if "sparse" in legs else None,
                _tokens(rng, dense[:, :token_width], tokens) if "multivector" in legs else None,
                np.full(step, tokens, np.int32),
                np.zeros(step, np.bool_),
            ),
        )
        yield batch[: n - start]


def queries(
    n: int,
    *,
    width: int = 1024,
    token_width: int | None = None,
    terms: int = 8,
    tokens: int = 12,
    seed: int = 1,
) -> list[dict]:
    """The vectors of ``n`` queries, near the records' topics."""
    centres = np.random.default_rng(0).normal(size=(64, width)).astype(np.float32)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        dense = _unit(centres[rng.integers(64)] + rng.normal(size=width).astype(np.float32))
        near = dense[:token_width]
        noise = rng.normal(size=(tokens, len(near))).astype(np.float32)
        late = _unit(near + noise / np.sqrt(len(near)))
        found.append({"dense": dense, "sparse": _terms(rng, terms), "multivector": late})
    return found


def query(vectors: dict, mode: str, *, limit: int = 10) -> Query:
    """A query in one of the modes of ``m3connect search``; ``rrf`` is hybrid, fused by ranks."""
    return Query(
        **{leg: vectors[leg] for leg in MODES[mode]},
        fusion=_FUSIONS.get(mode, Weighted()),
        limit=limit,
    )


def _tokens(rng: np.random.Generator, dense: FloatArray, tokens: int) -> MultiVectors:
    """Token vectors around each dense one."""
    n, width = dense.shape
    vectors = rng.standard_normal((n * tokens, width), dtype=np.float32)
    vectors *= 0.5 / np.sqrt(width)
    vectors += np.repeat(dense, tokens, axis=0)
    offsets = np.arange(n + 1, dtype=np.int64) * tokens
    return MultiVectors(offsets, _unit(vectors).astype(np.float16))


def _terms(rng: np.random.Generator, n: int) -> SparseVector:
    """Terms by a Zipf-like law, so that common ones are shared."""
    drawn = np.unique((VOCABULARY * rng.random(2 * n) ** 3).astype(np.uint32))
    chosen = rng.permutation(drawn)[:n]
    return SparseVector(chosen, rng.uniform(0.01, 0.4, len(chosen)).astype(np.float32))


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / norms).astype(np.float32, copy=False)
