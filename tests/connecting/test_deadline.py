"""Requests end after the stated seconds, on every engine and however slowly an answer drips."""

import contextlib
import socket
import threading

import pytest

from m3connect.connecting import deadline
from m3connect.connecting.deadline import within
from m3connect.connecting.registry import connect
from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import TransientError
from m3connect.inference.remote import RemoteEncoder
from m3connect.inference.reranking import RerankService

FOR_EVER = 600  # bytes, one in 50 milliseconds


@pytest.fixture
def dripping():
    """The port of a server that answers each connection with a byte of HTTP now and then."""
    closing = threading.Event()

    def drip(client):
        head = b"HTTP/1.1 200 OK\r\nX-Elastic-Product: Elasticsearch\r\nX: "
        with client, contextlib.suppress(OSError):
            for byte in head + b"x" * FOR_EVER:
                client.sendall(bytes([byte]))
                if closing.wait(0.05):
                    return

    def accept():
        while not closing.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = listener.accept()
                threading.Thread(target=drip, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        closing.set()
        thread.join()


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("qdrant", {"prefer_grpc": False}),
        ("qdrant", {"prefer_grpc": True}),
        ("milvus", {}),
        ("elasticsearch", {}),
    ],
    ids=["qdrant-rest", "qdrant-grpc", "milvus", "elasticsearch"],
)
def test_a_server_that_drips_is_given_up(dripping, target, options):
    """Long before its answer ends the request is a transient failure."""
    if options.get("prefer_grpc"):
        options = {**options, "grpc_port": dripping}
    url = f"http://127.0.0.1:{dripping}"
    once = RetryPolicy(attempts=1)
    with (
        connect(target, collection="docs", url=url, timeout=1, retry=once, **options) as connector,
        pytest.raises(TransientError),
    ):
        connector.count()


def test_a_service_that_drips_is_given_up(dripping):
    """What encodes or reranks at an address has the databases' patience."""
    url, once = f"http://127.0.0.1:{dripping}", RetryPolicy(attempts=1)
    with pytest.raises(TransientError, match="no whole answer within 1 s"):
        RemoteEncoder(url, timeout=1, policy=once)
    with pytest.raises(TransientError, match="no whole answer within 1 s"):
        RerankService(url, timeout=1, policy=once)("keys", ["keys are rotated"])


def test_what_a_request_returns_or_raises_is_its_own():
    """In time, a result and an error arrive as they are, a time-out of its own included."""

    def fail(error):
        raise error

    assert within(5, divmod, 7, 2) == (3, 1)
    for error in (ValueError("bad"), TimeoutError("its own"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            within(5, fail, error)
        assert caught.value is error


def test_what_takes_longer_is_named(monkeypatch):
    """The message has the seconds that were stated."""
    monkeypatch.setattr(deadline, "GRACE", 0.0)
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no whole answer within 0\.01 s"):
        within(0.01, never.wait, 60)
    never.set()
