"""Fusion: hand-computed examples and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.searching import fusion
from m3connect.types import Leg, Query, Rrf, SparseVector, Weighted

RANKINGS: dict[Leg, list[str]] = {"dense": ["a", "b", "c"], "sparse": ["c", "d"]}
SCORES: dict[Leg, dict[str, float]] = {
    "dense": {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.1},
    "sparse": {"a": 0.0, "b": 0.0, "c": 0.5, "d": 0.4},
    "multivector": {"a": 0.2, "b": 0.6, "c": 0.4, "d": 0.5},
}


def query(**options):
    """A query with all three legs; the vectors do not matter here."""
    return Query(
        dense=np.ones(1, np.float32),
        sparse=SparseVector(np.array([1], np.uint32), np.ones(1, np.float32)),
        **options,
    )


def test_rrf_by_hand():
    """1/61 for rank 1, halves and doubles by weight."""
    fused = fusion.fuse(Rrf(dense=1, sparse=2), RANKINGS, SCORES)
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 2 / 61, "d": 2 / 62})


def test_weighted_sum_rescores_what_only_one_leg_found():
    """d is outside the dense candidates, and still counts its true dense score."""
    fused = fusion.fuse(Weighted(1, 0.3), RANKINGS, SCORES)
    assert fused["d"] == pytest.approx(0.1 + 0.3 * 0.4)
    assert fused["a"] == pytest.approx(0.9)


def test_weighted_sum_without_rescoring_counts_zero():
    """As in the paper's scripts, a leg that did not find d gives it nothing."""
    fused = fusion.fuse(Weighted(1, 0.3, rescore=False), RANKINGS, SCORES)
    assert fused["d"] == pytest.approx(0.3 * 0.4)
    assert fused["c"] == pytest.approx(0.7 + 0.3 * 0.5)


def test_all_three_legs_by_hand():
    """The multi-vector scores the union of the candidates."""
    late = query(multivector=np.ones((1, 1), np.float32), fusion=Weighted(1, 0.3, 1))
    combined = fusion.combine(late, RANKINGS, SCORES)
    assert combined["c"] == pytest.approx(0.7 + 0.15 + 0.4)
    ranks = query(multivector=np.ones((1, 1), np.float32), fusion=Rrf(k=0))
    combined = fusion.combine(ranks, RANKINGS, SCORES)
    assert combined["b"] == pytest.approx(1 / 2 + 1 / 1)  # dense rank 2, late rank 1


def test_rerank_orders_the_best_by_maxsim_alone():
    """The fused best two get their MaxSim scores."""
    late = query(multivector=np.ones((1, 1), np.float32), fusion=Weighted(1, 0.3), rerank=2)
    assert fusion.combine(late, RANKINGS, SCORES) == {"a": 0.2, "c": 0.4}


def test_ties_break_by_id():
    """Equal scores are ordered by id."""
    assert fusion.top({"b": 1.0, "c": 1.0, "a": 1.0}, 2) == ["a", "b"]


rankings = st.lists(st.permutations("abcdef"), min_size=2, max_size=2)


@given(rankings, st.floats(0, 100), st.floats(0.1, 2), st.floats(0.1, 2))
def test_rrf_does_not_depend_on_the_order_of_legs(both, k, w1, w2):
    """Swapping the legs with their weights changes nothing."""
    one = fusion.rrf({"dense": both[0], "sparse": both[1]}, {"dense": w1, "sparse": w2}, k)
    two = fusion.rrf({"sparse": both[1], "dense": both[0]}, {"sparse": w2, "dense": w1}, k)
    assert one == pytest.approx(two)


@given(rankings, st.floats(0, 100))
def test_rrf_never_punishes_a_better_rank(both, k):
    """An id that is ahead in both rankings is ahead in the fusion."""
    fused = fusion.rrf({"dense": both[0], "sparse": both[1]}, {"dense": 1, "sparse": 1}, k)
    for x in "abcdef":
        for y in "abcdef":
            if all(ranking.index(x) < ranking.index(y) for ranking in both):
                assert fused[x] > fused[y]
