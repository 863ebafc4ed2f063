"""Connectors to test: on Milvus Lite, and on Milvus Lite that calls itself a server."""

import pytest

from connectors.milvus.tests.masquerade import masquerade
from m3connect_milvus import connect


@pytest.fixture
def lite(tmp_path):
    """A connector on a fresh Milvus Lite."""
    with connect(collection="test", path=tmp_path / "milvus.db") as connector:
        yield connector


@pytest.fixture
def server(tmp_path):
    """A connector on something that says it is Milvus 2.6.4, and what is sent to it."""
    with (
        masquerade(tmp_path) as (url, sent),
        connect(collection="test", url=url) as connector,
    ):
        yield connector, sent
