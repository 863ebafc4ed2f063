"""Writing to a disk that may be full: what is there is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from m3connect.errors import M3ConnectError


@contextmanager
def writing(path: Path, advice: str) -> Iterator[None]:
    """Say where a file could not be written, how much room there is, and what to do.

    Libraries report a full disk as ``OSError``, ``RuntimeError`` (torch) or ``SafetensorError``.

    Args:
        path: a file or folder that is written, whose parent exists.
        advice: what to do when it fails.

    Raises:
        M3ConnectError: it could not be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(path.parent).free / 1e9
        raise M3ConnectError(
            f"{path} could not be written ({str(error).strip()}); {free:.1f} GB are free there. {advice}"
        ) from error


def take_place(finished: Path, target: Path) -> None:
    """Give a folder that is written to its end the name it is read by; what had it is removed."""
    if target.exists():
        shutil.rmtree(target)
    finished.rename(target)
