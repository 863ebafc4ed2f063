"""Lexical weights: the vectorised form equals a loop over tokens."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m3connect.inference.lexical import lexical_weights

tokens = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.integers(0, 9) | st.integers(249_990, 250_001),
        st.floats(0, 1, width=32),
    ),
    max_size=60,
)


@given(tokens)
def test_equals_a_loop_over_tokens(drawn):
    """Each term of a text has its largest weight; weights of 0 are left out."""
    expected = [{} for _ in range(5)]
    for row, term, weight in drawn:
        if weight > 0:
            expected[row][term] = max(weight, expected[row].get(term, 0))
    rows = np.array([row for row, _, _ in drawn], np.int64)
    terms = np.array([term for _, term, _ in drawn], np.int64)
    weights = np.array([weight for _, _, weight in drawn], np.float32)
    found = lexical_weights(rows, terms, weights, 5)
    assert len(found) == 5
    assert [
        dict(zip(found[row].indices.tolist(), found[row].values.tolist(), strict=True))
        for row in range(5)
    ] == expected
