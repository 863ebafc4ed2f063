"""Lists that a run writes beside its work, as JSON lines: dead letters, the report of losses."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, Any

from m3connect.errors import ConfigError

_TRIES = 3  # of a line; one replay in the midst of each would be chance enough


class JsonLines:
    """One list: a file that is written line by line; whatever else has its name is left alone.

    Processes may write one file at once: a line is one call of the system, at the end.

    Args:
        path: the file; it is made by :meth:`open` or the first line.
        option: that names it, for messages.
        kind: what it lists, for messages.
        keys: of each line, by which an earlier list is known.
        replace: whether an earlier list goes; otherwise lines are added to it.

    Raises:
        ConfigError: the file cannot be made, or is something else than such a list.
    """

    def __init__(
        self,
        path: str | Path,
        option: str,
        kind: str,
        keys: AbstractSet[str],
        *,
        replace: bool = False,
    ) -> None:
        self.path = Path(path)
        self._option = option
        self._replace = replace
        self._file: IO[bytes] | None = None
        self._check(kind, keys)

    def open(self) -> IO[bytes]:
        """The file, at the end of what stays in it.

        Raises:
            ConfigError: it cannot be made.
        """
        if self._file is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                torn = not self._replace and _is_torn(self.path)
                self._file = self.path.open("wb" if self._replace else "ab", buffering=0)
                if torn:
                    self._file.write(b"\n")
            except OSError as error:
                raise ConfigError(f"{self._option} {self.path}: {error.strerror}") from error
        return self._file

    def write(self, line: Mapping[str, Any]) -> None:
        """Add one line, at once.

        Raises:
            ConfigError: the file cannot be made.
        """
        # Escaped, because a bad id may hold lone surrogates, which UTF-8 cannot.
        content = json.dumps(line).encode() + b"\n"
        for _ in range(_TRIES):
            file = self.open()
            written = 0
            while written < len(content):  # a full disk takes a part, and then raises
                written += file.write(content[written:])
            if self._replace or not self._is_replaced(file):
                return
            # Perhaps after the old file was read to its end: better twice than not at all.
            file.close()
            self._file = None

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _is_replaced(self, file: IO[bytes]) -> bool:
        """Whether another process gave the name to another file, as a replay of dead letters does."""
        try:
            return not os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return True

    def _check(self, kind: str, keys: AbstractSet[str]) -> None:
        """Before a run, not at its first line."""
        path, option = self.path, self._option
        # Not pathlib's exists, which raises where it may not look.
        existing = next(
            each for each in (path, *path.absolute().parents) if os.access(each, os.F_OK)
        )
        if not os.access(existing, os.W_OK):
            raise ConfigError(f"{option} {path}: {existing} cannot be written")
        if existing != path:
            if not existing.is_dir():
                raise ConfigError(f"{option} {path}: {existing} is no folder")
            return
        if not path.is_file():
            raise ConfigError(f"{option} {path} is no regular file")
        try:
            with path.open("rb") as lines:
                first = lines.readline(1 << 20)
        except OSError as error:
            raise ConfigError(f"{option} {path}: {error.strerror}") from error
        if first.strip() and not has_keys(first, keys):
            raise ConfigError(f"{option} {path} exists and is no {kind}; name another file")


def _is_torn(path: Path) -> bool:
    """Whether the last line was not finished, by a process that was killed."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as lines:
        lines.seek(-1, os.SEEK_END)
        return lines.read() != b"\n"


def has_keys(line: bytes, keys: AbstractSet[str]) -> bool:
    """Whether a line is a JSON object with exactly these keys.

    >>> has_keys(b'{"reason": "empty", "where": null}', {"reason", "where"})
    True
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and set(record) == keys
