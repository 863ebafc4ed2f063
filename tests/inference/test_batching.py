"""Batches by token budget."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m3connect.inference.batching import halves, plan

lengths = st.lists(st.integers(1, 300), max_size=50)


@given(lengths, st.integers(1, 600), st.booleans())
def test_every_text_is_in_one_batch_within_the_budget(drawn, budget, pads):
    """Batches partition the texts; only a text that is alone may exceed the budget."""
    sizes = np.array(drawn, np.int64)
    batches = plan(sizes, budget, pads=pads)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(drawn)))
    for number, batch in enumerate(batches):
        tokens, longest = sizes[batch].sum(), sizes[batch].max()
        assert len(batch) == 1 or tokens <= budget
        assert len(batch) == 1 or not pads or len(batch) * longest <= 2 * budget
        if number + 1 < len(batches):  # one text more would not have fitted
            too_many = tokens + sizes[batches[number + 1][0]] > budget
            assert too_many or (pads and (len(batch) + 1) * longest > 2 * budget)


@given(lengths, st.integers(1, 600), st.booleans())
def test_the_longest_come_first(drawn, budget, pads):
    """No text is longer than one in an earlier batch: the most memory is taken at once."""
    sizes = np.array(drawn, np.int64)
    ordered = [int(sizes[row]) for batch in plan(sizes, budget, pads=pads) for row in batch]
    assert ordered == sorted(drawn, reverse=True)


@given(st.lists(st.integers(1, 300), min_size=2, max_size=50))
def test_halves_are_the_batch_and_none_is_empty(drawn):
    """In order, and the larger one exceeds half of the tokens by less than one text."""
    sizes = np.array(drawn, np.int64)
    first, second = halves(sizes)
    assert [*first, *second] == list(range(len(drawn)))
    assert min(len(first), len(second)) > 0
    larger = max(sizes[first].sum(), sizes[second].sum())
    assert larger - sizes.sum() / 2 <= sizes.max()
