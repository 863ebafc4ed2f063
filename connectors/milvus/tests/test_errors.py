"""Every exception of the driver becomes one of ours, of the class that says what to do."""

import inspect

import grpc
import pytest
from pymilvus import exceptions as driver

from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    ConnectorError,
    PermanentError,
    RequestTooLarge,
    TransientError,
    Unsupported,
    WritesRefused,
)
from m3connect_milvus.errors import translate, translated

CLASSES = [
    value
    for _, value in inspect.getmembers(driver, inspect.isclass)
    if issubclass(value, Exception)
]
TRANSIENT = {
    driver.ConnectError,
    driver.MilvusUnavailableException,
    driver.SchemaMismatchRetryableException,
}


class RpcError(grpc.RpcError):
    """A gRPC error as the channel raises it."""

    def __init__(self, status, details=""):
        super().__init__()
        self.status, self.text = status, details

    def code(self):
        return self.status

    def details(self):
        return self.text


def caused(error, cause):
    """The error as if raised from its cause."""
    error.__cause__ = cause
    return error


def test_every_class_of_the_driver_is_mapped():
    """All of the driver's classes are known, and only three of them are worth a retry."""
    assert len(CLASSES) > 20
    for kind in CLASSES:
        error = translate(kind(message="said the driver"), "upsert")  # type: ignore[call-arg]
        wanted = TransientError if kind in TRANSIENT else PermanentError
        assert isinstance(error, wanted), kind
        assert str(error).startswith("milvus upsert: said the driver")


def test_every_status_of_grpc_is_mapped():
    """Each status of gRPC, raised by itself or as a code of the driver, has its class."""
    kinds = {
        TransientError: {"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"},
        AuthError: {"UNAUTHENTICATED", "PERMISSION_DENIED"},
        Unsupported: {"UNIMPLEMENTED"},
    }
    for status in grpc.StatusCode:
        wanted = next((kind for kind, names in kinds.items() if status.name in names), None)
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            wanted = TransientError
        for error in (RpcError(status), driver.MilvusException(code=status, message="m")):
            assert type(translate(error, "search")) is (wanted or PermanentError), status


TOO_LARGE = "grpc: received message larger than max (71959545 vs. 67108864)"
REFUSED = RpcError(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")


@pytest.mark.parametrize(
    ("error", "wanted", "says"),
    [
        (RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE), RequestTooLarge, "71959545"),
        (grpc.FutureTimeoutError(), TransientError, "FutureTimeoutError"),
        (
            caused(driver.MilvusException(2, "Fail connecting to server"), REFUSED),
            AuthError,
            "check the token",
        ),
        (
            caused(
                driver.MilvusException(2, "Fail connecting to server"),
                RpcError(grpc.StatusCode.UNAVAILABLE),
            ),
            TransientError,
            "UNAVAILABLE",
        ),
        (driver.MilvusException(2, "service unavailable"), TransientError, "code 2"),
        (driver.MilvusException(8, "rate limit exceeded"), TransientError, "code 8"),
        (driver.MilvusException(9, "quota exceeded"), WritesRefused, "code 9"),
        (driver.DescribeCollectionException(100, "can't find"), CollectionNotFound, "ingest makes"),
        (driver.MilvusException(101, "not loaded"), TransientError, "code 101"),
        (driver.MilvusException(1, "not ready", retriable=True), TransientError, "not ready"),
        (driver.MilvusException(1, "matmul"), PermanentError, "matmul"),
        (driver.MilvusException(1, "[Errno 28] No space left"), WritesRefused, "No space left"),
        (driver.MilvusException(6, "illegal argument"), PermanentError, "illegal"),
        (driver.MilvusException(1100, "invalid parameter"), PermanentError, "1100"),
        (driver.MilvusException(1102, "parameter too large"), RequestTooLarge, "1102"),
        (driver.MilvusException(1401, "not permitted"), AuthError, "check the token"),
        (
            driver.MilvusException(65535, "empty grpc client: failed to connect"),
            TransientError,
            "empty grpc client",
        ),
        (driver.MilvusException(65535, "topk [16385] is invalid"), PermanentError, "topk"),
        (driver.ParamError(message="wrong type"), PermanentError, "wrong type"),
        (driver.MilvusException(1, ""), PermanentError, "MilvusException"),
    ],
)
def test_known_situations_have_their_class(error, wanted, says):
    """What servers and Lite were seen to answer, or document, is told apart."""
    ours = translate(error, "upsert")
    assert type(ours) is wanted
    assert says in str(ours)
    assert (ours.connector, ours.operation) == ("milvus", "upsert")


def test_the_driver_error_is_the_cause():
    """Ours carries the driver's; what is neither passes through untouched."""
    original = driver.ParamError(message="wrong type")
    with pytest.raises(ConnectorError) as caught, translated("search"):
        raise original
    assert caught.value.__cause__ is original
    with pytest.raises(KeyError), translated("search"):
        raise KeyError("not the driver's")
