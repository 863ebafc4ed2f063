"""How each file format becomes records (one document a row) or a page (one document a file)."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from functools import cache, partial
from typing import IO, Any, Literal

from m3connect.errors import InputError

Row = tuple[int, Mapping[str, Any] | str]
"""A row's number, and either its fields or the reason why they cannot be told."""

PARQUET_ROWS = 256  # rows in memory at once


@dataclass(frozen=True, slots=True)
class Page:
    """A whole file as one text."""

    text: str
    title: str | None = None
    format: Literal["text", "markdown"] = "text"


# ------------------------------------------------------------------------------- records, by row


def read_jsonl(stream: IO[bytes]) -> Iterator[Row]:
    """One JSON object a line; blank lines are skipped."""
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield number, _json_object(line)


def _json_object(line: bytes) -> Mapping[str, Any] | str:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _undecodable(error)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        return "not JSON that can be read: nested too deeply"
    if not isinstance(record, dict):
        return f"a line must be a JSON object, this one is {type(record).__name__}"
    return record


def read_csv(stream: IO[bytes], *, delimiter: str) -> Iterator[Row]:
    """Rows under a header line; every value is a string. The number is the row's first line."""
    # The library's limit of 128 KiB a field would refuse long documents.
    csv.field_size_limit(sys.maxsize)
    # Undecodable bytes become surrogates, so that they cost one row and not the rest of the file.
    with io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv.DictReader(lines, delimiter=delimiter)
        names = rows.fieldnames or []
        if len(set(names)) < len(names):
            raise InputError(f"the header names a field twice: {', '.join(names)}")
        start = rows.reader.line_num + 1
        for row in rows:
            yield start, _csv_record(row)
            start = rows.reader.line_num + 1


def _csv_record(row: dict[str | Any, str | Any]) -> Mapping[str, Any] | str:
    if None in row:
        return "more fields than the header names"
    if None in row.values():
        return "fewer fields than the header names"
    try:
        "".join(row.values()).encode()
    except UnicodeEncodeError as error:
        return f"not UTF-8: {error.object[error.start : error.end]!r}"
    return row


def read_parquet(stream: IO[bytes]) -> Iterator[Row]:
    """Rows of a Parquet file, a few hundred in memory at a time; numbers count from 1."""
    import pyarrow.parquet as pq

    number = 0
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=PARQUET_ROWS):
        for record in batch.to_pylist():
            number += 1
            yield number, {key: json_value(value) for key, value in record.items()}


def json_value(value: Any) -> Any:
    """Dates as ISO 8601, decimals as numbers; what JSON lacks altogether is left for later."""
    match value:
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case Decimal():
            return float(value)
        case dict():
            return {key: json_value(item) for key, item in value.items()}
        case list():
            return [json_value(item) for item in value]
        case _:
            return value


# --------------------------------------------------------------------------------- pages, by file


def read_text(stream: IO[bytes]) -> Page:
    """Plain text in UTF-8."""
    return Page(_decode(stream.read()))


def read_markdown(stream: IO[bytes]) -> Page:
    """Markdown; its title is the heading it opens with."""
    text = _decode(stream.read())
    first = text.lstrip().partition("\n")[0]
    return Page(text, first[2:].strip() if first.startswith("# ") else None, "markdown")


def read_html(stream: IO[bytes]) -> Page:
    """HTML as Markdown, in the encoding it declares or UTF-8; scripts and styles are left out."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(_decode_html(stream.read()), "html.parser")
    title = soup.title.get_text(strip=True) if soup.title else None
    for tag in soup(["head", "script", "style", "template", "noscript"]):
        tag.decompose()
    text = MarkdownConverter(heading_style="ATX").convert_soup(soup)
    return Page(text.strip(), title or None, "markdown")


def _decode_html(content: bytes) -> str:
    """Strictly: guessing, as the parser would, depends on what else is installed."""
    from bs4.dammit import EncodingDetector

    content, marked = EncodingDetector.strip_byte_order_mark(content)
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    try:
        return content.decode(marked or declared or "utf-8")
    except LookupError as error:
        raise InputError(f"the page declares the unknown encoding {declared!r}") from error


def read_office(stream: IO[bytes], *, suffix: str) -> Page:
    """PDF and office files as Markdown, through markitdown (extra ``files``)."""
    from markitdown import MarkItDownException, StreamInfo

    content = io.BytesIO(stream.read())
    try:
        result = _markitdown().convert_stream(content, stream_info=StreamInfo(extension=suffix))
    except MarkItDownException as error:
        raise InputError(f"markitdown cannot read it: {error}") from error
    return Page(result.markdown, result.title, "markdown")


@cache
def _markitdown() -> Any:
    from markitdown import MarkItDown

    return MarkItDown(enable_plugins=False)


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(_undecodable(error)) from error


def _undecodable(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte {error.object[error.start]:#04x} at byte {error.start + 1}"


RECORDS: Mapping[str, Callable[[IO[bytes]], Iterator[Row]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": partial(read_csv, delimiter=","),
    ".tsv": partial(read_csv, delimiter="\t"),
    ".parquet": read_parquet,
}
OFFICE: Mapping[str, Callable[[IO[bytes]], Page]] = {
    suffix: partial(read_office, suffix=suffix) for suffix in (".pdf", ".docx", ".pptx", ".xlsx")
}
PAGES: Mapping[str, Callable[[IO[bytes]], Page]] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    **OFFICE,
}
