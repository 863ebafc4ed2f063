"""The ids that a run has come across: each counts once, and millions of them take no memory.

They lie in a temporary file of SQLite's, which no name leads to and which is gone with the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Self

from m3connect.errors import ConfigError

CACHE = 4 << 20  # bytes of it in memory: enough for some ten thousand ids, which make no file
_SETUP = f"""
PRAGMA cache_size=-{CACHE >> 10};
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE seen (id TEXT PRIMARY KEY, source INTEGER) WITHOUT ROWID;
BEGIN;
"""


class Seen:
    """Ids of documents, each with the name of the source that gave it; of one thread at a time.

    >>> with Seen() as seen:
    ...     print(seen.add("a", "docs/"), seen.add("b", "docs/"), seen.add("a", "other/"))
    ...     print("b" in seen, len(seen), seen.sources(), dict(seen.items()))
    True True False
    True 2 {'docs/'} {'a': 'docs/', 'b': 'docs/'}
    """

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.executescript(_SETUP)
        self._sources: dict[str, int] = {}  # few, by the order in which they came
        self._count = 0

    def add(self, id_: str, source: str = "") -> bool:
        """Keep an id; false where it is in already, with the source that it has then.

        Raises:
            ConfigError: there is no room for the file.
        """
        number = self._sources.get(source, len(self._sources))
        try:
            new = self._file.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (id_, number))
        except sqlite3.OperationalError as error:
            raise ConfigError(
                f"the ids of this run find no room in the folder for temporary files ({error}): free "
                "some, or name another folder by TMPDIR; then run again to continue"
            ) from error
        if new.rowcount == 0:
            return False
        self._sources[source] = number
        self._count += 1
        return True

    def __contains__(self, id_: object) -> bool:
        found = self._file.execute("SELECT 1 FROM seen WHERE id = ?", (id_,))
        return found.fetchone() is not None

    def __len__(self) -> int:
        return self._count

    def sources(self) -> set[str]:
        """The names of the sources that gave any."""
        return set(self._sources)

    def items(self) -> Iterator[tuple[str, str]]:
        """Each id with the name of its source, ordered by the ids."""
        names = list(self._sources)
        for id_, number in self._file.execute("SELECT id, source FROM seen ORDER BY id"):
            yield id_, names[number]

    def close(self) -> None:
        """The file goes."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
