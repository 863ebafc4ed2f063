"""What all drivers' failures have in common: the meaning of an HTTP status, and what is advised."""

from __future__ import annotations

from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    ConnectorError,
    PermanentError,
    RequestTooLarge,
    TransientError,
    Unsupported,
)

STATUS: dict[int, type[ConnectorError]] = {
    401: AuthError,
    403: AuthError,
    404: CollectionNotFound,
    408: TransientError,
    413: RequestTooLarge,
    425: TransientError,
    429: TransientError,
    500: TransientError,  # often a time-out inside the server; what is sent here is idempotent
    501: Unsupported,
    502: TransientError,
    503: TransientError,
    504: TransientError,
}
"""What is not listed is permanent."""

_ADVICE: dict[type[ConnectorError], str] = {
    AuthError: "check the credentials (--api-key, M3CONNECT_API_KEY) and their rights",
    CollectionNotFound: "m3connect ingest makes it",
}


def of_status(status: int) -> type[ConnectorError]:
    """The class of error that an HTTP status means.

    >>> of_status(503).__name__, of_status(418).__name__
    ('TransientError', 'PermanentError')
    """
    return STATUS.get(status, PermanentError)


def advised(message: str, kind: type[ConnectorError], advice: str = "") -> str:
    """A message with what to do about it: as given, or what its class advises.

    >>> advised("401 denied", AuthError)
    '401 denied; check the credentials (--api-key, M3CONNECT_API_KEY) and their rights'
    """
    advice = advice or _ADVICE.get(kind, "")
    return f"{message}; {advice}" if advice else message
