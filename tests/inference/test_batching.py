"""Batches by token budget."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m3connect.inference.batching import plan

lengths = st.lists(st.integers(1, 300), max_size=50)


@given(lengths, st.integers(1, 600))
def test_every_text_is_in_one_batch_within_the_budget(drawn, budget):
    """Batches partition the texts; only a text that is alone may exceed the budget."""
    sizes = np.array(drawn, np.int64)
    batches = plan(sizes, budget)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(drawn)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= budget


@given(lengths, st.integers(1, 600))
def test_the_longest_come_first(drawn, budget):
    """No text is longer than one in an earlier batch: the most memory is taken at once."""
    sizes = np.array(drawn, np.int64)
    ordered = [int(sizes[row]) for batch in plan(sizes, budget) for row in batch]
    assert ordered == sorted(drawn, reverse=True)
