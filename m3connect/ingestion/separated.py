"""CSV and TSV as records: strict about quotes, and with the types that the columns show."""

from __future__ import annotations

import csv
import io
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, Any, Literal

from m3connect.conversion.encodings import SAMPLE, codec_for
from m3connect.errors import InputError

CsvTypes = Literal["infer", "string"]
Row = tuple[int, Mapping[str, Any] | str]
"""A row's number, and either its fields or the reason why they cannot be told."""

_DELIMITERS = ",;\t|"
_LONGEST = (1 << 31) - 1  # of a field, in characters: the most that csv takes on every system
_SAMPLE = 1 << 16  # characters that delimiter and types are told from
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})?(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?")
_ZEROS = re.compile(r"-?0[0-9]+")
_BOOLEANS = {"true": True, "false": False}


def read_csv(
    stream: IO[bytes],
    *,
    encoding: str | None = None,
    types: CsvTypes = "infer",
    as_text: Collection[str] = (),
    limit: int = sys.maxsize,
) -> Iterator[Row]:
    """Rows under a header line; the number is the row's first line.

    The delimiter is the one of ``, ; tab |`` under which most of the first rows have as many fields
    as the header.

    Args:
        stream: can seek.
        encoding: of the text; None tells it.
        types: ``infer`` makes numbers and booleans of columns that hold nothing else in the first
            64 KiB, and null of their empty fields; ``string`` makes nothing.
        as_text: columns that stay text.
        limit: most characters of a record of several lines; a quote that never ends is given up
            there.

    Raises:
        InputError: the header names a field twice.
    """
    with _text(stream, encoding) as lines:
        sample = lines.read(_SAMPLE)
        lines.seek(0)
        if sample[:4].lower() == "sep=":  # a line of Excel's, before the header
            line = lines.readline()
            sample = sample[len(line) :]
            delimiter = line[4:].strip("\r\n")[:1] or _delimiter(sample)
        else:
            delimiter = _delimiter(sample)
        within = _Within(lines, limit)
        rows = csv.reader(within, delimiter=delimiter, strict=True)
        yield from _records(_strict(rows, within), types, as_text, _sample(sample, delimiter))


def read_tsv(
    stream: IO[bytes],
    *,
    encoding: str | None = None,
    types: CsvTypes = "infer",
    as_text: Collection[str] = (),
) -> Iterator[Row]:
    """Rows of one line each, under a header line; arguments as :func:`read_csv` takes them.

    A quote is a character like any other. Only a field that is quoted as a whole, as spreadsheets
    write it, loses its quotes.
    """
    with _text(stream, encoding) as lines:
        sample = lines.read(_SAMPLE)
        lines.seek(0)
        rows = ((number, _fields(line.rstrip("\r\n"))) for number, line in enumerate(lines, 1))
        whole = sample if len(sample) < _SAMPLE else sample[: sample.rfind("\n")]
        shown = [_fields(line) for line in whole.splitlines()[1:] if line]
        yield from _records((row for row in rows if row[1] != [""]), types, as_text, shown)


def _fields(line: str) -> list[str]:
    r"""The fields of a line of TSV.

    >>> _fields('1\t"Begin" is the word\t"all ""of"" it"')
    ['1', '"Begin" is the word', 'all "of" it']
    """
    return [
        field[1:-1].replace('""', '"')
        if len(field) > 1
        and field[0] == field[-1] == '"'
        and '"' not in field[1:-1].replace('""', "")
        else field
        for field in line.split("\t")
    ]


def _text(stream: IO[bytes], encoding: str | None) -> io.TextIOWrapper:
    codec, _ = codec_for(stream.read(SAMPLE), encoding)
    stream.seek(0)
    # Undecodable bytes become surrogates, so that they cost one row and not the rest of the file.
    return io.TextIOWrapper(stream, codec, errors="surrogateescape", newline="")


class _LongFields:
    """Inside, csv takes fields of any length; outside, what the host application has set.

    Its limit belongs to the whole process, so that threads inside share one change of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = csv.field_size_limit(_LONGEST)
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                csv.field_size_limit(self._before)


_FIELDS = _LongFields()


class _TooLong(csv.Error):
    """A line has more characters than a record may."""


class _Within:
    """Lines that end early where a record has taken more characters than the limit."""

    def __init__(self, lines: Iterator[str], limit: int) -> None:
        self._lines, self._limit = lines, limit
        self.taken = 0  # since the record began

    def __iter__(self) -> _Within:
        return self

    def __next__(self) -> str:
        if self.taken > self._limit:
            raise StopIteration
        line = next(self._lines)
        if len(line) > self._limit:
            raise _TooLong(f"a line of more than {self._limit:,} characters")
        self.taken += len(line)
        return line


def _strict(rows: Any, within: _Within) -> Iterator[tuple[int, list[str] | str]]:
    """Rows with their first lines; a misquoted one is its reason."""
    while True:
        start = rows.line_num + 1
        within.taken = 0
        try:
            with _FIELDS:
                row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                yield (
                    start,
                    (
                        f"a quote that opens in line {start} never ends; nothing from there on was read"
                    ),
                )
                return
            where = f" (lines {start} to {rows.line_num})" if rows.line_num > start else ""
            what = "" if isinstance(error, _TooLong) else f"misquoted{where}: "
            yield start, f"{what}{error}"
            continue
        if row:
            yield start, row


def _records(
    rows: Iterator[tuple[int, list[str] | str]],
    types: CsvTypes,
    as_text: Collection[str],
    sample: list[list[str]],
) -> Iterator[Row]:
    header = next(rows, None)
    if header is None:
        return
    _, names = header
    if isinstance(names, str):
        raise InputError(f"the header: {names}")
    if len(set(names)) < len(names):
        raise InputError(f"the header names a field twice: {', '.join(names)}")
    columns = list(zip(*(row for row in sample if len(row) == len(names)), strict=True))
    converters = [
        str if types == "string" or name in as_text or not columns else _converter(columns[column])
        for column, name in enumerate(names)
    ]
    for number, row in rows:
        yield number, _record(names, row, converters)


def _record(
    names: list[str], row: list[str] | str, converters: list[Callable[[str], Any]]
) -> Mapping[str, Any] | str:
    if isinstance(row, str):
        return row
    if len(row) != len(names):
        return f"{'more' if len(row) > len(names) else 'fewer'} fields than the header names"
    try:
        "".join(row).encode()
    except UnicodeEncodeError as error:
        return f"not UTF-8: {error.object[error.start : error.end]!r} (--encoding)"
    return {
        name: convert(value) for name, value, convert in zip(names, row, converters, strict=True)
    }


def _converter(values: Sequence[str]) -> Callable[[str], Any]:
    """What a column's values become, told from the first of them.

    Whole numbers with leading zeros are codes, so their column is text.

    >>> list(map(_converter(["18.5", "25", ""]), ["18.5", "25", "", "007"]))
    [18.5, 25, None, '007']
    >>> list(map(_converter(["10115", "01067"]), ["10115", "01067"]))
    ['10115', '01067']
    """
    given = [value for value in values if value]
    plain = [value for value in given if not _ZEROS.fullmatch(value)]
    if not plain:
        return str
    if all(value.lower() in _BOOLEANS for value in given):
        return _boolean
    if not all(_is_number(value) for value in plain):
        return str
    codes = len(plain) < len(given) and all(_WHOLE.fullmatch(value) for value in plain)
    return str if codes else _number


def _is_number(value: str) -> bool:
    return any(sign.isdigit() for sign in value) and _NUMBER.fullmatch(value) is not None


def _number(value: str) -> int | float | str | None:
    if not value:
        return None
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _is_number(value) else value


def _boolean(value: str) -> bool | str | None:
    return _BOOLEANS.get(value.lower(), value) if value else None


def _delimiter(sample: str) -> str:
    """The separator of a CSV file.

    >>> _delimiter("id;text\\n1;red, green\\n2;blue, white\\n")
    ';'
    """

    def fitting(sign: str) -> tuple[int, int]:
        rows = _sample(sample, sign, header=True)[:20]
        width = len(rows[0]) if rows else 0
        return (sum(len(row) == width for row in rows), width) if width > 1 else (0, 0)

    return max(_DELIMITERS, key=fitting)  # the first of equals


def _sample(sample: str, delimiter: str, *, header: bool = False) -> list[list[str]]:
    """The rows of the sample that are whole."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            with _FIELDS:
                rows.append(next(reader))
        except StopIteration:
            break
        except csv.Error:
            continue
    rows = [row for row in rows if row]
    if len(sample) == _SAMPLE:
        rows = rows[:-1]
    return rows if header else rows[1:]
