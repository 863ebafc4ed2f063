"""The conformance suite on Milvus Lite, and in the form that servers are written to and asked."""

import pytest

from connectors.milvus.tests.masquerade import masquerade
from m3connect.testing.conformance import ConnectorConformance
from m3connect_milvus import connect


@pytest.mark.slow
class TestLite(ConnectorConformance):
    @pytest.fixture
    def connector(self, tmp_path):
        with connect(collection="conformance", path=tmp_path / "milvus.db") as connector:
            yield connector

    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: connect(collection="conformance", path=tmp_path / "milvus.db")


@pytest.mark.live
class TestServerForm(ConnectorConformance):
    """Arrays of facts, HNSW, requests by URL; Milvus Lite evaluates them."""

    @pytest.fixture
    def url(self, tmp_path):
        with masquerade(tmp_path) as (url, _):
            yield url

    @pytest.fixture
    def connector(self, url):
        with connect(collection="conformance", url=url, struct_array=False) as connector:
            yield connector

    @pytest.fixture
    def reopen(self, url):
        return lambda: connect(collection="conformance", url=url)
