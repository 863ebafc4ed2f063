"""Every exception of the drivers becomes one of ours, of the class that says what to do."""

from __future__ import annotations

import inspect
import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from pydantic import ValidationError
from qdrant_client import models
from qdrant_client.common import client_exceptions
from qdrant_client.http import exceptions

from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    ConnectorError,
    InvalidFilter,
    PermanentError,
    RequestTooLarge,
    TransientError,
    Unsupported,
    WritesRefused,
)
from m3connect.filters import F
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import check_records
from m3connect_qdrant import QdrantConnector
from m3connect_qdrant.engine.client import ServerEngine
from m3connect_qdrant.engine.client_errors import translate
from m3connect_qdrant.engine.edge import EdgeEngine
from m3connect_qdrant.errors import CollectionExists, translated

RATE = (
    "Rate limiting exceeded: Write rate limit exceeded: Operation requires 1 tokens but only 0.0 "
    "were available. Retry after 30s"
)
CAPACITY = "request larger than rate limiter capacity, please try to split your request"
SIZE = "JSON payload (44768612 bytes) is larger than allowed (limit: 33554432 bytes)."
TIMEOUT = (
    "Service internal error: 1 of 1 read operations failed:\n  Timeout error: Operation 'Search' "
    "timed out after 999ms"
)
STORAGE = "Insufficient storage: Disk usage is at 78%"
INDEX = 'Index required but not found for "a" of one of the following types: [keyword]'
STRICT = 'Limit exceeded 6 > 5 for "upsert limit". Help: Reduce the number of points'
UNTRUSTED = (  # as grpcio 1.85 said of a self-signed one
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:6334: Tls handshake "
    "failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"
    "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate: OK"
)
MISSING = "Not found: Collection `x` doesn't exist!"
DIM = "Vector dimension error: expected dim: 64, got 32 for vector 'dense'"


def told(text: str) -> bytes:
    return json.dumps({"status": {"error": text}, "time": 0.0}).encode()


STATUSES: list[tuple[int, bytes, type[ConnectorError]]] = [
    (401, b"Must provide an API key or an Authorization bearer token", AuthError),
    (401, b"Invalid API key or JWT", AuthError),
    (403, b"ExpiredSignature", AuthError),
    (403, told("Forbidden: Global manage access is required"), AuthError),
    (404, told(MISSING), CollectionNotFound),
    (404, b"", Unsupported),
    (408, b"", TransientError),
    (409, told("Wrong input: Collection `x` already exists!"), CollectionExists),
    (400, told(DIM), PermanentError),
    (400, told(SIZE), RequestTooLarge),
    (400, told(STRICT), RequestTooLarge),
    (400, told(INDEX), InvalidFilter),
    (413, b"<html>413 Request Entity Too Large</html>", RequestTooLarge),
    (422, told("Total size of all vectors (1048576) must be less than 1048576"), PermanentError),
    (429, told(CAPACITY), RequestTooLarge),
    (429, b"slow down", TransientError),
    (500, told(TIMEOUT), TransientError),
    (500, b"", TransientError),
    (502, b"<html>502 Bad Gateway</html>", TransientError),
    (503, b"", TransientError),
    (504, b"", TransientError),
    (507, told(STORAGE), WritesRefused),
    (302, b"", PermanentError),
]
CODES: list[tuple[grpc.StatusCode, str, type[ConnectorError]]] = [
    (grpc.StatusCode.UNAUTHENTICATED, "Invalid API key or JWT", AuthError),
    (grpc.StatusCode.PERMISSION_DENIED, "ExpiredSignature", AuthError),
    (grpc.StatusCode.UNAVAILABLE, UNTRUSTED, PermanentError),
    (grpc.StatusCode.NOT_FOUND, MISSING, CollectionNotFound),
    (grpc.StatusCode.ALREADY_EXISTS, "Wrong input: it exists", CollectionExists),
    (grpc.StatusCode.INVALID_ARGUMENT, DIM, PermanentError),
    (grpc.StatusCode.INVALID_ARGUMENT, STRICT, RequestTooLarge),
    (grpc.StatusCode.INVALID_ARGUMENT, INDEX, InvalidFilter),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, RATE, TransientError),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, CAPACITY, RequestTooLarge),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", RequestTooLarge),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, STORAGE, WritesRefused),
    (grpc.StatusCode.INTERNAL, TIMEOUT, TransientError),
    (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", TransientError),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", TransientError),
    (grpc.StatusCode.ABORTED, "", TransientError),
    (grpc.StatusCode.CANCELLED, "", TransientError),
    (grpc.StatusCode.UNIMPLEMENTED, "", Unsupported),
    (grpc.StatusCode.UNKNOWN, "", PermanentError),
    (grpc.StatusCode.OUT_OF_RANGE, "", PermanentError),
    (grpc.StatusCode.FAILED_PRECONDITION, "", PermanentError),
    (grpc.StatusCode.DATA_LOSS, "", PermanentError),
]


class RpcError(grpc.RpcError, grpc.Call):
    """As the driver's private class: both an error and a call."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    initial_metadata = trailing_metadata = is_active = time_remaining = cancel = add_callback = (
        lambda self: None
    )


def of_status(status: int, content: bytes) -> exceptions.UnexpectedResponse:
    return exceptions.UnexpectedResponse(status, "", content, httpx.Headers())


def not_trusted() -> httpx.ConnectError:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    return error


def not_ours() -> ValidationError:
    try:
        models.CountResult(count="many")  # type: ignore[arg-type]
    except ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(("status", "content", "kind"), STATUSES)
def test_an_http_status_says_what_to_do(
    status: int, content: bytes, kind: type[ConnectorError]
) -> None:
    """Each status and body that a server or a proxy sends has its class and keeps its text."""
    error = translate(of_status(status, content), "upsert")
    assert type(error) is kind
    assert error.operation == "upsert"
    text = content.decode()
    wanted = json.loads(text)["status"]["error"] if text.startswith("{") else text
    assert wanted[:20] in str(error)


@pytest.mark.parametrize(
    "content", [b"[" * 9_999, b"[1]", b"null", b"\xff\0", b'{"status": 3}', b""]
)
def test_no_body_of_a_server_is_a_fault_of_ours(content: bytes) -> None:
    """What is not as documented is quoted, cut short; of what is no answer at all it is said so."""
    assert len(str(translate(of_status(500, content), "upsert"))) < 500
    for error in (exceptions.ResponseHandlingException(not_ours()), RecursionError("deep")):
        assert "the answer is not Qdrant's" in str(translate(error, "scan"))


@pytest.mark.parametrize(("code", "details", "kind"), CODES)
def test_a_grpc_code_says_what_to_do(
    code: grpc.StatusCode, details: str, kind: type[ConnectorError]
) -> None:
    """Each gRPC code has the class that the same fault has over HTTP."""
    error = translate(RpcError(code, details), "search")
    assert type(error) is kind
    assert code.name in str(error)


def test_every_grpc_code_is_in_the_table() -> None:
    """No code that gRPC knows is left to chance."""
    assert {code for code, _, _ in CODES} | {grpc.StatusCode.OK} == set(grpc.StatusCode)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (httpx.ConnectError("refused"), TransientError),
        (httpx.ReadTimeout("timed out"), TransientError),
        (httpx.WriteTimeout("timed out"), TransientError),
        (httpx.RemoteProtocolError("disconnected"), TransientError),
        (httpx.UnsupportedProtocol("no scheme"), PermanentError),
        (not_trusted(), PermanentError),
        (not_ours(), PermanentError),
    ],
)
def test_a_lost_connection_is_transient(source: Exception, kind: type[ConnectorError]) -> None:
    """Whatever breaks on the way may be tried again, but not a bad URL or certificate."""
    assert type(translate(exceptions.ResponseHandlingException(source), "scan")) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("Collection docs not found"), CollectionNotFound),
        (ValueError("Collection docs already exists"), CollectionExists),
        (ValueError("Collection docs is not a vector"), PermanentError),
        (RuntimeError("QdrantLocal instance is closed. Please create a new instance."), PermanentError),
        (Exception("Vector dimension error: expected dim: 4, got 2"), PermanentError),
        (Exception("Service runtime error: Shard is not initialized"), PermanentError),
        (
            Exception("cannot load edge shard: directory /data/x does not exist"),
            CollectionNotFound,
        ),
        (json.JSONDecodeError("Expecting value", "<html>", 0), PermanentError),
        (AssertionError("Count points returned None result"), PermanentError),
        (TypeError(), PermanentError),
    ],
)  # fmt: skip
def test_the_embedded_engines_say_it_in_words(error: Exception, kind: type[ConnectorError]) -> None:
    """Bare exceptions of the engines in this process are told apart by their text."""
    assert type(translate(error, "fetch")) is kind
    assert str(translate(error, "fetch"))


def test_every_exception_class_of_the_client_is_translated() -> None:
    """Each exception that the client defines becomes ours, with the original as its cause."""
    samples: dict[type, Exception] = {
        exceptions.UnexpectedResponse: of_status(400, b""),
        exceptions.ResponseHandlingException: exceptions.ResponseHandlingException(OSError("x")),
        client_exceptions.ResourceExhaustedResponse: client_exceptions.ResourceExhaustedResponse(
            RATE, 30
        ),
    }
    defined = [
        cls
        for module in (exceptions, client_exceptions)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__ == module.__name__
    ]
    assert len(defined) == 5
    for cls in defined:
        error = samples.get(cls) or cls("what happened")
        with pytest.raises(ConnectorError) as caught, translated("count", translate):
            raise error
        assert caught.value.__cause__ is error
        assert caught.value.connector == "qdrant"


def test_retry_after_is_kept() -> None:
    """The seconds that a server asks to wait reach the retry; a date instead is still transient."""
    error = translate(client_exceptions.ResourceExhaustedResponse(RATE, 30), "upsert")
    assert isinstance(error, TransientError)
    assert error.retry_after == 30
    dated = client_exceptions.QdrantException("Retry-After header value is not a valid integer")
    assert type(translate(dated, "upsert")) is TransientError


def test_ours_pass_unchanged() -> None:
    """An error of ours is not wrapped again."""
    ours = InvalidFilter("no", connector="qdrant", operation="scan")
    with pytest.raises(InvalidFilter) as caught, translated("count", translate):
        raise ours
    assert caught.value is ours


# ------------------------------------------------------------------------------- over the wire


def refuse(status: int, text: str, headers: dict[str, str] | None = None) -> Callable[[Any], None]:
    return lambda handler: handler.refuse(status, text, headers)


def page(status: int) -> Callable[[Any], None]:
    html = f"<html><body>{status}</body></html>"
    return lambda handler: handler.raw(status, html, {"Content-Type": "text/html"})


def plain(status: int, text: str) -> Callable[[Any], None]:
    return lambda handler: handler.raw(status, text, {})


def hang_up(handler: Any) -> None:
    handler.hang_up()


def lose_the_answer(handler: Any) -> None:
    """Do what was asked, but close the connection instead of saying so."""
    handler.reply = lambda *_: handler.hang_up()
    handler.obey()


def abort(code: grpc.StatusCode, details: str, wait: int | None = None) -> Callable[[Any], None]:
    def fault(context: Any) -> None:
        if wait is not None:
            context.set_trailing_metadata([("retry-after", str(wait))])
        context.abort(code, details)

    return fault


REST_PASSING = [
    refuse(429, RATE, {"Retry-After": "1"}),
    refuse(500, TIMEOUT),
    page(502),
    page(503),
    hang_up,
    lose_the_answer,
]
GRPC_PASSING = [
    abort(grpc.StatusCode.RESOURCE_EXHAUSTED, RATE, 1),
    abort(grpc.StatusCode.INTERNAL, TIMEOUT),
    abort(grpc.StatusCode.UNAVAILABLE, "failed to connect"),
    abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
]


@pytest.mark.parametrize(
    ("name", "faults"), [("rest", REST_PASSING), ("by_grpc", GRPC_PASSING)], ids=["rest", "grpc"]
)
def test_passing_faults_lose_and_double_nothing(
    name: str, faults: list[Callable[[Any], None]], store: Any, request: pytest.FixtureRequest
) -> None:
    """Writes and reads that meet one fault after the other end as if there had been none."""
    connector: QdrantConnector = request.getfixturevalue(name)
    connector.ensure(corpus.SCHEMA)
    batch = corpus.records(1, 40)
    for row, fault in enumerate(faults):
        store.faults.extend([fault, fault])
        connector.upsert(batch[row * 5 : row * 5 + 5])
        store.faults.append(fault)
        assert connector.count() == row * 5 + 5
        store.faults.append(fault)
        part = batch[: row * 5 + 5]
        check_records(part, connector.fetch(part.ids), corpus.SCHEMA)
    store.faults.extend([faults[0], faults[1]])
    (hits,) = connector.search([corpus.query(1, "dense", limit=100)])
    assert len(hits) == 5 * len(faults)


@pytest.mark.parametrize("name", ["rest", "by_grpc"])
def test_patience_ends(name: str, store: Any, request: pytest.FixtureRequest) -> None:
    """A fault that does not pass is raised after the policy's attempts, still as transient."""
    connector: QdrantConnector = request.getfixturevalue(name)
    connector.ensure(corpus.SCHEMA)
    fault = page(503) if name == "rest" else GRPC_PASSING[2]
    store.faults.extend([fault] * 4)
    with pytest.raises(TransientError):
        connector.count()
    assert not store.faults
    assert connector.count() == 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (plain(401, "Invalid API key or JWT"), AuthError),
        (plain(403, "ExpiredSignature"), AuthError),
        (plain(404, ""), Unsupported),
        (refuse(507, STORAGE), WritesRefused),
        (refuse(400, DIM), PermanentError),
        (page(200), PermanentError),
        (plain(200, '{"hello": "world"}'), PermanentError),
    ],
)
def test_a_lasting_fault_is_raised_at_once(
    fault: Callable[[Any], None], kind: type[ConnectorError], store: Any, rest: QdrantConnector
) -> None:
    """What will not pass is not tried again."""
    rest.ensure(corpus.SCHEMA)
    store.faults.append(fault)
    asked = len(store.asked)
    with pytest.raises(kind):
        rest.count()
    assert len(store.asked) == asked + 1


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("rest", refuse(429, CAPACITY)),
        ("rest", refuse(400, SIZE)),
        ("rest", page(413)),
        ("by_grpc", abort(grpc.StatusCode.RESOURCE_EXHAUSTED, CAPACITY)),
    ],
)
def test_too_large_a_request_is_halved(
    name: str, fault: Callable[[Any], None], store: Any, request: pytest.FixtureRequest
) -> None:
    """A request beyond a server's limit arrives in halves, each record once."""
    connector: QdrantConnector = request.getfixturevalue(name)
    connector.ensure(corpus.SCHEMA)
    batch = corpus.records(2, 20)
    asked = len(store.asked)
    store.write_faults.extend([fault, fault])
    connector.upsert(batch)
    assert len(store.asked) == asked + 1 + 5  # described; 20 and 10 refused; 5, 5 and 10 written
    assert connector.count() == 20
    check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
    store.write_faults.append(fault)
    with pytest.raises(RequestTooLarge, match=batch.ids[0]):
        connector.upsert(batch[:1])


def test_a_lost_server_is_named() -> None:
    """Nobody listening is a transient error that tells why."""
    engine = ServerEngine(
        "docs", "http://127.0.0.1:1", api_key=None, timeout=2, prefer_grpc=False, grpc_port=1
    )
    once = RetryPolicy(attempts=1)
    with QdrantConnector("docs", engine, policy=once) as connector:
        with pytest.raises(TransientError, match="ConnectError"):
            connector.count()
        with pytest.raises(TransientError, match="ConnectError"):
            _ = connector.capabilities


def test_a_closed_grpc_port_is_hinted_at() -> None:
    """A server that is reached by gRPC alone may listen for REST only."""
    engine = ServerEngine(
        "docs", "http://127.0.0.1:1", api_key=None, timeout=2, prefer_grpc=True, grpc_port=1
    )
    with (
        QdrantConnector("docs", engine, policy=RetryPolicy(attempts=1)) as connector,
        pytest.raises(TransientError, match="prefer_grpc=false"),
    ):
        connector.count()


def test_a_filter_on_an_unindexed_field_says_what_to_index(
    store: Any, rest: QdrantConnector
) -> None:
    """A server in strict mode filters on indexed fields only; the error says where to name them."""
    rest.ensure(corpus.SCHEMA)
    store.faults.append(refuse(400, INDEX))
    with pytest.raises(InvalidFilter, match="--index-field"):
        rest.count(F("a") == "x")


def test_nan_never_reaches_grpc(store: Any, by_grpc: QdrantConnector) -> None:
    """A server would store NaN from gRPC and rank it first; it is refused before."""
    by_grpc.ensure(corpus.SCHEMA)
    batch = corpus.records(3, 2)
    assert batch.embeddings.dense is not None
    batch.embeddings.dense[1, 3] = np.nan
    with pytest.raises(ValueError, match=batch.ids[1]):
        by_grpc.upsert(batch)
    assert "Upsert" not in store.asked


def test_a_full_disk_is_named() -> None:
    """The embedded engine does not say where its data lies; whoever has to make room must know."""
    full = Exception("Failed to save structure on disk: No space left on device (os error 28)")
    error = EdgeEngine(Path("/data/docs")).translate(full, "search")
    assert type(error) is WritesRefused
    assert re.search(r"qdrant search: /data/docs: .* free some space on the disk", str(error))
