"""From paths to documents, one at a time: files, folders, globs, URLs and standard input.

What cannot become a document becomes a :class:`Failure` that names file and line, and reading goes
on. Nothing larger than one file of text, or a few hundred rows, is in memory.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from typing import IO, Any

from m3connect.conversion.converter import NEEDS_EXTRA, Converter, Page, explain
from m3connect.errors import ConfigError
from m3connect.ingestion import values
from m3connect.ingestion.files import SourceFile, is_local
from m3connect.ingestion.formats import (
    PAGES,
    RECORDS,
    Fields,
    Options,
    read_page,
    without_images,
)
from m3connect.ingestion.listing import find
from m3connect.ingestion.losses import LOSS_KEYS
from m3connect.ingestion.report import LETTER_FIELDS, Failure
from m3connect.ingestion.selection import Path, Remarks, Selection
from m3connect.ingestion.separated import Row
from m3connect.ingestion.tables import ID_FIELDS, identifier, shown
from m3connect.types import Document

__all__ = ["Path", "SourceFile", "alone", "count", "find", "read", "read_files", "seekable"]

log = logging.getLogger(__name__)

_COUNT_BYTES = 256 * 1024 * 1024  # files larger than this together are not read just to count
OWN_LISTS = {LETTER_FIELDS: "dead letters", LOSS_KEYS: "reports of losses"}
"""What earlier runs may have left among the sources, told by its keys."""
ENDS_A_RUN = (ConfigError,)
"""What no single file is to blame for; whatever else reading raises is one file's failure."""


def read(
    paths: Sequence[Path],
    *,
    id_field: str | None = None,
    text_field: str = "text",
    metadata_fields: Sequence[str] | None = None,
    selection: Selection | None = None,
    remarks: Remarks | None = None,
) -> Iterator[Document | Failure]:
    """Documents from files, in a stable order.

    Args:
        paths: files, folders (all of them, sorted), globs, fsspec URLs, or ``-`` for JSON lines on
            standard input. Formats: jsonl, json, csv, tsv, parquet (a document a row); text,
            Markdown, HTML, mail and source code, and with the extra ``files`` pdf, docx, pptx,
            xlsx, epub, ipynb, odt, xml (a document a file); each also compressed.
        id_field: a record's id; default ``id`` or ``_id``, else ``<file>:<line>``. A file's id is
            its name relative to the given path.
        text_field: a record's text.
        metadata_fields: fields to keep as metadata; default all others. A file's metadata are what
            it says of itself, its ``source`` and, where it has one, its ``title``.
        selection: which files of a folder are read.
        remarks: counts what is left out or guessed.

    Raises:
        ConfigError: a path does not exist, a named file has an unknown format, or there is nothing
            to read. Raised before anything is read.
    """
    options = Options(Fields(id_field, text_field, metadata_fields))
    remarks = Remarks() if remarks is None else remarks
    yield from read_files(find(paths, selection, remarks), options, remarks)


def read_files(
    files: Sequence[SourceFile], options: Options | None = None, remarks: Remarks | None = None
) -> Iterator[Document | Failure]:
    """The documents of files that :func:`m3connect.ingestion.listing.find` found.

    Args:
        files: in this order.
        options: how they are read.
        remarks: counts what is left out or guessed.
    """
    options = options or Options()
    remarks = Remarks() if remarks is None else remarks
    with Converter(options.seconds, options.file_bytes) as converter:
        for file in files:
            if file.suffix in RECORDS:
                documents = _records(file, options, remarks)
            else:
                documents = _page(file, options, converter, remarks)
            yield from alone(documents, file)


def alone(
    documents: Iterator[Document | Failure], file: SourceFile
) -> Iterator[Document | Failure]:
    """What a file gives; whatever a library raises of it is one failure, and costs no other file.

    What ends a run is in ``ENDS_A_RUN``: it is no file's fault. (What is no ``Exception``, such as
    Ctrl-C, ends it too.) Failures get the root of the file here.
    """
    try:
        for each in documents:
            yield replace(each, root=file.root) if isinstance(each, Failure) else each
    except ENDS_A_RUN:
        raise
    except Exception as error:  # noqa: BLE001 - that is the purpose
        yield Failure(f"cannot be read: {explain(error)}", file.name, file.name, file.root)


def count(files: Sequence[SourceFile]) -> int | None:
    """About how many documents files hold; None when only reading them at length would tell."""
    pages = [file for file in files if file.suffix in PAGES]
    records = [file for file in files if file.suffix in RECORDS]
    if any(file.filesystem is None or file.suffix == ".json" for file in records):
        return None
    if not all(is_local(file.filesystem) for file in records):
        return None  # remote files are read once, not twice
    try:
        if sum(file.filesystem.size(file.path) or 0 for file in records) > _COUNT_BYTES:
            return None
        return len(pages) + sum(_rows(file) for file in records)
    except Exception as error:  # noqa: BLE001 - whoever reads it will say what is wrong
        log.debug("not counted: %s", error)
        return None


def _rows(file: SourceFile) -> int:
    with file.open() as stream:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            with seekable(file, stream) as copy:
                return int(pq.ParquetFile(copy).metadata.num_rows)
        lines, last = 0, b"\n"
        while block := stream.read(1 << 20):
            lines, last = lines + block.count(b"\n"), block[-1:]
    lines += last != b"\n"
    return lines if file.suffix in {".jsonl", ".ndjson"} else max(lines - 1, 0)


@contextmanager
def seekable(file: SourceFile, stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """A copy on disk if need be, since Parquet seeks and a compressed stream cannot do so fast."""
    if file.compression is None:
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


# ------------------------------------------------------------------------------ making documents


def _records(file: SourceFile, options: Options, remarks: Remarks) -> Iterator[Document | Failure]:
    with file.open() as opened:
        if file.filesystem is not None and _is_empty(opened):
            return
        with seekable(file, opened) if file.suffix == ".parquet" else _as_it_is(opened) as stream:
            rows = iter(RECORDS[file.suffix](stream, options))
            first = list(islice(rows, 2 if file.suffix == ".json" else 1))
            if _holds_no_documents(file, first, options.fields.text, remarks):
                return
            for number, record in chain(first, rows):
                where = f"{file.name}:{number}"
                if isinstance(record, str):
                    yield Failure(record, where)
                else:
                    yield _document(record, options, where, file.root, remarks)


def _holds_no_documents(
    file: SourceFile, first: Sequence[Row], text_field: str, remarks: Remarks
) -> bool:
    """By its first two rows: one of our own lists, or the one object that settings and schemas are.

    A file that was chosen, by its name or a glob, holds documents: its user says so.
    """
    if not first or isinstance(record := first[0][1], str):
        return False
    if own := OWN_LISTS.get(frozenset(record)):
        remarks.left_out[own] += 1
        return True
    among_others = file.root.endswith("/") and not file.part
    settings = file.suffix == ".json" and len(first) == 1 and text_field not in record
    if among_others and settings:
        remarks.leave(file.name, f".json without {text_field!r}")
    return among_others and settings


def _is_empty(stream: IO[bytes]) -> bool:
    empty = not stream.read(1)
    stream.seek(0)
    return empty


@contextmanager
def _as_it_is(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    yield stream


def _document(
    record: Mapping[str, Any], options: Options, where: str, root: str, remarks: Remarks
) -> Document | Failure:
    fields = options.fields
    id_field = fields.id or next((name for name in ID_FIELDS if name in record), None)
    given = where if id_field is None else record.get(id_field)
    id_ = identifier(given)
    if id_ is None:
        return Failure(
            f"field {id_field!r} is no id (a text or a whole number): {shown(given)}", where
        )
    id_ = options.id_prefix + id_
    text = record.get(fields.text)
    if not isinstance(text, str):
        have = ", ".join(map(str, record)) or "none"
        return Failure(
            f"field {fields.text!r} is no text: {shown(text)}; fields: {have} (--text-field)",
            where,
            id_,
        )
    others = [name for name in record if name not in {id_field, fields.text}]
    chosen = others if fields.metadata is None else [m for m in fields.metadata if m in record]
    metadata = {name: record[name] for name in chosen}
    if fault := "the text holds NUL characters" if "\0" in text else values.fault(metadata):
        return Failure(fault, where, id_)
    text, dropped = without_images(text)
    remarks.drop_images(id_, dropped)
    return Document(id_, text, metadata, source=root, where=where)


def _page(
    file: SourceFile, options: Options, converter: Converter, remarks: Remarks
) -> Iterator[Document | Failure]:
    id_ = options.id_prefix + file.name
    if file.suffix in NEEDS_EXTRA and not importlib.util.find_spec("markitdown"):
        reason = f'reading {file.suffix} needs an extra: pip install "m3connect[files]"'
        yield Failure(reason, file.name, id_)
        return
    with file.open() as stream:
        page = read_page(stream, file.suffix, options, converter)
    if page.guessed:
        remarks.guessed[page.guessed] += 1
    metadata = _page_metadata(page, file.name, options.fields)
    fault = "the text holds NUL characters" if "\0" in page.text else values.fault(metadata)
    if fault:
        yield Failure(fault, file.name, id_)
    else:
        text, dropped = without_images(page.text)
        remarks.drop_images(id_, dropped)
        yield Document(id_, text, metadata, page.format, file.root, file.name)


def _page_metadata(page: Page, name: str, fields: Fields) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in page.metadata.items()
        if fields.metadata is None or key in fields.metadata
    }
    kept["source"] = name
    if page.title:
        kept["title"] = page.title
    if page.guessed:
        kept["encoding"] = page.guessed
    return kept
