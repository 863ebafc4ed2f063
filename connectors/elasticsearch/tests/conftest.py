"""A real node for the tests marked ``live``; which version it is, is said in the header."""

import os
import uuid

import pytest

from m3connect.retry import RetryPolicy
from m3connect_elasticsearch import connect
from tests.servers.elasticsearch.node import NEWEST, Node, NodeUnavailable

VERSION = os.environ.get("M3CONNECT_TEST_ELASTICSEARCH", NEWEST)
QUICK = RetryPolicy(attempts=6, initial=0.01, maximum=0.2)


def pytest_report_header():
    return f"elasticsearch: {VERSION}"


@pytest.fixture(scope="session")
def node():
    """A running node; where there can be none, the test is skipped, and in CI it fails."""
    try:
        with Node(VERSION) as running:
            yield running
    except NodeUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def collection(node):
    """The name of a collection that is dropped after the test."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    with connect(collection=name, url=node.url) as connector:
        client = connector._server.client
        client.options(ignore_status=404).indices.delete(index=name)


@pytest.fixture
def opened(node, collection):
    """Opens the collection: ``opened()``, again and again."""
    made = []

    def open_it(**options):
        made.append(connect(collection=collection, url=node.url, **options))
        return made[-1]

    yield open_it
    for connector in made:
        connector.close()
