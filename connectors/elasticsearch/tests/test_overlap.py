"""Two runs into one index at once, on a real node: the next one repairs what they leave."""

import uuid

import pytest

from m3connect_elasticsearch import connect
from tests.ingestion.overlap import check_some_orders


@pytest.mark.live
@pytest.mark.parametrize("seed", range(3))
def test_some_orders_of_two_runs_are_repaired_by_the_next(node, seed):
    """Whatever the order of their writes, and wherever they died."""
    prefix = f"overlap-{uuid.uuid4().hex}-"
    check_some_orders(lambda name: connect(collection=prefix + name, url=node.url), seed, 4)
