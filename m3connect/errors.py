"""Every error m3connect raises on purpose.

    M3ConnectError
    ├─ ConfigError(ValueError)       a bad option, an unknown key, a missing extra (prints the pip line)
    ├─ InputError(ValueError)        a bad document, vector or query: which one, which field, why
    ├─ CheckpointError               a model file that is missing or misshapen, named with its shapes
    ├─ FingerprintMismatch           the collection was made by another model
    ├─ EndpointError                 a language model that refused, kept failing, or answered otherwise
    ├─ Refused                       a guard: what was asked could do harm, and how to confirm it
    └─ ConnectorError                .connector .operation .__cause__
       ├─ TransientError             retrying is safe: time-out, lost connection, rate limit (.retry_after)
       ├─ RequestTooLarge            split the request and retry
       └─ PermanentError             retrying is pointless
          ├─ AuthError
          ├─ SchemaMismatch             the collection has another schema, or was not made by m3connect
          │  └─ CollectionOutdated      or by another version, which stored other facts
          ├─ InvalidFilter
          ├─ WritesRefused           a full disk, a quota, a write block: no record is to blame
          ├─ Unsupported
          ├─ CollectionNotFound
          └─ CollectionGone          the name stands for a collection that was removed

Whether a retry may help is told by the class, never by the text of a message.
"""

from __future__ import annotations

import re
from typing import Any

_SECRETS = (
    # user:password@ and token@ of an address, well-formed or not (a password may hold "/")
    (re.compile(r"(?<=:/)(/?)(?!\d+/)([^\s/'\"]*|[^\s/@:'\"]*:[^\s'\"]*)@"), r"\1***@"),
    (re.compile(r"(?<![\w/:@.+-])[\w.+-]+:[^\s@'\"/]+@(?=[\w\[])"), "***@"),
    # ?api_key=..., password=...
    (
        re.compile(
            r"(?i)((?:api[_-]?key|access[_-]?key|token|passw(?:or)?d|secret|signature|sig)=)"
            r"[^\s&'\",;)]+"
        ),
        r"\1***",
    ),
    # Authorization: Bearer ...
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?)[^\s'\"]+"), r"\1***"),
)


def without_secrets(text: str) -> str:
    """The text with the passwords and keys of addresses, options and headers masked.

    >>> without_secrets("cannot reach http://bob:hunter2@host:6333/?api_key=abc")
    'cannot reach http://***@host:6333/?api_key=***'
    """
    for pattern, masked in _SECRETS:
        text = pattern.sub(masked, text)
    return text


_LONGEST = 4_000
"""Characters of a message: it may quote what a caller sent, and masking takes the square of its length."""


class M3ConnectError(Exception):
    """The root: ``except M3ConnectError`` catches everything raised on purpose.

    Its message holds no password or key that :func:`without_secrets` knows by its form, and at most some
    4,000 characters: of more the middle is left out, with a word about it. It can be pickled, whatever
    its constructor takes: class, message and attributes arrive in another process. (Causes do not, as
    with any exception: those of drivers need not be picklable.)
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > _LONGEST:
            left_out = f" [{len(message) - _LONGEST:,} characters left out] "
            message = message[: _LONGEST // 2] + left_out + message[-_LONGEST // 2 :]
        super().__init__(without_secrets(message))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[M3ConnectError], args: tuple[object, ...]) -> M3ConnectError:
    """An error as it was, without its constructor, which would put the message together again."""
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigError(M3ConnectError, ValueError):
    """A bad option, an unknown key or a missing extra."""


class InputError(M3ConnectError, ValueError):
    """A bad document, vector or query; the message names the record and the field."""


class CheckpointError(M3ConnectError):
    """A model file that is missing, misshapen or of an unknown layout."""


class FingerprintMismatch(M3ConnectError):
    """The collection was made by another model than the one now in use."""


class EndpointError(M3ConnectError):
    """A language model's endpoint refused, kept failing, or answered in another form."""


class Refused(M3ConnectError):
    """A guard refused: what was asked could do harm; the message says how to confirm it."""


class ConnectorError(M3ConnectError):
    """Something a database or its driver refused or failed to do.

    Args:
        message: what happened and what to do about it.
        connector: the connector's name, such as ``qdrant``.
        operation: what was being done, such as ``upsert``.
    """

    def __init__(self, message: str, *, connector: str, operation: str) -> None:
        super().__init__(f"{connector} {operation}: {message}")
        self.connector = connector
        self.operation = operation


class TransientError(ConnectorError):
    """A time-out, a lost connection or a rate limit: the same request may succeed later.

    Args:
        message: what happened.
        connector: the connector's name.
        operation: what was being done.
        retry_after: seconds the server asked to wait, if it said so.
    """

    def __init__(
        self, message: str, *, connector: str, operation: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message, connector=connector, operation=operation)
        self.retry_after = retry_after


class RequestTooLarge(ConnectorError):
    """The request exceeds a size limit: halve it and try again."""


class PermanentError(ConnectorError):
    """The same request will fail again."""


class AuthError(PermanentError):
    """Missing or wrong credentials, or a privilege that is not granted."""


class SchemaMismatch(PermanentError):
    """The collection exists with another schema."""


class InvalidFilter(PermanentError):
    """A filter that the backend cannot express or that is malformed."""


class WritesRefused(PermanentError):
    """The database takes no writes at all: a full disk, a quota, a write block."""


class Unsupported(PermanentError):
    """The backend, its version or its licence cannot do this."""


class CollectionNotFound(PermanentError):
    """There is no such collection; ``ingest`` or ``ensure`` makes it."""


class CollectionOutdated(SchemaMismatch):
    """Another version of this project made the collection, and stored other facts."""


class CollectionGone(PermanentError):
    """The name stands for another collection, which was removed."""
