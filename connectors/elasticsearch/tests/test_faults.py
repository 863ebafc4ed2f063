"""Broken connections to a real Elasticsearch node."""

import pytest

from m3connect_elasticsearch import connect
from tests.servers.faults import QUICK, FaultTests
from tests.servers.proxy import FaultProxy


@pytest.mark.live
class TestNode(FaultTests):
    @pytest.fixture
    def proxied(self, node, collection):
        port = int(node.url.rsplit(":", 1)[1])
        with (
            FaultProxy("127.0.0.1", port) as proxy,
            connect(collection=collection, url=proxy.url, timeout=20, retry=QUICK) as connector,
        ):
            yield connector, proxy
