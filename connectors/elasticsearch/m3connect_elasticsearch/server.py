"""The server behind a collection: its version and licence, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from elasticsearch import Elasticsearch

from m3connect.connecting import deadline, retry
from m3connect.connecting.collection import closed
from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import PermanentError, TransientError, Unsupported
from m3connect_elasticsearch.errors import NAME, translated, understood

Answer = Mapping[str, Any]
OLDEST = (8, 19)
_PACKED_VECTORS = (9, 3)
_PACKED_QUERIES = (9, 4)
_WEIGHTED_RRF = (9, 2)
_PAID_LICENCES = frozenset({"enterprise", "trial"})


@dataclass
class Server:
    """One client, and what is known of the server it talks to.

    Args:
        client: the driver, its own retries switched off.
        policy: how transient failures are retried.
        timeout: seconds that one request may take.
        closed: whether nothing may be asked any more.
        borrowed: whether the client is another one's to close.
    """

    client: Elasticsearch
    policy: RetryPolicy
    timeout: float
    closed: bool = False
    borrowed: bool = False

    def shared(self) -> Server:
        """The same server over the same connections, which stay open when this one is closed."""
        return replace(self, borrowed=True)

    def ask(self, operation: str, request: Callable[[Elasticsearch], Any]) -> Answer:
        """The answer to an idempotent request, retried while its failure is transient.

        Raises:
            ConnectorError: what the server or the client made of it at last.
        """
        return retry.call(lambda: self.ask_once(operation, request), self.policy)

    def ask_once(self, operation: str, request: Callable[[Elasticsearch], Any]) -> Answer:
        """As :meth:`ask`, without a retry."""
        if self.closed:
            raise closed(NAME, operation)
        with translated(operation):
            answer = deadline.within(self.timeout, request, self.client).body
        if answer in (None, ""):  # what is left when the connection ends within the headers
            raise TransientError("the answer is empty", connector=NAME, operation=operation)
        if not isinstance(answer, dict):
            raise PermanentError(
                f"the answer is no JSON object but {str(answer)[:80]!r}: is a proxy in between?",
                connector=NAME,
                operation=operation,
            )
        return answer

    def close(self) -> None:
        """Close the connections; closing twice is fine."""
        self.closed = True
        if not self.borrowed:
            self.client.close()

    @cached_property
    def number(self) -> str:
        """The server's version as it says it, such as ``9.5.3``.

        Raises:
            Unsupported: it is too old.
        """
        answer = self.ask("connect", lambda client: client.info())
        with understood("connect"):
            number = str(answer["version"]["number"])
            version = _version(number)
        if version < OLDEST:
            raise Unsupported(
                f"the server is {number}; {OLDEST[0]}.{OLDEST[1]} is the oldest that works",
                connector=NAME,
                operation="connect",
            )
        return number

    @property
    def packs_vectors(self) -> bool:
        """Whether the dense vectors of documents may be sent as base64 rather than as lists."""
        return _version(self.number) >= _PACKED_VECTORS

    @property
    def packs_queries(self) -> bool:
        """Whether the dense vector of a query may be sent as base64, too."""
        return _version(self.number) >= _PACKED_QUERIES

    @property
    def weighs_rrf(self) -> bool:
        """Whether the ``rrf`` retriever takes weights."""
        return _version(self.number) >= _WEIGHTED_RRF

    @cached_property
    def licence(self) -> str:
        """The type of the active licence; ``basic`` where the server does not tell."""
        try:
            answer = self.ask("connect", lambda client: client.license.get())
        except PermanentError:
            return "basic"
        with understood("connect"):
            licence = answer["license"]
            return str(licence["type"]) if licence["status"] == "active" else "basic"

    @property
    def is_paid(self) -> bool:
        """Whether the licence covers ``rrf`` and ``rank_vectors``."""
        return self.licence in _PAID_LICENCES


def _version(number: str) -> tuple[int, int]:
    major, minor = number.split(".")[:2]
    return int(major), int(minor)
