"""JSON lines: read in order, read by row, written. The one place that does.

:func:`read` streams, gzipped or not. :class:`Records` gives random access; in memory are only offsets:
JSON lines are read where they lie, everything else is written once, as JSON lines, into a temporary
file without a name.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

from m3connect.disk import aside, require_file_name
from m3connect.errors import InputError

_READ_ROWS = 1024


def read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """``file:line`` and the object of every line that is not blank.

    Args:
        path: JSON lines, gzipped where the name ends so.

    Raises:
        InputError: a line that is no JSON object, a text that is no UTF-8, or a broken archive; names
            file and line.
    """
    for where, line in text_lines(path):
        yield where, parse(line, where)


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """``file:line`` and the text of every line that is not blank.

    Args:
        path: a text, gzipped where the name ends so.

    Raises:
        InputError: the text is no UTF-8, or the archive is broken.
    """
    number = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as lines
        ):
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: after line {number}: not UTF-8: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: after line {number}: cannot be unpacked: {error}") from error


def parse(line: str | bytes, where: str) -> dict[str, Any]:
    """The object of a line.

    Raises:
        InputError: it holds none; begins with ``where``.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object, got {line[:60]!r}")
    return value


def write(path: Path, objects: Iterable[Mapping[str, Any]]) -> int:
    """Write objects as lines; gzipped where the name ends so. The file is there when it is whole.

    Args:
        path: the file.
        objects: JSON values; what streams is written as it comes.

    Returns:
        how many lines were written.

    Raises:
        ConfigError: the path is a folder.
        M3ConnectError: there is no room.
    """
    require_file_name(path)
    with (
        aside(path) as unfinished,
        # Half a surrogate pair, which UTF-8 cannot hold, becomes JSON's own escape of it.
        gzip.open(unfinished, "wt", encoding="utf-8", errors="backslashreplace")
        if path.suffix == ".gz"
        else unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        count = 0
        for value in objects:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
            count += 1
    return count


class Records:
    """Records by row.

    Args:
        name: for messages, such as the file's path.
        lines: JSON lines, readable at any offset.
    """

    def __init__(self, name: str, lines: IO[bytes]) -> None:
        self.name = name
        self._file = lines
        weakref.finalize(self, lines.close)
        self._starts = array("q")
        self._numbers = array("q")
        offset = 0
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._starts.append(offset)
                self._numbers.append(number)
            offset += len(line)
        self._end = offset

    @classmethod
    def open(cls, path: Path) -> Self:
        """The records of a ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` file.

        Raises:
            InputError: there is no such file, or it is of another kind.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if path.suffix == ".parquet":
            return cls.of(str(path), _parquet_rows(path))
        if path.name.endswith(".jsonl.gz"):
            return cls(str(path), _unzipped(path))
        if path.suffix == ".jsonl":
            return cls(str(path), path.open("rb"))
        raise InputError(f"{path}: examples are .jsonl, .jsonl.gz or .parquet")

    @classmethod
    def of(cls, name: str, objects: Iterable[Mapping[str, Any]]) -> Self:
        """Records of JSON objects, kept on disk."""
        with ExitStack() as unfinished:
            target = unfinished.enter_context(_nameless_file())
            target.writelines(json.dumps(record).encode() + b"\n" for record in objects)
            target.seek(0)
            unfinished.pop_all()  # it stays open for as long as the records are used
        return cls(name, target)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The record of a row.

        Raises:
            InputError: the line holds no JSON object; names file and line.
        """
        start = self._starts[row]
        end = self._starts[row + 1] if row + 1 < len(self) else self._end
        return parse(os.pread(self._file.fileno(), end - start, start), self.where(row))

    def where(self, row: int) -> str:
        """``file:line`` of a row, for messages (in Parquet the line is the row)."""
        return f"{self.name}:{self._numbers[row]}"


def _nameless_file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _unzipped(path: Path) -> IO[bytes]:
    target = _nameless_file()
    try:
        with gzip.open(path, "rb") as source:
            shutil.copyfileobj(source, target)
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be unpacked: {error}") from error
    target.seek(0)
    return target


def _parquet_rows(path: Path) -> Iterable[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path, page_checksum_verification=True).iter_batches(_READ_ROWS):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
