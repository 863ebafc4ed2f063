"""What the tests talk to: Milvus Lite, Milvus Lite that calls itself a server, a real old server."""

import os
from importlib.metadata import version

import pytest

from connectors.milvus.tests.masquerade import masquerade
from m3connect_milvus import connect
from tests.servers.milvus.server import PACKAGE, Server, ServerUnavailable


def pytest_report_header():
    return f"milvus: Milvus Lite {version('milvus-lite')}; live tests run on {PACKAGE} (PyPI)"


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


@pytest.fixture(scope="session")
def live_server():
    """A real 2.3.5; where there can be none the tests are skipped, and in CI they fail."""
    try:
        with Server() as running:
            yield running
    except ServerUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
