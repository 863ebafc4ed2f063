"""Queries from a file or from stdin: JSON lines with an id and a text, or plain lines as they are typed."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

import typer

from m3connect.errors import InputError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_queries(path: Path) -> Iterator[tuple[str, str]]:
    """Each query's id and text, as they come.

    Lines are objects with ``id`` (or ``_id``, as BEIR has it) and ``text``, in UTF-8, or in UTF-16
    with its mark; the file may be gzipped.

    Args:
        path: of the file; ``-`` is stdin.

    Raises:
        InputError: no such file, none in it, or a line that is no query: which, and why.
    """
    if str(path) == "-":
        yield from _queries("stdin", sys.stdin.buffer)
        return
    try:
        if path.is_dir():
            raise InputError(f"--queries {path}: a folder, no file")
        with path.open("rb") as stream:
            yield from _queries(str(path), stream)
    except FileNotFoundError as error:
        raise InputError(f"--queries {path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"--queries {path}: {error}") from error


def read_lines() -> Iterator[tuple[str, str]]:
    """Each line of stdin that is not blank, under its number; ends with it, or with Ctrl-D.

    Raises:
        InputError: a pipe that is not UTF-8.
    """
    numbers = count(1)
    while True:
        try:
            line = _line()
        except UnicodeError as error:
            raise InputError(f"stdin: {error}") from error
        if line is None:
            return
        number = str(next(numbers))
        if line.strip():
            yield number, line.strip()


def is_interactive() -> bool:
    """Whether somebody types the lines."""
    return sys.stdin.isatty()


def _line() -> str | None:
    if not is_interactive():
        return sys.stdin.readline() or None
    with suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 - gives input() editing and a history
    try:
        return input("> " if sys.stdout.isatty() else "")
    except EOFError:
        if sys.stdout.isatty():
            typer.echo()  # the shell's prompt begins a line of its own
        return None


def _queries(name: str, source: IO[bytes]) -> Iterator[tuple[str, str]]:
    raw: Any = io.BufferedReader(cast("Any", source))
    stream = raw
    if stream.peek(2)[:2] == b"\x1f\x8b":
        stream = io.BufferedReader(cast("Any", gzip.GzipFile(fileobj=stream)))
    start = stream.peek(3)[:3]
    encoding = next((encoding for bom, encoding in _BOMS if start.startswith(bom)), "utf-8")
    lines = io.TextIOWrapper(stream, encoding=encoding, newline="\n")
    number, found = 0, False
    try:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                found = True
                yield _query(f"{name}:{number}", line)
    except UnicodeError as error:
        raise InputError(
            f"{name}: not {encoding} after line {number} ({error}); save the file as UTF-8"
        ) from error
    finally:
        lines.close()
        raw.close()
    if not found:
        raise InputError(f"{name}: there is no query in it")


def _query(where: str, line: str) -> tuple[str, str]:
    try:
        query = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(query, dict):
        raise InputError(f"{where}: expected an object with id and text")
    id_ = query.get("id", query.get("_id"))
    if not isinstance(id_, str | int) or isinstance(id_, bool):
        raise InputError(f"{where}: 'id' must be a text or a whole number")
    text = query.get("text")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: 'text' must be a text that is not blank")
    return str(id_), text
