"""A collection that many processes reach by its address, and that can make them die: for pipelines.

    with serve() as server:
        server.fail_at = {3}                      # of all writes: the client dies when it has written
        connect("shared", collection="docs", url=server.url)
        server.collection                         # the MemoryConnector behind it

``install`` makes the name ``shared`` known to every process that inherits PYTHONPATH.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from m3connect.errors import M3ConnectError
from m3connect.stores.memory import MemoryConnector

KEY = b"a test on this machine"


class Server:
    """One collection.

    Args:
        listener: where calls come in.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.url = f"http://127.0.0.1:{listener.address[1]}"
        self.collection = MemoryConnector(collection="docs")
        self.fail_at: set[int] = set()
        """After these writes, counted from 1, and before they are acknowledged, the client fails."""
        self.how: Literal["killed", "raise"] = "killed"
        self.writes = 0
        self.failed = 0
        self.poison: str | None = None
        """A document that is never written: every client dies of it."""
        self.held: list[str] | None = None
        """As long as this is a list, clients that write wait; it has the documents that came."""

    def run(self) -> None:
        """Answer until the listener is closed."""
        while True:
            try:
                with self.listener.accept() as connection:
                    connection.send(self.answer(*connection.recv()))
            except OSError:
                return

    def answer(self, method: str, args: tuple, kwargs: dict) -> tuple[str, Any]:
        """What a call gives, or how the client is to fail."""
        if method == "upsert" and (held := self.held) is not None:
            held += {each["document_id"] for each in args[0].payloads}
            return "later", None
        if method == "upsert" and self.poison in {each["document_id"] for each in args[0].payloads}:
            self.failed += 1
            return self.how, OSError(f"the connection broke at {self.poison}")
        try:
            result = getattr(self.collection, method)(*args, **kwargs)
        except M3ConnectError as error:
            return "raise", error
        if method == "scan":
            result = list(result)
        if method == "upsert":
            self.writes += 1
            if self.writes in self.fail_at:
                self.failed += 1
                return self.how, OSError(f"the connection broke after write {self.writes}")
        return "result", result


@contextmanager
def serve() -> Iterator[Server]:
    """A server in this process, on the loopback address."""
    with Listener(("127.0.0.1", 0), backlog=64, authkey=KEY) as listener:
        server = Server(listener)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        yield server


class Shared:
    """The connector: each call is a connection of its own, so that it may be made by anyone."""

    name = "shared"
    capabilities = replace(MemoryConnector.capabilities, embedded=False)

    def __init__(self, *, collection: str, url: str) -> None:
        self.collection = collection
        self._address = ("127.0.0.1", urlsplit(url).port)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args, **kwargs: self._call(method, args, kwargs)

    def _call(self, method: str, args: tuple, kwargs: dict) -> Any:
        with Client(self._address, authkey=KEY) as client:
            client.send((method, args, kwargs))
            kind, result = client.recv()
        if kind == "later":
            time.sleep(0.1)
            return self._call(method, args, kwargs)
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "raise":
            raise result
        return result

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def install(folder: Path) -> None:
    """Make ``connect("shared", ...)`` work in all processes that this one will start."""
    info = folder / "shared-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shared\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[m3connect.connectors]\nshared = shared:Shared\n")
    (folder / "shared.py").symlink_to(__file__)
