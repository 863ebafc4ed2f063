"""Two runs into one collection at once, over the wire: the next one repairs what they leave."""

from __future__ import annotations

import pytest

from m3connect_qdrant import connect
from tests.ingestion.overlap import check_some_orders


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_some_orders_of_two_runs_are_repaired_by_the_next(rest_url: str, seed: int) -> None:
    """Whatever the order of their writes, and wherever they died; the server is a stand-in."""
    check_some_orders(
        lambda name: connect(collection=name, url=rest_url, prefer_grpc=False), seed, 3
    )
