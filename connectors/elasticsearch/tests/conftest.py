"""What the tests talk to: a real node, marked ``live``, and a fake server that says anything."""

import json
import os
import threading
import uuid
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from m3connect.connecting.retry import RetryPolicy
from m3connect.testing import corpus
from m3connect_elasticsearch import connect
from m3connect_elasticsearch.mapping import Layout, mappings
from tests.servers.elasticsearch.node import NEWEST, live_node

VERSION = os.environ.get("M3CONNECT_TEST_ELASTICSEARCH", NEWEST).partition("@")[0]


def pytest_report_header():
    return f"elasticsearch: live tests run on a node of version {VERSION}"


# ----------------------------------------------------------------------------------- a real node


@pytest.fixture(scope="session")
def strained_node():
    """A node beside the shared one, with little room for requests, that may be mistreated."""
    small = {"http.max_content_length": "1mb", "indexing_pressure.memory.limit": "900kb"}
    with live_node(VERSION, small) as running:
        yield running


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
    """Opens the collection, as often as it is called; closes what it opened."""
    made = []

    def open_it(**options):
        made.append(connect(collection=collection, url=node.url, **options))
        return made[-1]

    yield open_it
    for connector in made:
        connector.close()


# -------------------------------------------------------------------------------- a fake server


class FakeServer(ThreadingHTTPServer):
    """Answers as Elasticsearch does, or as it is told to.

    ``says(method, path, *answers)`` gives the next answers to a route, each ``(status, body)`` or
    ``(status, body, headers)``; the last one is kept. ``asked`` is every request, in order, as
    ``(method, path, body)``.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = []
        self.answers = {}
        self.says("GET", "/", (200, {"version": {"number": "9.5.3"}}))
        self.licensed("basic")
        self.holds(Layout(corpus.SCHEMA, "int8_hnsw", rank_vectors=False))
        self.says("POST", "/test/_refresh", (200, {}))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, method, path, *answers):
        self.answers[method, path] = deque(answers)

    def licensed(self, type_, status="active"):
        self.says("GET", "/_license", (200, {"license": {"type": type_, "status": status}}))

    def holds(self, layout):
        self.says("GET", "/test/_mapping", (200, {"test": {"mappings": mappings(layout)}}))

    def bodies(self, method, path):
        """What was sent to a route; several JSON lines as a list."""
        return [body for m, p, body in self.asked if (m, p) == (method, path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        length = int(self.headers.get("content-length") or 0)
        text = self.rfile.read(length).decode()
        lines = [json.loads(line) for line in text.splitlines()]
        path = self.path.split("?")[0]
        asked = lines if "ndjson" in self.headers.get("content-type", "") else (lines or [None])[0]
        self.server.asked.append((self.command, path, asked))  # type: ignore[attr-defined]
        waiting = self.server.answers.get((self.command, path))  # type: ignore[attr-defined]
        if waiting is None:
            waiting = deque([(404, {"error": {"type": "no such route in the fake"}})])
        status, body, *headers = waiting.popleft() if len(waiting) > 1 else waiting[0]
        self._send(status, body, headers[0] if headers else {})

    def _send(self, status, body, headers):
        kind = "text/html" if isinstance(body, str) else "application/json"
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "X-Elastic-Product": "Elasticsearch",
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 - http.server's names

    def log_message(self, *args):
        pass


@pytest.fixture
def fake():
    """A fake server that holds the collection ``test``."""
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def to_fake(fake):
    """Opens the fake server's collection, with a patience of milliseconds."""
    made = []

    def open_it(**options):
        policy = RetryPolicy(attempts=4, initial=0.001, maximum=0.01)
        made.append(connect(collection="test", url=fake.url, retry=policy, **options))
        return made[-1]

    yield open_it
    for connector in made:
        connector.close()
