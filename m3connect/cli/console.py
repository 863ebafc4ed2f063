"""What reaches the terminal: no secret, no control character of a document, no encoding error."""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from itertools import pairwise
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote

import typer

from m3connect.errors import without_secrets

_HIDDEN = "***"
SILENT = 60.0
"""Seconds in which a warning is not repeated."""
_SHORTEST = 4  # shorter secrets would hide half of every message; patterns still catch them
# Not what counts them: --chunk-tokens.
_SECRET_NAME = re.compile(r"key|token(?!s)|secret|passw|pwd|credential|auth|sig", re.IGNORECASE)
_PAIR = re.compile(r"(?:^|[?&\s])([\w.-]+)=([^&\s]+)")


def visible(text: str) -> str:
    r"""The text with its control characters written out; line ends and tabs stay.

    Escape sequences of a document could retitle, clear or drive the terminal, and marks of
    direction show text in another order than it has.

    >>> visible("red \x1b[31m alert\x07")
    'red \\x1b[31m alert\\x07'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\t" or not _is_control(character):
        return character
    return (
        character.encode("ascii", "backslashreplace").decode()
        if ord(character) > 127
        else (f"\\x{ord(character):02x}")
    )


def _is_control(character: str) -> bool:
    category = unicodedata.category(character)
    # Cf: marks of direction; the joiners of emoji and scripts (200C, 200D) are harmless
    return category in {"Cc", "Cs", "Zl", "Zp"} or (
        category == "Cf" and unicodedata.bidirectional(character) not in {"BN", "NSM", "AN"}
    )


def counted(number: int, noun: str = "record") -> str:
    """A number of things in words.

    >>> counted(1), counted(1200), counted(0, "document")
    ('1 record', '1,200 records', '0 documents')
    """
    return f"{number:,} {noun}" + "s" * (number != 1)


def json_line(data: object) -> str:
    r"""JSON in one line that any terminal and any encoding can show.

    >>> json_line({"text": "red \x9b31m"})
    '{"text": "red \\u009b31m"}'
    """
    wide = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(data, ensure_ascii=not wide)
    if text.isascii():
        return text
    return "".join(
        f"\\u{ord(each):04x}" if ord(each) > 126 and _is_control(each) else each for each in text
    )


# -------------------------------------------------------------------------------------- secrets


def secrets(
    arguments: Iterable[str], environment: Mapping[str, str], settings: Mapping[str, Any]
) -> frozenset[str]:
    """What must not be shown again: passwords in addresses, keys, options that are named so.

    >>> found = secrets(["--url", "http://bob:pass@host", "--api-key", "ABCD"], {}, {})
    >>> sorted(found & {"ABCD", "bob:pass", "pass", "Ym9iOnBhc3M="})  # base64, as headers have it
    ['ABCD', 'Ym9iOnBhc3M=', 'bob:pass', 'pass']
    >>> secrets(["--chunk-tokens", "2048"], {"M3CONNECT_BATCH_TOKENS": "4096"}, {})
    frozenset()
    """
    values: set[str] = set()
    for before, argument in pairwise(["", *arguments]):
        name, _, value = (
            argument.partition("=") if argument.startswith("--") else (before, "", argument)
        )
        values.update(_of(name if name.startswith("--") else "", value))
    for variable, value in environment.items():
        if variable.startswith(("M3CONNECT_", "OPENAI_", "HF_", "AWS_", "AZURE_")):
            values.update(_of(variable, value))
    values.update(_of_table(settings))
    forms = {
        form for secret in values for form in (secret, unquote(secret), quote(secret, safe=""))
    }
    return frozenset(form for form in forms if len(form) >= _SHORTEST)


def _of_table(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _of_table(value)
        else:
            for item in value if isinstance(value, list) else [value]:
                yield from _of(key, str(item))


def _of(name: str, value: str) -> Iterator[str]:
    """The secrets in the value of an option, a variable or a key."""
    if _SECRET_NAME.search(name) and not name.lower().endswith(("option", "file")):
        yield value
        yield value.partition(":")[2]  # Milvus: user:password
    for key, secret in _PAIR.findall(value):
        if _SECRET_NAME.search(key):
            yield secret
    for word in {value, *value.split()}:
        userinfo, sign, _ = word.rpartition("@")
        scheme, _, bare = userinfo.rpartition(":/")
        bare = bare.lstrip("/")
        password = bare.partition(":")[2]
        if sign and (password or scheme):
            yield bare
            yield password
            yield from re.split(r"[/@:]", password)  # as a parser of a malformed one may cut it
            yield base64.b64encode(bare.encode()).decode()


def masker(hidden: Iterable[str]) -> Callable[[str], str]:
    """A function that hides these secrets and whatever looks like one.

    >>> masker({"hunter2"})("refused: hunter2 at http://bob:x@host")
    'refused: *** at http://***@host'
    """
    known = sorted(hidden, key=len, reverse=True)
    exact = re.compile("|".join(map(re.escape, known))) if known else None

    def mask(text: str) -> str:
        text = without_secrets(text)
        return exact.sub(_HIDDEN, text) if exact else text

    return mask


class _Masked:
    """A text stream that hides secrets in what is written to it."""

    def __init__(self, stream: TextIO, mask: Callable[[str], str]) -> None:
        self._stream = stream
        self._mask = mask

    def write(self, text: str) -> int:
        return self._stream.write(self._mask(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # would be a way around
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def guarded(mask: Callable[[str], str]) -> Iterator[None]:
    """Nothing that goes to stderr holds a secret, and no character ends the output."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console of cp1252 shows what it cannot encode
            stream.reconfigure(errors="backslashreplace")
    with redirect_stderr(cast("TextIO", _Masked(sys.stderr, mask))):
        yield


# ------------------------------------------------------------------------------------- warnings


class Counting(logging.StreamHandler[TextIO]):
    """Writes log lines; of equal warnings the first, and their number once a minute and at the end.

    Args:
        stream: where to.
        clock: seconds, for tests.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it."""
        if record.levelno < logging.WARNING:
            super().emit(record)
            return
        now, key = self._clock(), (record.name, record.getMessage())
        said, held = self._said.get(key, (now - SILENT, 0))
        if now - said < SILENT:
            self._said[key] = said, held + 1
            return
        self._said = {
            key: (second, count)
            for key, (second, count) in self._said.items()
            if count or now - second < SILENT
        }
        self._said[key] = now, 0
        super().emit(_times(record, held))

    def close(self) -> None:
        """Write what was counted since it was last said."""
        for (name, message), (_, held) in self._said.items():
            if held:
                text = (message, (), None)
                record = logging.LogRecord(name, logging.WARNING, "", 0, *text)
                super().emit(_times(record, held))
        self._said = {}
        super().close()


def _times(record: logging.LogRecord, held: int) -> logging.LogRecord:
    if held:
        again = "once" if held == 1 else f"{held:,} times"
        record.msg, record.args = f"({again} more) {record.getMessage()}", ()
    return record


# --------------------------------------------------------------------------------------- errors


def show_error(error: BaseException, message: str, code: int, *, as_json: bool) -> None:
    """Print an error on stderr: a line, or an object with ``--json``."""
    if as_json:
        body = {"type": type(error).__name__, "message": message, "exit_code": code}
        typer.echo(json.dumps({"error": body}), err=True)
    else:
        typer.secho(f"Error: {visible(message)}", fg="red", err=True)
