"""The connection: a server by URL, or Milvus Lite in this process, and how it is called."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pymilvus import MilvusClient
from pymilvus.client.cache import GlobalCache

from m3connect.connecting import retry
from m3connect.connecting.collection import closed
from m3connect.connecting.holding import check_space
from m3connect.errors import Unsupported
from m3connect_milvus.engine import lite
from m3connect_milvus.engine.engine import Engine
from m3connect_milvus.errors import NAME, translated

T = TypeVar("T")

_ROOM = 64 * 1024 * 1024
"""Free bytes for one request: its log, its segment and a compaction."""


@dataclass(slots=True)
class Database:
    """A connection that opens when first used.

    Args:
        url: the server's; None for Milvus Lite.
        path: Milvus Lite's folder.
        token: ``user:password`` or an API key.
        name: of the database in the server.
        timeout: seconds that one request may take.
        policy: how transient failures are retried.
        tls: gRPC's TLS options by pymilvus' names.
        shelf: the folder where every collection has a Milvus Lite of its own; None where one holds
            them all.
    """

    url: str | None
    path: Path
    token: str | None
    name: str | None
    timeout: float
    policy: retry.RetryPolicy
    tls: dict[str, Any] = field(default_factory=dict)
    shelf: Path | None = None
    _client: MilvusClient | None = None
    _lite: lite.Lite | None = None
    _closed: bool = False
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def again(self) -> Database:
        """The same database by a connection of its own."""
        return replace(self, _client=None, _lite=None, _closed=False, _opening=threading.Lock())

    def of(self, collection: str) -> Database:
        """Where another collection is: here, or in a Milvus Lite of its own."""
        if self.shelf is None:
            return self
        return replace(self.again(), path=self.shelf / f"{collection}.db")

    def call(self, operation: str, method: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Make an idempotent request: ``method`` of the client, with the time-out."""

        def request(client: MilvusClient) -> T:
            return method(client, *arguments, **options, timeout=self.timeout)

        return self.do(operation, request)

    def do(self, operation: str, request: Callable[[MilvusClient], T]) -> T:
        """Make an idempotent request; transient failures are retried.

        Raises:
            ConnectorError: what the driver raised, as ours.
        """
        return self.retried(lambda: self.once(operation, request))

    def once(self, operation: str, request: Callable[[MilvusClient], T]) -> T:
        """As :meth:`do`, without a retry."""
        client = self._opened(operation)
        with translated(operation):
            return request(client)

    def retried(self, operation: Callable[[], T]) -> T:
        """Run what may fail for a moment, such as several requests that belong together."""
        return retry.call(operation, self.policy)

    def engine(self, operation: str) -> Engine:
        """What answers."""
        if self.url is None:
            return Engine.parse(f"milvus_lite-{version('milvus-lite')}")
        try:
            return Engine.parse(self.call(operation, MilvusClient.get_server_version))
        except Unsupported:
            return Engine.parse("")

    @property
    def present(self) -> bool:
        """Whether opening it would not create it; closed ones count, they say so themselves."""
        return self.url is not None or self._closed or self.path.exists()

    def check_room(self) -> None:
        """Refuse to write where Milvus Lite's disk is too full.

        Raises:
            WritesRefused: says how much is free, and how much is needed.
        """
        if self.url is None:
            check_space(self.path.parent, _ROOM, NAME, "upsert")

    def writing(self) -> AbstractContextManager[object]:
        """Held while writing: Milvus Lite takes one writer at a time, a server any number."""
        return contextlib.nullcontext() if self._lite is None else self._lite.writing

    def check_open(self, operation: str) -> None:
        """Refuse to be used after :meth:`close`.

        Raises:
            PermanentError: it is closed.
        """
        if self._closed:
            raise closed(NAME, operation)

    def remove(self) -> None:
        """Remove Milvus Lite's folder, unless another connector here has it open."""
        self._release()
        lite.remove(self.path)

    def close(self) -> None:
        """Close the connection and, after its last user in this process, Milvus Lite."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lite is not None:
            lite.release(self.path)
            self._lite = None

    def _opened(self, operation: str) -> MilvusClient:
        self.check_open(operation)
        with self._opening:
            if self._client is None:
                _silence_driver()
                self._client = self._connect(self.url or self._start_lite())
            return self._client

    def _start_lite(self) -> str:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._lite is None:
            self._lite = lite.acquire(self.path)
        return self._lite.url

    def _connect(self, url: str) -> MilvusClient:
        # The driver remembers schemas by address and name for as long as the process lives. Since
        # then the collection may have been made anew, or the port may have gone to another server.
        GlobalCache.schema.clear()
        with translated("connect"):
            return MilvusClient(
                url,
                token=self.token or "",
                db_name=self.name or "",
                timeout=self.timeout,
                dedicated=True,
                grpc_options=lite.CHANNEL if self.url is None else {},
                **self.tls,
            )


def _silence_driver() -> None:
    """Keep pymilvus from printing tracebacks of what it raises as well, and warnings about Lite.

    A level that the application has set stays: WARNING is the driver's own.
    """
    logger = logging.getLogger("pymilvus")
    if logger.level in {logging.NOTSET, logging.WARNING}:
        logger.setLevel(logging.CRITICAL)
