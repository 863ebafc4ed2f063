"""What the engines raise, as ours.

The embedded engines tell what went wrong by text alone; ``engine/client_errors.py`` has what the
client raises for a server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from m3connect.connecting.failures import advised
from m3connect.errors import (
    CollectionNotFound,
    ConnectorError,
    M3ConnectError,
    PermanentError,
    WritesRefused,
)

NAME = "qdrant"


class CollectionExists(PermanentError):
    """The collection to be created is there already, perhaps made by someone else just now."""


_FULL = r"No space left|os error 28"
_EMBEDDED_TEXTS: list[tuple[str, type[ConnectorError], str]] = [
    (r"^Collection .* not found|directory .* does not exist", CollectionNotFound, ""),
    (r"^Collection .* already exists", CollectionExists, ""),
    (_FULL, WritesRefused, "free some space on the disk"),
    (r"is closed|Shard is not initialized", PermanentError, "the connector is closed"),
]


@contextmanager
def translated(
    operation: str, translate: Callable[[Exception, str], ConnectorError]
) -> Iterator[None]:
    """Raise ours for what a driver raises inside, with the original as its cause.

    Raises:
        ConnectorError: of the class that says whether a retry may help.
    """
    try:
        yield
    except M3ConnectError:
        raise
    except Exception as error:
        # The embedded engine raises bare Exception, so everything must be caught here.
        raise translate(error, operation) from error


def of_embedded(error: Exception, operation: str, folder: Path | None = None) -> ConnectorError:
    """The error of ours that an exception of an embedded engine means.

    Args:
        error: the engine's.
        operation: that failed.
        folder: where the engine keeps its data; it does not say so itself.
    """
    message = str(error) or repr(error)
    told = f"{folder}: {message}" if folder and re.search(_FULL, message) else message
    return of_text(told, _EMBEDDED_TEXTS, PermanentError, operation)


def of_text(
    message: str,
    texts: list[tuple[str, type[ConnectorError], str]],
    kind: type[ConnectorError],
    operation: str,
) -> ConnectorError:
    """An error of ``kind``, unless its text says it is another one."""
    hint = ""
    for pattern, other, advice in texts:
        if re.search(pattern, message):
            kind, hint = other, advice
            break
    return kind(advised(message, kind, hint), connector=NAME, operation=operation)
