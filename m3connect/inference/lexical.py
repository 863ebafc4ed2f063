"""From a weight per token to a weight per term (M3 paper, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3connect.types import SparseVectors


def lexical_weights(
    rows: NDArray[np.int64], terms: NDArray[np.int64], weights: NDArray[Any], count: int
) -> SparseVectors:
    """The largest weight of each term in each text; terms without a positive weight are left out.

    Args:
        rows: ``[T]`` the text each token belongs to.
        terms: ``[T]`` its term id.
        weights: ``[T]`` its weight.
        count: number of texts, N.

    Returns:
        N rows, terms rising within each.

    >>> of = lambda *values: np.array(values)
    >>> lexical_weights(of(1, 1, 1, 0), of(5, 7, 5, 5), of(0.25, 0.5, 0.75, 0.0), 2)[1]
    SparseVector(indices=array([5, 7], dtype=uint32), values=array([0.75, 0.5 ], dtype=float32))
    """
    kept = weights > 0
    keys = rows[kept] << 32 | terms[kept]
    order = np.argsort(keys)
    keys, weights = keys[order], weights[kept][order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    values = np.maximum.reduceat(weights, starts) if len(starts) else weights
    indptr = np.searchsorted(keys[starts] >> 32, np.arange(count + 1))
    return SparseVectors(
        indptr.astype(np.int64),
        (keys[starts] & 0xFFFFFFFF).astype(np.uint32),
        values.astype(np.float32, copy=False),
    )
