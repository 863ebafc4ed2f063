"""Numpy scores against the formulas written out in plain Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m3connect.searching import scoring
from m3connect.types import MultiVectors, SparseVector, SparseVectors

seeds = st.integers(0, 2**32 - 1)


def sparse(rng, size):
    """A random sparse vector of up to ``size`` terms out of 12."""
    terms = rng.choice(12, rng.integers(0, size + 1), replace=False).astype(np.uint32)
    return SparseVector(terms, rng.random(len(terms)).astype(np.float32))


@given(seeds)
def test_sparse_scores_are_sums_over_shared_terms(seed):
    """Every passage's score equals the double loop over terms."""
    rng = np.random.default_rng(seed)
    query, rows = sparse(rng, 6), [sparse(rng, 6) for _ in range(5)]
    expected = [
        sum(
            float(wq) * float(wp)
            for tq, wq in zip(query.indices, query.values, strict=True)
            for tp, wp in zip(row.indices, row.values, strict=True)
            if tq == tp
        )
        for row in rows
    ]
    scores = scoring.sparse_scores(query, SparseVectors.from_rows(rows))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    for row, score in zip(rows, scores, strict=True):
        parts = scoring.sparse_contributions(query, row)
        assert np.isclose(sum(parts.values()), score, atol=1e-6)


@given(seeds)
def test_maxsim_is_the_mean_of_best_matches(seed):
    """Every passage's score equals the loops of the formula, negative similarities included."""
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(rng.integers(1, 4), 3)).astype(np.float32)
    rows = [-np.abs(rng.normal(size=(rng.integers(1, 5), 3))).astype(np.float32) for _ in range(4)]
    expected = [sum(max(float(q @ p) for p in row) for q in query) / len(query) for row in rows]
    scores = scoring.maxsim_scores(query, MultiVectors.from_rows(rows))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose([scoring.maxsim(query, row) for row in rows], expected, atol=1e-5)
