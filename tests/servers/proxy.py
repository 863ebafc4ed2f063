"""A TCP proxy between a client and a server that can spoil exchanges, for fault tests.

with FaultProxy("127.0.0.1", 9200) as proxy:
    connector = connect(collection="c", url=proxy.url)
    proxy.spoil(Cut(), Answer(503), Delay(2.0))  # the next three exchanges, in this order
    connector.upsert(batch)
    assert proxy.left == 0

An exchange starts with the client's first bytes after an answer (or on a new connection). All but
``Answer``, which speaks HTTP/1.1, work on any protocol.
"""

from __future__ import annotations

import re
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends a reset instead of an orderly end."""


@dataclass(frozen=True)
class Drop:
    """The connection is reset before the request reaches the server."""


@dataclass(frozen=True)
class Cut:
    """The request is served, but the connection is reset after so many bytes of its answer."""

    after: int = 0


@dataclass(frozen=True)
class Truncate:
    """The request is served, but the connection ends in good order within its answer."""

    after: int = 0


@dataclass(frozen=True)
class HalfClose:
    """The request is served; the client is sent the end of the stream, yet nothing is closed."""


@dataclass(frozen=True)
class Delay:
    """The request is served at once, its answer passed on so many seconds later."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """The request does not reach the server; it is answered with this HTTP response."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self) -> bytes:
        """The response on the wire."""
        length = {"Content-Length": str(len(self.body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in {**length, **self.headers}.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Fault = Drop | Cut | Truncate | HalfClose | Delay | Answer


class FaultProxy:
    """Listens on a free loopback port and passes everything on, but for the faults ordered.

    Args:
        host, port: the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.faults: deque[Fault] = deque()
        self.exchanges = 0
        self.closing = threading.Event()
        self.threads: list[threading.Thread] = []

    def spoil(self, *faults: Fault) -> None:
        """Spoil the next exchanges, one fault each."""
        self.faults.extend(faults)

    @property
    def left(self) -> int:
        """Faults that have not met an exchange yet."""
        return len(self.faults)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        for thread in self.threads:
            thread.join(5)
        self.listener.close()

    def _start(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self.listener.settimeout(0.05)
        while not self.closing.is_set():
            with suppress(TimeoutError):
                client, _ = self.listener.accept()
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self.target, timeout=5)
            except OSError:
                _reset(client)
                return
            with server, suppress(OSError):
                server.settimeout(None)
                _Connection(self, client, server).run()

    def next_fault(self) -> Fault | None:
        """What the exchange that now begins is to suffer."""
        self.exchanges += 1
        return self.faults.popleft() if self.faults else None


class _Connection:
    """One client's connection and the server's, passed on until one of them ends."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.fault: Fault | None = None
        self.answered = 0
        self.between = True

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.client, selectors.EVENT_READ, self._from_client)
            selector.register(self.server, selectors.EVENT_READ, self._from_server)
            while not self.proxy.closing.is_set():
                for key, _ in selector.select(0.05):
                    if not key.data():
                        return

    def _from_client(self) -> bool:
        """Pass a part of a request on; False ends the connection."""
        data = self.client.recv(CHUNK)
        if not data:
            return False
        if self.between:
            self.between, self.answered = False, 0
            self.fault = self.proxy.next_fault()
        if isinstance(self.fault, Drop):
            _reset(self.client)
            return False
        if isinstance(self.fault, Answer):
            _read_request(self.client, data)
            self.client.sendall(self.fault.encode())
            return False
        self.server.sendall(data)
        return True

    def _from_server(self) -> bool:
        """Pass a part of an answer on; False ends the connection."""
        data = self.server.recv(CHUNK)
        self.between = True
        match self.fault:
            case Delay(seconds) if not self.answered:
                self.proxy.closing.wait(seconds)
            case HalfClose():
                self.client.shutdown(socket.SHUT_WR)
                self._await_the_clients_end()
                return False
            case Cut(after) | Truncate(after) if self.answered + len(data) >= after:
                self.client.sendall(data[: after - self.answered])
                if isinstance(self.fault, Cut):
                    _reset(self.client)
                return False
        self.client.sendall(data)
        self.answered += len(data)
        return bool(data)

    def _await_the_clients_end(self) -> None:
        self.client.settimeout(0.05)
        while not self.proxy.closing.is_set():
            with suppress(TimeoutError):
                if not self.client.recv(CHUNK):
                    return


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def _read_request(client: socket.socket, data: bytes) -> None:
    """The rest of an HTTP request whose first bytes are ``data``."""
    while b"\r\n\r\n" not in data:
        data += client.recv(CHUNK)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head)
    while (length and len(body) < int(length[1])) or (chunked and not body.endswith(b"0\r\n\r\n")):
        more = client.recv(CHUNK)
        if not more:
            return
        body += more
