"""Elasticsearch 8.19: with its own client everything works, with client 9 the error says so."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from m3connect.errors import Unsupported
from m3connect_elasticsearch import connect
from tests.servers.elasticsearch.node import BUILD, OLDER, live_node

pytestmark = pytest.mark.live

CLIENT = ("elasticsearch==8.19.3", "elastic-transport==8.19.0")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def client_8():
    """A folder with the client of version 8; where it cannot be fetched the test is skipped."""
    folder = BUILD / "client-8.19.3"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        done = subprocess.run([*pip, folder, *CLIENT], capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"{CLIENT[0]} cannot be installed: {done.stderr[-500:]}"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return folder


@pytest.fixture(scope="module")
def older():
    """The one node of version 8 of a run."""
    with live_node(OLDER) as running:
        yield running


def test_client_9_on_server_8_is_explained(older):
    """The first call says which client to install."""
    if version("elasticsearch")[0] != "9":
        pytest.skip("the client here is not of version 9")
    with (
        connect(collection="test", url=older.url) as connector,
        pytest.raises(Unsupported, match=r"pip install 'elasticsearch>=8\.19,<9'"),
    ):
        _ = connector.capabilities


def test_server_8_with_client_8_passes_everything(client_8, older):
    """The conformance suite and the live tests, in a process that sees client 8."""
    tests = ["test_conformance.py", "test_live.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *(str(HERE / name) for name in tests)],
        env={
            **os.environ,
            "PYTHONPATH": str(client_8),
            "M3CONNECT_TEST_ELASTICSEARCH": f"{OLDER}@{older.url}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout or not os.environ.get("CI")
