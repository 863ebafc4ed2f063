"""What ``qdrant_client`` raises, as ours.

A server tells what went wrong by an HTTP status or a gRPC code, which are brought together here.
Where a status means several things, its text decides.
"""

from __future__ import annotations

import json
import ssl

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from m3connect.connecting.failures import of_status
from m3connect.errors import (
    ConnectorError,
    InvalidFilter,
    PermanentError,
    RequestTooLarge,
    TransientError,
    Unsupported,
    WritesRefused,
)
from m3connect_qdrant.errors import NAME, CollectionExists, of_embedded, of_text

_GRPC = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.ABORTED: 503,
    grpc.StatusCode.CANCELLED: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_STRICT = {
    "limit": "max_query_limit",
    "timeout": "max_timeout",
    "hnsw_ef": "search_max_hnsw_ef",
    "oversampling": "search_max_oversampling",
}
"""What a server says was exceeded, and the setting that says so."""
_SERVER_TEXTS: list[tuple[str, type[ConnectorError], str]] = [
    (r"larger than (allowed|max)", RequestTooLarge, ""),
    (
        r"split your request",
        RequestTooLarge,
        "this one costs more than the strict mode's read_rate_limit or write_rate_limit",
    ),
    (r'for "upsert limit"', RequestTooLarge, ""),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        PermanentError,
        "the server's certificate is not trusted: --target-option ca_certificate=FILE",
    ),
    (
        r"^UNAVAILABLE .*connect",
        TransientError,
        "is the server up and its gRPC port open? prefer_grpc=false speaks REST instead",
    ),
    (
        r"Max (vector|payload) storage size|[Mm]ax points count|points count limit",
        WritesRefused,
        "the collection's strict mode allows no more: delete something, or raise the setting",
    ),
    (
        r"Insufficient storage|No space left|^507 |[Dd]isk quota|[Qq]uota exceeded",
        WritesRefused,
        "make room, or delete something",
    ),
    (
        r"Index required but not found",
        InvalidFilter,
        "strict mode (unindexed_filtering_...) wants an index: ingest with --index-field NAME:KIND",
    ),
    (
        r"Filter condition limit reached|Condition size limit reached",
        InvalidFilter,
        "strict mode's filter_max_conditions or condition_max_size; a range of numbers counts five",
    ),
    (
        r"Exact search disabled|Fullscan forbidden",
        Unsupported,
        "the collection's strict mode sets search_allow_exact=false: leave out the option exact",
    ),
    *(
        (
            rf'Limit exceeded .* for "{said}"',
            PermanentError,
            f"the collection's strict mode sets {name}",
        )
        for said, name in _STRICT.items()
    ),
]


def translate(error: Exception, operation: str) -> ConnectorError:
    """The error of ours that a driver's exception means."""
    match error:
        case ResourceExhaustedResponse():
            return TransientError(
                str(error),
                connector=NAME,
                operation=operation,
                retry_after=float(error.retry_after_s),
            )
        case UnexpectedResponse():
            return _of_status(error.status_code or 0, _body_text(error), operation)
        case grpc.RpcError():
            return _of_grpc(error, operation)
        case ResponseHandlingException(source=source):
            return _of_transport(source, operation)
        # The client asserts that there is a result.
        case json.JSONDecodeError() | UnicodeDecodeError() | RecursionError() | AssertionError():
            return PermanentError(_NOT_QDRANTS, connector=NAME, operation=operation)
        case TimeoutError():  # ours, of an answer that drips
            return TransientError(str(error), connector=NAME, operation=operation)
        case QdrantException():  # a Retry-After that is a date
            return TransientError(str(error), connector=NAME, operation=operation)
        case ApiException():
            return PermanentError(repr(error), connector=NAME, operation=operation)
    return of_embedded(error, operation)


_NOT_QDRANTS = "the answer is not Qdrant's; does the URL lead to a Qdrant server?"


def _kind(status: int) -> type[ConnectorError]:
    return CollectionExists if status == 409 else of_status(status)


def _of_status(status: int, text: str, operation: str) -> ConnectorError:
    if status == 404 and not text:
        message = "the server does not know this request; does the URL lead to a Qdrant server?"
        return Unsupported(message, connector=NAME, operation=operation)
    kind = _kind(status)
    return of_text(f"{status} {text}".strip(), _SERVER_TEXTS, kind, operation)


def _of_grpc(error: grpc.RpcError, operation: str) -> ConnectorError:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = error.details() if isinstance(error, grpc.Call) else str(error)
    kind = _kind(_GRPC.get(code, 0))
    return of_text(f"{code.name} {details or ''}".strip(), _SERVER_TEXTS, kind, operation)


def _of_transport(source: Exception, operation: str) -> ConnectorError:
    if isinstance(source, ValidationError):  # JSON of another form
        return PermanentError(_NOT_QDRANTS, connector=NAME, operation=operation)
    message = f"{type(source).__name__} {source}".strip()
    lost = isinstance(source, httpx.TransportError)
    hopeless = isinstance(source, httpx.UnsupportedProtocol) or _certificate_failed(source)
    if lost and not hopeless:
        return TransientError(message, connector=NAME, operation=operation)
    return PermanentError(message, connector=NAME, operation=operation)


def _body_text(error: UnexpectedResponse) -> str:
    """What the server says: JSON as a rule, plain text from its authentication, HTML from others."""
    text = error.content.decode(errors="replace").strip()
    try:
        return str(json.loads(text)["status"]["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:300]


def _certificate_failed(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
