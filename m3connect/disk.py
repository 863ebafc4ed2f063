"""Writing to a disk that may be full: what has its name is whole. The only "write aside, then rename"."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from m3connect.errors import ConfigError, M3ConnectError

_ENDING = ".unfinished"
_NO_NAMES = frozenset({"", ".", ".."})


def cache_folder() -> Path:
    """``m3connect`` in the user's cache folder: what may be deleted at any time and is made again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "m3connect"


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
    """Where the processes of one run write something together, beside the name that it will have."""
    return target.with_name(f"{target.name}{_ENDING}")


def own(target: Path) -> Path:
    """Where this writer alone writes what is to have a name, in the same folder.

    The name tells host and process, so that what a killed process left is known and removed here:
    ``corpus.arrow`` -> ``corpus.arrow.host.4711.1f2e3d4c.unfinished``.

    Args:
        target: the name; its parent is made if need be.

    Returns:
        a path at which nothing is.

    Raises:
        ConfigError: the target ends in no name.
    """
    if target.name in _NO_NAMES:
        raise ConfigError(f"{str(target)!r} is no name to write to")
    target.parent.mkdir(parents=True, exist_ok=True)
    begin = f"{target.name}.{socket.gethostname()}."
    for left in target.parent.glob(f"{glob.escape(begin)}*.*{_ENDING}"):
        process = left.name.removeprefix(begin).split(".")[0]
        if process.isdecimal() and not _runs(int(process)):
            remove(left)
    return target.with_name(f"{begin}{os.getpid()}.{secrets.token_hex(4)}{_ENDING}")


def require_file_name(path: Path) -> None:
    """See that a file may have this name: asked before the work whose result it is to hold.

    Raises:
        ConfigError: a folder has it, or it is none.
    """
    if path.is_dir() or path.name in _NO_NAMES:
        raise ConfigError(f"{str(path)!r} is a folder: name a file to write to")


def take_place(written: Path, target: Path) -> None:
    """Give what is written its name; what had it is removed, but never a folder for a file.

    Args:
        written: a file or folder, written to its end.
        target: its name, in the same folder.

    Raises:
        ConfigError: a file was written, and a folder has its name.
    """
    if not written.is_dir():
        require_file_name(target)
    elif target.is_dir():
        shutil.rmtree(target)
    written.replace(target)


@contextmanager
def aside(target: Path, advice: str = "Make room, and run it again.") -> Iterator[Path]:
    """Write a file or folder aside: it has its name when it is whole, and on an error never.

    Of two writers of one file the last to finish has the name; neither sees the other's half.

    Args:
        target: the name it is to have; its parent is made if need be.
        advice: what to do when it cannot be written.

    Yields:
        the path to write to; nothing is there yet.

    Raises:
        M3ConnectError: it could not be written. Errors of what is read meanwhile pass unchanged.
    """
    path: Path | None = None
    try:
        path = own(target)
        yield path
        take_place(path, target)
    except BaseException as error:
        if path is not None:
            remove(path)
        if isinstance(error, OSError) and _is_of(target, error):
            raise _could_not(target, error, advice) from error
        raise


def _is_of(target: Path, error: OSError) -> bool:
    """Whether an error is of writing: none of a connection, nor of a file that lies elsewhere."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return False
    named = error.filename
    # The path that is written to begins with the target's; a folder to be made is its parent.
    return named is None or (
        isinstance(named, (str, Path))
        and (str(named).startswith(str(target)) or Path(named) in target.parents)
    )


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _could_not(path: Path, error: Exception, advice: str) -> M3ConnectError:
    existing = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free / 1e9
    return M3ConnectError(
        f"{path} could not be written ({str(error).strip()}); {free:.1f} GB are free there. {advice}"
    )
