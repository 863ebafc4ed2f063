"""What pymilvus and gRPC raise, as ours.

The codes are those of Milvus' own list (``pkg/util/merr/errors.go`` in milvus-io/milvus); Milvus
Lite uses a few of them with other meanings, which stay permanent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from pymilvus import exceptions as driver

from m3connect.connecting.failures import advised
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

NAME = "milvus"

_BY_CODE: dict[int, type[ConnectorError]] = {
    2: TransientError,  # service unavailable
    4: TransientError,  # too many requests
    8: TransientError,  # rate limit
    9: WritesRefused,  # force deny: writes are switched off, by quota or by the administrator
    10: Unsupported,
    12: TransientError,  # resources insufficient
    100: CollectionNotFound,
    101: TransientError,  # not loaded: a server that was restarted loads again what was
    103: TransientError,  # not fully loaded
    106: TransientError,  # recovering
    202: TransientError,  # partition not fully loaded
    503: TransientError,  # channel not available
    905: TransientError,  # node not available
    1102: RequestTooLarge,
    1400: AuthError,
    1401: AuthError,
    1800: AuthError,
    2001: Unsupported,
    3000: Unsupported,
    10000: TransientError,  # cancelled
    10001: TransientError,  # time-out
}
_BY_STATUS: dict[grpc.StatusCode, type[ConnectorError]] = {
    grpc.StatusCode.UNAVAILABLE: TransientError,
    grpc.StatusCode.DEADLINE_EXCEEDED: TransientError,
    grpc.StatusCode.ABORTED: TransientError,
    grpc.StatusCode.CANCELLED: TransientError,
    grpc.StatusCode.UNAUTHENTICATED: AuthError,
    grpc.StatusCode.PERMISSION_DENIED: AuthError,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}
_TRANSIENT_CLASSES = (
    driver.ConnectError,
    driver.MilvusUnavailableException,
    driver.SchemaMismatchRetryableException,
)


_ON_AUTH = "check the token (user:password or API key) and its privileges"


@contextmanager
def translated(operation: str) -> Iterator[None]:
    """Raise the driver's errors as ours, with the original as the cause."""
    try:
        yield
    except (driver.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise translate(error, operation) from error


def translate(error: Exception, operation: str) -> ConnectorError:
    """The error of ours for one of the driver's.

    Args:
        error: a MilvusException, or one of gRPC's that pymilvus lets through.
        operation: what was being done.
    """
    kind = _kind(error)
    text = _text(error)
    if kind is TransientError and operation == "connect":
        text = advised(text, kind, "is the server up, and the url right?")
    advice = _ON_AUTH if kind is AuthError else ""
    return kind(advised(text, kind, advice), connector=NAME, operation=operation)


def _kind(error: BaseException) -> type[ConnectorError]:
    if isinstance(error, grpc.FutureTimeoutError):
        return TransientError
    if isinstance(error, grpc.RpcError):
        return _of_status(error.code(), _text(error))
    if not isinstance(error, driver.MilvusException):
        return PermanentError
    if isinstance(error.code, grpc.StatusCode):
        return _of_status(error.code, error.message)
    if "No space left" in error.message:  # Lite, on a full disk
        return WritesRefused
    if error.code == driver.ErrorCode.UNEXPECTED_ERROR and not error.retriable:
        # Lite's code for anything, and the driver's own for what it refuses to send.
        return TransientError if isinstance(error, _TRANSIENT_CLASSES) else PermanentError
    if isinstance(error.__cause__, grpc.RpcError):
        # A refused login has the code of an unreachable server; the cause tells them apart.
        return _kind(error.__cause__)
    if error.retriable or isinstance(error, _TRANSIENT_CLASSES):
        return TransientError
    if "empty grpc client" in error.message:
        # A server that is shutting down says so with the code of an unexpected error.
        return TransientError
    return _BY_CODE.get(error.code, PermanentError)


def _of_status(status: grpc.StatusCode, details: str) -> type[ConnectorError]:
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC's own word for a message that is too large, and a proxy's for too many.
        return RequestTooLarge if "larger than max" in details else TransientError
    return _BY_STATUS.get(status, PermanentError)


def _text(error: BaseException) -> str:
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error.__cause__, grpc.RpcError):
        return _text(error.__cause__)
    if isinstance(error, driver.MilvusException):
        code = error.code.name if isinstance(error.code, grpc.StatusCode) else int(error.code)
        return f"{error.message or type(error).__name__} [code {code}]"
    return str(error) or type(error).__name__
