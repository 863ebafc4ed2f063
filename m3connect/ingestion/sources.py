"""From paths to documents, one at a time: files, folders, globs, URLs and standard input.

What cannot become a document becomes a :class:`Failure` that names file and line, and reading goes
on. Nothing larger than one file of text, or a few hundred rows, is in memory.
"""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import posixpath
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
from fsspec.core import has_magic, url_to_fs
from fsspec.utils import infer_compression

from m3connect.errors import ConfigError, InputError
from m3connect.ingestion.formats import OFFICE, PAGES, RECORDS
from m3connect.ingestion.report import Failure
from m3connect.types import Document

log = logging.getLogger(__name__)

Path = str | os.PathLike[str]

STDIN = "-"
_ID_FIELDS = ("id", "_id")  # taken as the id when no field is named
_COUNT_BYTES = 256 * 1024 * 1024  # files larger than this together are not read just to count
# What a broken file raises while it is read.
_READ_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    UnicodeError,
    csv.Error,
    pa.ArrowException,
    RecursionError,
    InputError,
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    Args:
        filesystem: the fsspec file system it lies in; None is standard input.
        path: within the file system.
        name: relative to the path the user gave, the same on every machine.
    """

    filesystem: Any
    path: str
    name: str

    @property
    def suffix(self) -> str:
        """The format, such as ``.jsonl``, whether or not the file is compressed."""
        if self.filesystem is None:
            return ".jsonl"
        path = PurePosixPath(self.path)
        return (path.with_suffix("") if infer_compression(path.name) else path).suffix.lower()

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Its bytes, decompressed."""
        if self.filesystem is None:
            return nullcontext(sys.stdin.buffer)
        stream: IO[bytes] = self.filesystem.open(self.path, "rb", compression="infer")
        if self.suffix == ".parquet" and infer_compression(self.path):
            return _unpacked(stream)
        return stream


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a record are what.

    Args:
        id: the id; None takes ``id`` or ``_id``, or else makes one of file and line.
        text: the text.
        metadata: what is kept beside them; None keeps all other fields.
    """

    id: str | None = None
    text: str = "text"
    metadata: Sequence[str] | None = None


def read(
    paths: Sequence[Path],
    *,
    id_field: str | None = None,
    text_field: str = "text",
    metadata_fields: Sequence[str] | None = None,
) -> Iterator[Document | Failure]:
    """Documents from files, in a stable order.

    Args:
        paths: files, folders (all of them, sorted), globs, fsspec URLs, or ``-`` for JSON lines on
            standard input. Formats: jsonl, csv, tsv, parquet (a document a row); txt, md, html,
            and with the extra ``files`` pdf, docx, pptx, xlsx (a document a file); each also
            compressed (``.gz``, ``.bz2``, ``.xz``).
        id_field: a record's id; default ``id`` or ``_id``, else ``<file>:<line>``. A file's id is
            its name relative to the given path.
        text_field: a record's text.
        metadata_fields: fields to keep as metadata; default all others. A file's metadata are its
            ``source`` and, where it has one, its ``title``.

    Raises:
        ConfigError: a path does not exist, a named file has an unknown format, or an extra is
            missing. Raised before anything is read.
    """
    fields = Fields(id_field, text_field, metadata_fields)
    for file in find(paths):
        if file.suffix in RECORDS:
            yield from _records(file, fields)
        else:
            yield _page(file)


def count(files: Sequence[SourceFile]) -> int | None:
    """About how many documents files hold; None when only reading them at length would tell."""
    pages = [file for file in files if file.suffix in PAGES]
    records = [file for file in files if file.suffix in RECORDS]
    if any(file.filesystem is None for file in records):
        return None
    if sum(file.filesystem.size(file.path) or 0 for file in records) > _COUNT_BYTES:
        return None
    try:
        return len(pages) + sum(_rows(file) for file in records)
    except _READ_ERRORS:
        return None  # whoever reads it will say what is wrong


# -------------------------------------------------------------------------------- finding files


def find(paths: Sequence[Path]) -> list[SourceFile]:
    """The files that paths stand for; folders and globs leave out what has no known format.

    Raises:
        ConfigError: see :func:`read`.
    """
    files = [file for path in paths for file in _find(os.fspath(path))]
    if any(file.suffix in OFFICE for file in files) and not importlib.util.find_spec("markitdown"):
        named = next(file.name for file in files if file.suffix in OFFICE)
        raise ConfigError(f'reading {named} needs an extra: pip install "m3connect[files]"')
    return files


def _find(path: str) -> list[SourceFile]:
    if path == STDIN:
        return [SourceFile(None, STDIN, "stdin")]
    filesystem, root = _file_system(path)
    if filesystem.isfile(root):
        file = SourceFile(filesystem, root, posixpath.basename(root))
        if not _known(file):
            raise ConfigError(
                f"{path}: unknown format {file.suffix!r}; known: {' '.join([*RECORDS, *PAGES])}, "
                "each also .gz"
            )
        return [file]
    if filesystem.isdir(root):
        return _within(filesystem, filesystem.find(root), root)
    if has_magic(path) and (found := filesystem.glob(root)):
        base = root[: min(root.index(sign) for sign in "*?[" if sign in root)].rpartition("/")[0]
        return _within(filesystem, [each for each in found if filesystem.isfile(each)], base)
    raise ConfigError(f"{path}: no such file or folder")


def _file_system(path: str) -> tuple[Any, str]:
    try:
        filesystem, root = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return filesystem, root


def _within(filesystem: Any, found: Sequence[str], root: str) -> list[SourceFile]:
    """The files below a root that are neither hidden nor of an unknown format, sorted."""
    files = [SourceFile(filesystem, path, posixpath.relpath(path, root)) for path in sorted(found)]
    visible = [file for file in files if not any(p[0] == "." for p in file.name.split("/"))]
    known = [file for file in visible if _known(file)]
    if skipped := len(files) - len(known):
        log.info("%s: left out %d files that are hidden or of an unknown format", root, skipped)
    return known


def _known(file: SourceFile) -> bool:
    return file.suffix in RECORDS or file.suffix in PAGES


@contextmanager
def _unpacked(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """A copy on disk, since Parquet seeks and a compressed stream cannot do so fast."""
    with stream, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


def _rows(file: SourceFile) -> int:
    with file.open() as stream:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            return int(pq.ParquetFile(stream).metadata.num_rows)
        lines, last = 0, b"\n"
        while block := stream.read(1 << 20):
            lines, last = lines + block.count(b"\n"), block[-1:]
    lines += last != b"\n"
    return lines if file.suffix in {".jsonl", ".ndjson"} else max(lines - 1, 0)


# ------------------------------------------------------------------------------ making documents


def _records(file: SourceFile, fields: Fields) -> Iterator[Document | Failure]:
    try:
        with file.open() as stream:
            for number, record in RECORDS[file.suffix](stream):
                where = f"{file.name}:{number}"
                if isinstance(record, str):
                    yield Failure(record, where)
                else:
                    yield _document(record, fields, where)
    except _READ_ERRORS as error:
        yield Failure(f"cannot be read: {error}", file.name)


def _document(record: Mapping[str, Any], fields: Fields, where: str) -> Document | Failure:
    id_field = fields.id or next((name for name in _ID_FIELDS if name in record), None)
    id_ = where if id_field is None else record.get(id_field)
    if isinstance(id_, bool) or not isinstance(id_, str | int) or id_ == "":
        return Failure(f"field {id_field!r} is no id (a text or a whole number): {id_!r}", where)
    text = record.get(fields.text)
    if not isinstance(text, str):
        have = ", ".join(map(str, record)) or "none"
        return Failure(
            f"field {fields.text!r} is no text: {text!r}; fields: {have} (--text-field)",
            where,
            str(id_),
        )
    others = [name for name in record if name not in {id_field, fields.text}]
    chosen = others if fields.metadata is None else [m for m in fields.metadata if m in record]
    return Document(str(id_), text, {name: record[name] for name in chosen})


def _page(file: SourceFile) -> Document | Failure:
    try:
        with file.open() as stream:
            page = PAGES[file.suffix](stream)
    except _READ_ERRORS as error:
        return Failure(f"cannot be read: {error}", file.name, file.name)
    metadata = {"source": file.name} | ({"title": page.title} if page.title else {})
    return Document(file.name, page.text, metadata, page.format)
