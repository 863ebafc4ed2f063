"""The five scores of query-passage pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np

from m3connect.contract import Encoder
from m3connect.errors import InputError
from m3connect.searching.scoring import maxsim, sparse_scores
from m3connect.types import Embeddings, FloatArray, MultiVectors, SparseVectors


class PairScores(TypedDict):
    """One ``float32 [N]`` for each mode; the combined ones are weighted means."""

    dense: FloatArray
    sparse: FloatArray
    multivector: FloatArray
    hybrid: FloatArray
    all: FloatArray


def score_pairs(
    encoder: Encoder, pairs: Sequence[tuple[str, str]], weights: tuple[float, float, float]
) -> PairScores:
    """Encode (query, passage) pairs and score them.

    Args:
        encoder: the model.
        pairs: (query, passage).
        weights: of dense, sparse and multivector in the combined scores.

    Raises:
        InputError: something is no pair of strings, or not three weights.
    """
    given = [*weights]  # whatever the type says
    if len(given) != 3:
        raise InputError(f"{len(given)} weights: give three, of dense, sparse and multivector")
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"pair {number} is {pair!r}: give (query, passage)")
    queries = encoder.encode([query for query, _ in pairs], kind="query")
    passages = encoder.encode([passage for _, passage in pairs], kind="passage")
    return pair_scores(queries, passages, weights)


def pair_scores(
    queries: Embeddings, passages: Embeddings, weights: tuple[float, float, float]
) -> PairScores:
    """Score each query with the passage at the same place.

    Args:
        queries, passages: N texts each, with all three representations.
        weights: of dense, sparse and multivector in the combined scores.
    """
    query_dense, query_sparse, query_vectors = _legs(queries)
    passage_dense, passage_sparse, passage_vectors = _legs(passages)
    rows = range(len(queries))
    dense = np.einsum("nd,nd->n", query_dense, passage_dense)
    sparse = _array(
        sparse_scores(query_sparse[row], passage_sparse[row : row + 1])[0] for row in rows
    )
    multivector = _array(maxsim(query_vectors[row], passage_vectors[row]) for row in rows)
    w1, w2, w3 = weights
    return {
        "dense": dense,
        "sparse": sparse,
        "multivector": multivector,
        "hybrid": (w1 * dense + w2 * sparse) / (w1 + w2),
        "all": (w1 * dense + w2 * sparse + w3 * multivector) / (w1 + w2 + w3),
    }


def _legs(embeddings: Embeddings) -> tuple[FloatArray, SparseVectors, MultiVectors]:
    assert embeddings.dense is not None
    assert embeddings.sparse is not None
    assert embeddings.multivector is not None
    return embeddings.dense, embeddings.sparse, embeddings.multivector


def _array(scores: Iterable[float]) -> FloatArray:
    return np.fromiter(scores, np.float32)
