"""The scores of the M3 paper in numpy: the one definition for oracle, client and evaluation.

``model/scores.py`` has the same in torch for losses; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3connect.types import (
    Embeddings,
    FloatArray,
    Leg,
    MultiVectors,
    Query,
    SparseVector,
    SparseVectors,
    TokenArray,
)


def dense_scores(query: FloatArray, passages: FloatArray) -> FloatArray:
    """Inner products ``<e_q, e_p>`` (M3 paper, section 3.2).

    Args:
        query: ``[D]``.
        passages: ``[N, D]``.

    Returns:
        ``float32 [N]``.

    >>> dense_scores(np.float32([0.6, 0.8]), np.float32([[1, 0], [0, 1]])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    return np.asarray(passages @ query, dtype=np.float32)


def sparse_scores(query: SparseVector, passages: SparseVectors) -> FloatArray:
    """``sum of w_qt * w_pt over the terms t of both`` (M3 paper, section 3.2).

    Returns:
        ``float32 [N]``; 0 where no term is shared.

    >>> query = SparseVector(np.uint32([7, 9]), np.float32([0.5, 1.0]))
    >>> sparse_scores(query, SparseVectors.from_rows([{7: 0.5, 8: 1.0}, {8: 1.0}])).tolist()
    [0.25, 0.0]
    """
    order = np.argsort(query.indices)
    terms, weights = query.indices[order], query.values[order]
    if not len(terms) or not len(passages.indices):
        return np.zeros(len(passages), np.float32)
    places = np.minimum(np.searchsorted(terms, passages.indices), len(terms) - 1)
    shared = terms[places] == passages.indices
    products = np.where(shared, weights[places] * passages.values, 0)
    rows = np.repeat(np.arange(len(passages)), np.diff(passages.indptr))
    return np.bincount(rows, products, len(passages)).astype(np.float32)


def sparse_contributions(query: SparseVector, passage: SparseVector) -> dict[int, float]:
    """What each shared term adds to the sparse score, largest first.

    >>> query = SparseVector(np.uint32([7, 9]), np.float32([0.5, 1.0]))
    >>> sparse_contributions(query, SparseVector(np.uint32([9, 7]), np.float32([0.25, 1.0])))
    {7: 0.5, 9: 0.25}
    """
    common, in_query, in_passage = np.intersect1d(
        query.indices, passage.indices, return_indices=True
    )
    products = query.values[in_query] * passage.values[in_passage]
    order = np.argsort(-products, kind="stable")
    return {int(common[i]): float(products[i]) for i in order}


def maxsim(query: TokenArray, passage: TokenArray) -> float:
    """Late interaction: the mean over query tokens of the best passage token's inner product.

    This is ``s_mul`` of the M3 paper, section 3.2, with its 1/N; databases that sum over the
    query tokens must be divided by their number.

    Args:
        query: ``[n, C]``.
        passage: ``[m, C]``, at least one token.

    >>> maxsim(np.float32([[1, 0], [0, 1]]), np.float32([[0.6, 0.8], [0.8, 0.6]]))
    0.800000011920929
    """
    similarities = query.astype(np.float32) @ passage.astype(np.float32).T
    return float(similarities.max(axis=1).mean())


def maxsim_scores(query: TokenArray, passages: MultiVectors) -> FloatArray:
    """:func:`maxsim` of one query with N passages, each with at least one token.

    Returns:
        ``float32 [N]``.

    >>> two = MultiVectors.from_rows([np.float32([[1, 0]]), np.float32([[0, 1], [-1, 0]])])
    >>> maxsim_scores(np.float32([[1, 0]]), two).tolist()
    [1.0, 0.0]
    """
    if len(passages) == 0:
        return np.zeros(0, np.float32)
    # in this order, for BLAS would lay out the passages anew for a product of few rows
    similarities = passages.vectors.astype(np.float32, copy=False) @ query.astype(np.float32).T
    best = np.maximum.reduceat(similarities, passages.offsets[:-1], axis=0)
    return np.asarray(best.mean(axis=1), dtype=np.float32)


def leg_scores(
    query: Query, ids: Sequence[str], passages: Embeddings
) -> dict[Leg, dict[str, float]]:
    """Every leg's score of the passages with these ids, for the legs that both sides have."""
    scores: dict[Leg, FloatArray] = {}
    if query.dense is not None and passages.dense is not None:
        scores["dense"] = dense_scores(query.dense, passages.dense)
    if query.sparse is not None and passages.sparse is not None:
        scores["sparse"] = sparse_scores(query.sparse, passages.sparse)
    if query.multivector is not None and passages.multivector is not None:
        scores["multivector"] = maxsim_scores(query.multivector, passages.multivector)
    return {leg: dict(zip(ids, column.tolist(), strict=True)) for leg, column in scores.items()}
