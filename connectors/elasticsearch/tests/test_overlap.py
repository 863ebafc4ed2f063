"""Two runs into one index at once, on a real node: the next one repairs what they leave."""

import pytest

from m3connect.filters import Exists
from m3connect.stores.memory import MemoryConnector
from tests.ingestion.overlap import content, orders, run, source, writes_of


@pytest.mark.live
@pytest.mark.parametrize("seed", range(3))
def test_some_orders_of_two_runs_are_repaired_by_the_next(opened, seed):
    """Each run and its reads have a connection of their own, as two processes have."""
    first, second = source(1, (5, 2, 7)), source(2, (3, 4, 1))
    expected = MemoryConnector(collection="expected")
    run(second, expected)
    setup, one, other = opened(), opened(), opened()
    run(source(0, (2, 3, 1)), setup)
    begun, ended = writes_of(first, one), writes_of(second, other)
    for writes in orders(begun, ended, seed, 4):
        for write in writes:
            write(one if write in begun else other)
        with opened() as later:
            run(second, later)
            assert content(later) == content(expected)
            assert run(second, later) == 0
            later.delete(Exists("document_id"))
