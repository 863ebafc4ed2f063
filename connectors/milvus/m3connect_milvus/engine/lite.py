"""Milvus Lite in this process: one server a folder, shared by this process' connectors.

The driver starts it too when given a path, but does not stop it: its lock on the folder stays
until the process ends. It says nothing of why a folder cannot be opened either.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3connect.connecting.holding import Hold
from m3connect.errors import PermanentError
from m3connect_milvus.errors import NAME

CHANNEL = {"grpc.keepalive_time_ms": 2**31 - 1}
"""No pings: Milvus Lite ends connections that ping it, as the driver does every 10 seconds."""
_GRACE = 2.0
"""Seconds that running requests get when it stops."""


@dataclass(slots=True)
class Lite:
    """A running Milvus Lite.

    Args:
        url: where it listens; on this machine only.
        server, database: what to stop and close.
        hold: the lock on its folder.
        writing: it must not be written to by several threads at a time.
        users: connectors that have it open.
    """

    url: str
    server: Any
    database: Any
    hold: Hold
    writing: threading.RLock = field(default_factory=threading.RLock)
    users: int = 0


_running: dict[Path, Lite] = {}
_lock = threading.Lock()


def acquire(path: Path) -> Lite:
    """Start Milvus Lite on a folder, or join it where this process has it open already.

    Raises:
        PermanentError: another process has it open, or it cannot be read.
    """
    path = path.resolve()
    with _lock:
        if path not in _running:
            _running[path] = _start(path)
        lite = _running[path]
        lite.users += 1
        return lite


def release(path: Path) -> None:
    """Stop it after its last user, so that its lock on the folder goes."""
    path = path.resolve()
    with _lock:
        lite = _running[path]
        lite.users -= 1
        if lite.users == 0:
            del _running[path]
            lite.server.stop(grace=_GRACE).wait()
            lite.database.close()
            lite.hold.release()


def remove(path: Path) -> None:
    """Delete the folder of a Milvus Lite that nobody uses any more."""
    path = path.resolve()
    with _lock:
        if path in _running:
            return
        hold = _hold(path)
        hold.acquire()
        try:
            shutil.rmtree(path)
        finally:
            hold.release()


def _hold(path: Path) -> Hold:
    return Hold(path, path.with_name(f"{path.name}.lock"), NAME)


def _start(path: Path) -> Lite:
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from milvus_lite.exceptions import DataDirLockedError, MilvusLiteError

    hold = _hold(path)
    hold.acquire()
    try:
        server, database, port = start_server_in_thread(str(path))
    except BaseException as error:
        hold.release()
        if isinstance(error, DataDirLockedError):
            raise _refusal(
                f"{path} is open in another process, and Milvus Lite lets one in at a time: close "
                "it there, or use a server (--url)"
            ) from error
        if isinstance(error, MilvusLiteError | OSError):
            raise _refusal(f"{path} cannot be opened: {error}") from error
        raise
    return Lite(f"http://127.0.0.1:{port}", server, database, hold)


def _refusal(message: str) -> PermanentError:
    return PermanentError(message, connector=NAME, operation="connect")
