"""Two runs into one collection at once, on a real server: the next one repairs what they leave."""

import pytest

from m3connect_milvus import connect
from tests.ingestion.overlap import check_some_orders
from tests.servers.milvus.server import TOKEN


@pytest.mark.live
def test_some_orders_of_two_runs_are_repaired_by_the_next(live_server):
    """Whatever the order of their writes, and wherever they died."""

    def opened(name):
        return connect(collection=f"overlap_{name}", url=live_server.url, api_key=TOKEN, timeout=20)

    check_some_orders(opened, 0, 4)
