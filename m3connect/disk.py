"""Writing to a disk that may be full: what has its name is whole. The only "write aside, then rename"."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from m3connect.errors import M3ConnectError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
        raise _could_not(path, error, advice) from error


def unfinished(target: Path) -> Path:
    """Where something is written until it is whole, beside the name that it will have."""
    return target.with_name(f"{target.name}.unfinished")


def take_place(target: Path) -> None:
    """Give what lies at :func:`unfinished` its name; what had it is removed.

    Args:
        target: the name of a file or folder that is now written to its end.
    """
    if target.is_dir():
        shutil.rmtree(target)
    unfinished(target).replace(target)


@contextmanager
def aside(target: Path, advice: str = "Make room, and run it again.") -> Iterator[Path]:
    """Write a file or folder aside: it has its name when it is whole, and on an error never.

    What an interrupted run left there is removed first. Two processes must not write the same target.

    Args:
        target: the name it is to have; its parent is made if need be.
        advice: what to do when there is no room.

    Yields:
        the path to write to; nothing is there yet.

    Raises:
        M3ConnectError: there is no room.
    """
    path = unfinished(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    try:
        yield path
        take_place(target)
    except OSError as error:
        _remove(path)
        if error.errno not in _NO_ROOM:
            raise
        raise _could_not(target, error, advice) from error
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _could_not(path: Path, error: Exception, advice: str) -> M3ConnectError:
    free = shutil.disk_usage(path.parent).free / 1e9
    return M3ConnectError(
        f"{path} could not be written ({str(error).strip()}); {free:.1f} GB are free there. {advice}"
    )
