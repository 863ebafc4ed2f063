"""How each file format becomes records (one document a row) or a page (one document a file)."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from fsspec.utils import infer_compression

from m3connect.conversion.converter import CONVERTED, Converter, Page, explain
from m3connect.conversion.encodings import SAMPLE, codec_for, codec_of, decode, undecodable
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion.separated import CsvTypes, Row, read_csv, read_tsv
from m3connect.ingestion.values import json_value

PARQUET_ROWS = 256  # rows in memory at once
MEGABYTE = 1_000_000


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


@dataclass(frozen=True, slots=True)
class Options:
    """How files are read.

    Args:
        fields: of records.
        encoding: of text files; None takes a byte order mark, UTF-8, or else a guess.
        csv_types: whether columns of CSV and TSV become numbers and booleans.
        file_bytes: most bytes of one page, or one record, unpacked.
        seconds: that converting one office file or web page may take.
        id_prefix: put before each id, so that sources with equal names share a collection.

    Raises:
        ConfigError: nobody knows the encoding, or a limit is not above 0.
    """

    fields: Fields = Fields()
    encoding: str | None = None
    csv_types: CsvTypes = "infer"
    file_bytes: int = 50 * MEGABYTE
    seconds: float = 60.0
    id_prefix: str = ""

    def __post_init__(self) -> None:
        if self.encoding is not None:
            try:
                codec_of(self.encoding)
            except InputError as error:
                raise ConfigError(f"--encoding: {error}") from error
        if self.file_bytes < 1 or self.seconds <= 0:
            raise ConfigError("--max-file-bytes and --max-seconds must be above 0")


def suffix_of(path: str) -> str:
    """What tells a file's format, whether or not it is compressed.

    >>> suffix_of("a/corpus.JSONL.gz"), suffix_of("README")
    ('.jsonl', '')
    """
    name = PurePosixPath(path)
    return (name.with_suffix("") if infer_compression(name.name) else name).suffix.lower()


# ------------------------------------------------------------------------------- records, by row


def read_jsonl(stream: IO[bytes], options: Options) -> Iterator[Row]:
    """One JSON object a line; blank lines are skipped."""
    # Standard input cannot be looked at twice, and is UTF-8 if nobody says otherwise.
    codec = _unicode(stream, options.encoding) if stream.seekable() else options.encoding
    if codec is None:
        for number, line in _lines(stream, options.file_bytes):
            if line is None:
                yield number, f"a line of more than {options.file_bytes:,} bytes (--max-file-bytes)"
            elif line.strip():
                yield number, _json_object(line)
        return
    # What is undecodable costs its line: surrogates become the bytes again, which are no UTF-8.
    with io.TextIOWrapper(stream, codec, errors="surrogateescape", newline="\n") as texts:
        for number, text in enumerate(texts, start=1):
            if text.strip():
                yield number, _json_object(text.encode("utf-8", "surrogateescape"))


def _unicode(stream: IO[bytes], encoding: str | None) -> str | None:
    """UTF-16 and UTF-32, or what is asked for; None is UTF-8, which is read line by line."""
    head = stream.read(SAMPLE)
    stream.seek(0)
    if encoding is None and b"\0" not in head:
        return None
    codec, _ = codec_for(head, encoding)
    return None if codec.startswith("utf-8") else codec


def _lines(stream: IO[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers; one beyond the limit is None, and was not in memory as a whole."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) <= limit:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(1 << 20)
        yield number, None


def _json_object(line: bytes) -> Mapping[str, Any] | str:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"{undecodable(error)} (--encoding)"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except (RecursionError, ValueError) as error:
        return _unreadable(error)
    if not isinstance(record, dict):
        return f"a line must be a JSON object, this one is {type(record).__name__}"
    return record


def _unreadable(error: RecursionError | ValueError) -> str:
    """Why JSON that is none by fault cannot be read: Python refuses integers of thousands of digits."""
    if isinstance(error, RecursionError):
        return "JSON that is nested too deeply to be read"
    return f"JSON with a whole number of more than {sys.get_int_max_str_digits():,} digits"


def read_json(stream: IO[bytes], options: Options) -> Iterator[Row]:
    """A file that is one array of objects, or one object; else it is read as JSON lines."""
    text, _ = decode(_all(stream, options), options.encoding)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            stream.seek(0)
            yield from read_jsonl(stream, options)
            return
        raise InputError(
            f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(_unreadable(error)) from error
    for number, record in enumerate(content if isinstance(content, list) else [content], start=1):
        if isinstance(record, dict):
            yield number, record
        else:
            yield number, f"a record must be a JSON object, this one is {type(record).__name__}"


def _read_csv(stream: IO[bytes], options: Options) -> Iterator[Row]:
    return read_csv(stream, **_columns(options), limit=options.file_bytes)


def _read_tsv(stream: IO[bytes], options: Options) -> Iterator[Row]:
    return read_tsv(stream, **_columns(options))


def _columns(options: Options) -> dict[str, Any]:
    named = {options.fields.id} if options.fields.id else {"id", "_id"}
    return {
        "encoding": options.encoding,
        "types": options.csv_types,
        "as_text": {*named, options.fields.text, "title"},
    }


def read_parquet(stream: IO[bytes], _: Options) -> Iterator[Row]:
    """Rows of a Parquet file, a few hundred in memory at a time; numbers count from 1."""
    from m3connect.ingestion.row_groups import Unreadable, read_batches

    number = 0
    for batch in read_batches(stream, PARQUET_ROWS):
        if not isinstance(batch, Unreadable) and len(set(batch.schema.names)) < batch.num_columns:
            names = ", ".join(batch.schema.names)
            raise InputError(f"two columns have one name: {names}")
        if isinstance(batch, Unreadable):
            yield number + 1, f"from here on {batch.reason}"
            number += batch.rows
            continue
        for record in python_rows(batch):
            number += 1
            yield (
                number,
                record
                if isinstance(record, str)
                else {key: json_value(value) for key, value in record.items()},
            )


def python_rows(batch: Any) -> list[dict[str, Any] | str]:
    """Rows of an Arrow batch as Python values; instead of one that Python cannot hold, the reason.

    Such as the year 10000, or a text that is not UTF-8.
    """
    try:
        rows: list[dict[str, Any] | str] = _iso_nanoseconds(batch).to_pylist()
    except Exception as error:  # noqa: BLE001 - Arrow raises what the conversion of a type raises
        if len(batch) == 1:
            return [f"a value that cannot be read: {explain(error)}"]
        return [row for start in range(len(batch)) for row in python_rows(batch.slice(start, 1))]
    return rows


_AS_PYTHON = (
    (r"\.0{9}", ""),
    (r"(\.[0-9]{6})0{3}", r"\1"),
    (r"(T.*[+-][0-9]{2})([0-9]{2})$", r"\1:\2"),
)
"""Patterns in a time as Arrow writes it, and what Python writes."""


def _iso_nanoseconds(batch: Any) -> Any:
    """Times in nanoseconds as ISO 8601: Python's own end at microseconds.

    Those that have no more digits, as most of pandas', are written as Python does, so that they are dates
    to filters.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, column in enumerate(batch.schema):
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            form = "%Y-%m-%dT%H:%M:%S" + ("%z" if column.type.tz else "")
            times = pc.strftime(batch.column(index), form)
            for pattern, put in _AS_PYTHON:
                times = pc.replace_substring_regex(times, pattern, put)
            batch = batch.set_column(index, column.name, times)
    return batch


# --------------------------------------------------------------------------------- pages, by file


def read_page(stream: IO[bytes], suffix: str, options: Options, converter: Converter) -> Page:
    """A whole file.

    Raises:
        InputError: it is larger than the limit, or cannot be read.
    """
    content = _all(stream, options)
    if suffix in CONVERTED:
        return converter.convert(content, suffix, options.encoding) if content else Page("")
    text, guessed = decode(content, options.encoding)
    if suffix in MARKDOWN:
        return _markdown(text, guessed)
    return Page(text, guessed=guessed)


def _all(stream: IO[bytes], options: Options) -> bytes:
    content = stream.read(options.file_bytes + 1)
    if len(content) > options.file_bytes:
        raise InputError(f"more than {options.file_bytes:,} bytes unpacked (--max-file-bytes)")
    return content


def _markdown(text: str, guessed: str | None) -> Page:
    """Its title is what the front matter says, or the heading it opens with."""
    metadata, text = front_matter(text)
    first = text.lstrip().partition("\n")[0]
    title = metadata.pop("title", None)
    if not isinstance(title, str) or not title.strip():
        title = first[2:].strip() if first.startswith("# ") else None
    return Page(text, title, "markdown", metadata, guessed)


# Base64 in one run, or in lines as mail and PEM have them, of which the last is shorter.
_RUN = r"[A-Za-z0-9+/_-]"
_BASE64 = rf"\s*{_RUN}{{60,}}(?:\s+{_RUN}{{40,}})*(?:\s+{_RUN}+(?==|\s*[)\"'>\]]))?={{0,2}}"
_DATA_URL = re.compile(
    r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;(?!base64,)[\w.+-]+(?:=(?:[\w.%+-]*|\"[^\"\n]{0,99}\"))?)*"
    rf"(?:;base64,{_BASE64}|,[^\s)\"'<>\]]{{64,}})",
    re.IGNORECASE,
)
_NO_TARGET = re.compile(
    r"!\[([^\]\n]{0,500})\]\([ \t]*(?:<[ \t]*>)?[ \t]*(?:\"[^\"\n]{0,500}\")?[ \t]*\)"
)


def without_images(text: str) -> tuple[str, int]:
    """The text without the files that are written into it as ``data:`` URLs, and their number.

    Of an image its description stays.

    >>> without_images("A ![red dot](data:image/png;base64," + "iVBORw0KGgo" * 9 + ") here")
    ('A red dot here', 1)
    """
    if "data:" not in text.lower():
        return text, 0
    text, dropped = _DATA_URL.subn("", text)
    return (_NO_TARGET.sub(r"\1", text) if dropped else text), dropped


_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\r?\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE
)


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    r"""The YAML that a Markdown file may open with, and the rest.

    What is no mapping is no front matter but text between two lines.

    >>> front_matter("---\ntags: [x, y]\nday: 2024-05-01\n---\n# Head")
    ({'tags': ['x', 'y'], 'day': '2024-05-01'}, '# Head')
    """
    import yaml

    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    try:
        # An alias could stand for any number of copies.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(match[1])):
            return {}, text
        values = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(values, dict):
        return {}, text
    return {str(key): json_value(value) for key, value in values.items()}, text[match.end() :]


RECORDS: Mapping[str, Callable[[IO[bytes], Options], Iterator[Row]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": read_parquet,
}
MARKDOWN = frozenset({".md", ".markdown", ".mdx", ".qmd", ".rmd"})
# fmt: off
CODE = frozenset({
    ".py", ".pyi", ".js", ".jsx", ".mjs", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h",
    ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".swift", ".sh", ".bash", ".ps1",
    ".sql", ".r", ".jl", ".lua", ".pl", ".ex", ".hs", ".tex",
})
# fmt: on
PAGES = frozenset({".txt", ".text", ".log", ".rst", ".adoc", ".org"}) | MARKDOWN | CODE | CONVERTED
HTML = frozenset({".html", ".htm", ".xhtml"})
_MADE = frozenset({".php", ".pl"})  # whose servers answer what it prints, and not the code


def suffix_of_url(url: str) -> str:
    """What tells the format of what an address answers: the end of its path, or else it is HTML.

    >>> suffix_of_url("https://example.com/a.pdf?page=2"), suffix_of_url("https://example.com/a")
    ('.pdf', '.html')
    """
    suffix = suffix_of(urlsplit(url).path)
    return suffix if suffix in RECORDS or suffix in PAGES - _MADE else ".html"
