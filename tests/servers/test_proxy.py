"""The fault proxy does to an exchange what it is told to, once, and nothing else."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.servers.proxy import Answer, Cut, Delay, Drop, FaultProxy, HalfClose, Truncate

BODY = b"0123456789" * 20_000


class Handler(BaseHTTPRequestHandler):
    """Answers every POST with the body it got."""

    protocol_version = "HTTP/1.1"
    served: list[int]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.served.append(len(body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self):
        try:
            super().handle()
        except OSError:
            return  # the client was cut off, as it should be

    def log_message(self, *args):
        """Silence."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.served = []  # type: ignore[attr-defined]
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server):
    with FaultProxy(*server.server_address) as proxy:
        yield proxy


def post(proxy, connection=None, timeout=5.0):
    own = connection or http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
    try:
        own.request("POST", "/", BODY)
        answer = own.getresponse()
        return answer.status, answer.read()
    finally:
        if connection is None:
            own.close()


def test_without_faults_everything_passes(proxy, server):
    """Requests of one connection and of many reach the server and come back whole."""
    kept = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    for connection in (kept, kept, None):
        assert post(proxy, connection) == (200, BODY)
    kept.close()
    assert server.served == [len(BODY)] * 3
    assert proxy.exchanges == 3


def test_drop_keeps_the_request_from_the_server(proxy, server):
    """A dropped request is reset and not served; the next one is."""
    proxy.spoil(Drop())
    with pytest.raises(OSError):
        post(proxy)
    assert (server.served, proxy.left) == ([], 0)
    assert post(proxy) == (200, BODY)


@pytest.mark.parametrize("after", [0, 10, 100_000])
def test_cut_resets_within_the_answer(proxy, server, after):
    """A cut exchange was served, but its answer ends in a reset."""
    proxy.spoil(Cut(after))
    with pytest.raises(ConnectionResetError):
        post(proxy)
    assert server.served == [len(BODY)]
    assert post(proxy) == (200, BODY)


def test_truncate_ends_within_the_answer(proxy, server):
    """A truncated answer is short by the end of the stream."""
    proxy.spoil(Truncate(1000), Truncate(0))
    with pytest.raises(http.client.IncompleteRead):
        post(proxy)
    with pytest.raises(http.client.RemoteDisconnected):
        post(proxy)
    assert server.served == [len(BODY)] * 2


def test_half_close_ends_the_stream_without_an_answer(proxy, server):
    """The client sees the end where the answer should start, and may try again."""
    proxy.spoil(HalfClose())
    with pytest.raises(http.client.RemoteDisconnected):
        post(proxy)
    assert post(proxy) == (200, BODY)
    assert server.served == [len(BODY)] * 2


def test_delay_holds_the_answer_back(proxy, server):
    """A client that waits less than the delay times out although it was served."""
    proxy.spoil(Delay(0.5), Delay(0.05))
    with pytest.raises(TimeoutError):
        post(proxy, timeout=0.1)
    assert post(proxy) == (200, BODY)
    assert server.served == [len(BODY)] * 2


def test_answer_replaces_the_server(proxy, server):
    """An HTTP answer of our own comes instead of the server's, after the whole request."""
    proxy.spoil(Answer(429, {"Retry-After": "7"}, b"slow down"), Answer(503))
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    connection.request("POST", "/", BODY)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert answer.read() == b"slow down"
    connection.close()
    assert post(proxy) == (503, b"")
    assert server.served == []
    assert post(proxy) == (200, BODY)


def test_faults_meet_the_exchanges_of_a_kept_connection(proxy, server):
    """On a connection that is kept open, each request is an exchange of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    assert post(proxy, connection) == (200, BODY)
    proxy.spoil(Cut(5))
    with pytest.raises(ConnectionResetError):
        post(proxy, connection)
    connection.close()
    assert len(server.served) == 2


def test_a_server_that_is_gone_resets_the_client(server):
    """Without a server behind it, the proxy resets what it accepts."""
    with FaultProxy("127.0.0.1", 1) as proxy, pytest.raises(OSError):
        post(proxy)
