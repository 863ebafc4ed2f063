"""Every failure of the server or its client as one of our errors, told apart by status and type.

what happened                                                   becomes
408 425 429 500 502 503 504, lost connection, time-out, cut answer  TransientError
413, 429 of a request beyond the node's memory for requests     RequestTooLarge
401 403                                                         AuthError
403 of the licence, 400 of a client of another major version    Unsupported
404 index_not_found_exception                                   CollectionNotFound
403 429 cluster_block_exception: a full disk, a write block     WritesRefused
everything else                                                 PermanentError
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any

import elastic_transport
import elasticsearch

from m3connect.connecting.failures import advised, of_status
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

NAME = "elasticsearch"
_CONFLICT = 409
_LONGEST_MESSAGE = 500
_PRESSURE = re.compile(
    r"(?P<stage>primary|coordinating)_operation_bytes=(?P<wanted>\d+), max_\w+=(?P<most>\d+)"
)


@contextmanager
def translated(operation: str) -> Iterator[None]:
    """Raise our error for whatever the client raises inside.

    Raises:
        ConnectorError: with the client's exception as its cause.
    """
    try:
        yield
    except TimeoutError as error:  # ours, of an answer that drips
        raise TransientError(str(error), connector=NAME, operation=operation) from error
    except elasticsearch.UnsupportedProductError as error:
        raise PermanentError(
            "something answers there, but it is not Elasticsearch (a proxy or another product)",
            connector=NAME,
            operation=operation,
        ) from error
    except elastic_transport.ApiError as error:
        wait = _retry_after(error.meta.headers.get("retry-after"))
        raise from_answer(error.meta.status, error.body, operation, wait) from error
    except elastic_transport.TransportError as error:
        raise _from_transport(error, operation) from error


@contextmanager
def understood(operation: str) -> Iterator[None]:
    """What is read of an answer inside has the form that it should have, or the error says so.

    Raises:
        PermanentError: it has another one.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PermanentError(
            f"the answer is not as Elasticsearch's are ({type(error).__name__}: {str(error)[:80]}): is a "
            "proxy in between, or did another program write into the index?",
            connector=NAME,
            operation=operation,
        ) from error


def from_answer(
    status: int, body: object, operation: str, retry_after: float | None = None, *, record: str = ""
) -> ConnectorError:
    """The error that an answer means.

    Args:
        status: HTTP status of the answer, or of one item in it.
        body: what came with it: Elasticsearch's ``{"error": {...}}``, an item's error, or text.
        operation: what was being done.
        retry_after: seconds the server asked to wait.
        record: the id of the record it is about.
    """
    detail = _detail(body)
    types = _types(detail)
    message = _message(status, detail, body)
    if record:
        message = f"record {record!r}: {message}"
    kind: type[ConnectorError] = PermanentError
    if "cluster_block_exception" in types and status in {403, 429}:
        kind = WritesRefused
        message += (
            "; the index takes no writes, as on a disk that is nearly full: free space, then lift "
            "the block"
        )
    elif status == 413 or _never_fits(detail):
        kind = RequestTooLarge
    elif of_status(status) is TransientError:
        return TransientError(message, connector=NAME, operation=operation, retry_after=retry_after)
    elif "license.expired.feature" in detail:
        kind, message = Unsupported, f"{message}; the cluster's licence does not include it"
    elif "media_type_header_exception" in types:
        kind, message = Unsupported, _wrong_client()
    elif status in {401, 403}:
        kind = AuthError
    elif "index_not_found_exception" in types:
        kind = CollectionNotFound
    return kind(advised(message, kind), connector=NAME, operation=operation)


def check_items(operation: str, answer: Mapping[str, Any], ids: Sequence[str]) -> None:
    """Raise the error of an item of a bulk answer that failed, if any did.

    Args:
        operation: what the request was for.
        answer: of ``_bulk``.
        ids: what to call the items' records.

    Raises:
        ConnectorError: a lasting failure before a transient one. A version conflict is none: what
            was to be deleted has changed, and is another record now.
    """
    with understood(operation):
        items = [result for item in answer["items"] for result in item.values()]
        failures = [
            from_answer(item["status"], item["error"], operation, record=id_)
            for item, id_ in zip(items, ids, strict=True)
            if "error" in item and item["status"] != _CONFLICT
        ]
    lasting = [error for error in failures if not isinstance(error, TransientError)]
    if failures:
        raise (lasting or failures)[0]


def _from_transport(error: elastic_transport.TransportError, operation: str) -> ConnectorError:
    message = f"{type(error).__name__}: {error.message}"
    kind: type[ConnectorError] = TransientError
    if isinstance(error, elastic_transport.TlsError):
        kind, message = PermanentError, f"{message}; is ca_certificate the server's authority?"
    elif isinstance(error, elastic_transport.ConnectionError):
        message += "; is the server running, and the url right?"
    return kind(message, connector=NAME, operation=operation)


def _wrong_client() -> str:
    number = version("elasticsearch")
    major = int(number.split(".")[0])
    return (
        f"the Python client is {number} and the server, older than {major}.0, refuses it: "
        f"pip install 'elasticsearch>={major - 1}.19,<{major}'"
    )


def _detail(body: object) -> Mapping[str, Any]:
    """The error itself, whether the body wraps it or is it."""
    if not isinstance(body, Mapping):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, Mapping) else {"reason": str(error)}


def _types(detail: Mapping[str, Any]) -> set[str]:
    """The types of an error and of all that caused it."""
    types = {str(detail.get("type"))}
    shards = (failed.get("reason") for failed in detail.get("failed_shards", ()))
    causes = [*detail.get("root_cause", ()), detail.get("caused_by"), *shards]
    for cause in causes:
        if isinstance(cause, Mapping):
            types |= _types(cause)
    return types


def _never_fits(detail: Mapping[str, Any]) -> bool:
    """Whether a node that does nothing else would refuse it too.

    What a node holds of requests is limited, to a tenth of its heap by default. Version 9 sets
    aside four times the largest document of a request, beside the request itself.
    """
    match = _PRESSURE.search(str(detail.get("reason")))
    if match is None:
        return False
    needed, most = int(match["wanted"]), int(match["most"])
    return needed * (1.25 if match["stage"] == "primary" else 1) > most


def _message(status: int, detail: Mapping[str, Any], body: object) -> str:
    if not detail:
        return f"{status} {str(body or '').strip()[:_LONGEST_MESSAGE]}".strip()
    roots = [cause for cause in detail.get("root_cause", ()) if isinstance(cause, Mapping)]
    root = (roots or [detail])[0]
    reason = str(root.get("reason") or detail.get("reason") or "")[:_LONGEST_MESSAGE]
    deeper = detail.get("caused_by")
    if isinstance(deeper, Mapping) and deeper.get("reason"):
        reason += f" ({str(deeper['reason'])[:_LONGEST_MESSAGE]})"
    return f"{status} {root.get('type', 'error')}: {reason}"


def _retry_after(header: str | None) -> float | None:
    """Seconds, from a ``Retry-After`` header in either of its forms."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
