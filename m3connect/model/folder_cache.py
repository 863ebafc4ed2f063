"""What is made of a model's files once and kept in the user's cache folder, so that a start is quick.

A cache that cannot be written or read costs time and nothing else. What was not used for a month
is removed when something is added, and what was used longest ago where all of it takes too much.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from m3connect import disk
from m3connect.errors import M3ConnectError

UNUSED_SECONDS = 30 * 24 * 3600
MOST_BYTES = 4 << 30

_MADE_OF = "made_of.txt"
"""In each folder; the time of its last change is when the folder was last used."""
Opened = TypeVar("Opened")

_log = logging.getLogger(__name__)


def cached_folder(
    name: str,
    sources: Sequence[Path],
    version: str,
    make: Callable[[Path], None],
    reopen: Callable[[Path], Opened],
) -> Opened | None:
    """What ``reopen`` gives of a folder that ``make`` filled, now or in an earlier process.

    The folder is ``m3connect/models/NAME-...`` in the user's cache folder, one for each place of the
    sources: a model that is installed or trained again takes the room of the old one.

    Args:
        name: begins the folder's name.
        sources: the files that it is made of, by size and time of their last change; at least one.
        version: of what makes it.
        make: fills a new folder.
        reopen: opens a filled one.

    Returns:
        None where it cannot be kept: then do without.
    """
    made_of = "\n".join([version, *map(_facts, sources)])
    where = hashlib.sha256(str(sources[0].resolve().parent).encode()).hexdigest()[:16]
    folder = disk.cache_folder() / "models" / f"{name}-{where}"
    try:
        if (folder / _MADE_OF).read_text(encoding="utf-8") == made_of:
            with suppress(OSError):  # another user's, who may read it
                os.utime(folder / _MADE_OF)
            return reopen(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, M3ConnectError) as error:
        _log.warning("%s cannot be used and is made again: %s", folder, error)
    try:
        with disk.aside(folder) as new:
            new.mkdir()
            with disk.writing(new, "It is made again at each start until there is room."):
                make(new)
                (new / _MADE_OF).write_text(made_of, encoding="utf-8")
        with suppress(OSError):  # another process removes, too
            _trim(folder)
        return reopen(folder)
    except (OSError, M3ConnectError) as error:
        _log.info("the prepared model is not kept: %s", error)
        return None


def _trim(newest: Path) -> None:
    """Remove what was not used for long, or is too much; processes that have it open keep it."""
    used = {made.parent: made.stat().st_mtime for made in newest.parent.glob(f"*/{_MADE_OF}")}
    used[newest] = time.time()
    total = 0
    for folder in sorted(used, key=used.__getitem__, reverse=True):
        total += sum(file.stat().st_size for file in folder.iterdir())
        old = time.time() - used[folder] > UNUSED_SECONDS
        if folder != newest and (old or total > MOST_BYTES):
            disk.remove(folder)


def _facts(file: Path) -> str:
    facts = file.stat()
    return f"{file.name} {facts.st_size} {facts.st_mtime_ns}"
