"""What is made of a model's files once and kept in the user's cache folder, so that a start is quick.

A cache that cannot be written or read costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from m3connect import disk
from m3connect.errors import M3ConnectError

_MADE_OF = "made_of.txt"
Opened = TypeVar("Opened")

_log = logging.getLogger(__name__)


def kept(
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
        return reopen(folder)
    except (OSError, M3ConnectError) as error:
        _log.info("the prepared model is not kept: %s", error)
        return None


def _facts(file: Path) -> str:
    facts = file.stat()
    return f"{file.name} {facts.st_size} {facts.st_mtime_ns}"
