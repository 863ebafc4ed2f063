"""An embedded collection has one user at a time: its folder is held before an engine opens it.

The engines lock their folders too, but late: one that is refused may by then have changed files
that the holder has open. Where the disk is full, they crash in a mapped file rather than fail.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock

from m3connect.errors import PermanentError, WritesRefused

SPARE_BYTES = 64 * 1024 * 1024
"""What must be free beside what is written: engines allocate files ahead, and map them."""


class Hold:
    """The right to open one folder.

    Args:
        folder: what is held; named in messages.
        lock: the file that is locked, beside or in the folder. It stays, and says nothing.
        connector: the connector's name.
    """

    def __init__(self, folder: Path, lock: Path, connector: str) -> None:
        self.folder = folder
        self.connector = connector
        self._note = lock.with_suffix(".json")
        self._lock = filelock.FileLock(lock, timeout=0, thread_local=False)

    def acquire(self) -> None:
        """Hold it until :meth:`release`, or until this process ends, however it does.

        Raises:
            PermanentError: another connector, here or elsewhere, holds it; says which process.
        """
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise PermanentError(
                f"{self.folder} is in use by {self._holder()}. An embedded collection has one user "
                "at a time: close it there, or run a server and use --url",
                connector=self.connector,
                operation="open",
            ) from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with suppress(OSError):  # it only makes a message better
            self._note.write_text(json.dumps(holder))

    def release(self) -> None:
        """Let others have it; releasing twice is fine."""
        self._lock.release()

    def _holder(self) -> str:
        try:
            held = json.loads(self._note.read_text())
            process = f"process {held['pid']} on {held['host']} since {held['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
        if (held["pid"], held["host"]) == (os.getpid(), socket.gethostname()):
            return "this very process, through another connector"
        return process


def check_space(folder: Path, needed: int, connector: str, operation: str) -> None:
    """Refuse to write where the disk is too full for an engine that maps its files.

    Args:
        folder: an existing one on the disk.
        needed: bytes that are about to be written.
        connector, operation: for the message.

    Raises:
        WritesRefused: says how much is free, and how much is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise WritesRefused(
            f"the disk of {folder} has {free / 1e6:.0f} MB left, {(needed + SPARE_BYTES) / 1e6:.0f} "
            "MB are needed: free some space, then run again; what was written is safe",
            connector=connector,
            operation=operation,
        )


def folder_bytes(folder: Path) -> int:
    """What a folder holds, as blocks on the disk: engines allocate more than they fill."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
