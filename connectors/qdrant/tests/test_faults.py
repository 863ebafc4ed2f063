"""Broken connections to the stand-in for a Qdrant server, over REST."""

import pytest

from m3connect_qdrant.connector import QdrantConnector
from m3connect_qdrant.engine.client import ServerEngine
from tests.servers.faults import QUICK, FaultTests
from tests.servers.proxy import FaultProxy


class TestRest(FaultTests):
    @pytest.fixture
    def proxied(self, rest_url):
        port = int(rest_url.rsplit(":", 1)[1])
        with FaultProxy("127.0.0.1", port) as proxy:
            engine = ServerEngine(
                "docs", proxy.url, api_key=None, timeout=5, prefer_grpc=False, grpc_port=1
            )
            with QdrantConnector("docs", engine, policy=QUICK) as connector:
                yield connector, proxy
