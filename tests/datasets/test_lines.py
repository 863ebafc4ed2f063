"""JSON lines: in order, by row, written; what is wrong is named by file and line."""

import gzip
import json
from typing import Any

import pytest

from m3connect.datasets import lines
from m3connect.errors import ConfigError, InputError

OBJECTS: list[dict[str, Any]] = [
    {"a": 1}, {"text": "zwei\u2028Zeilen"}, {"b": ["ü", "half a pair: \ud83d"]}
]  # fmt: skip


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_what_is_written_is_read(tmp_path, name):
    """Gzipped or not, in order and by row; a line separator or half a surrogate pair does no harm."""
    path = tmp_path / name
    lines.write(path, OBJECTS)
    assert [value for _, value in lines.read(path)] == OBJECTS
    records = lines.Records.open(path)
    assert [records[row] for row in range(len(records))] == OBJECTS


def test_a_folder_is_refused_before_the_work(tmp_path):
    """No object is asked for, as each may be dear."""
    asked = iter(OBJECTS)
    with pytest.raises(ConfigError, match="is a folder"):
        lines.write(tmp_path, asked)
    assert next(asked) is OBJECTS[0]


def test_blank_lines_count_and_are_left_out(tmp_path):
    """The number that an error names is that of the editor."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"b": 2}\n')
    assert [where for where, _ in lines.read(path)] == [f"{path}:1", f"{path}:4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a"', r"x\.jsonl:2: not JSON"),
        (b'{"a": ' * 9_999, r"x\.jsonl:1: not JSON"),
        (b"[1]\n", r"x\.jsonl:1: expected an object"),
        (b'{"a": "\xff"}\n', r"x\.jsonl: after line 0: not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    """A cut line, another value, another encoding."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(lines.read(path))


def test_a_broken_archive_is_named(tmp_path):
    """A download that was cut short is an error, not fewer lines."""
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({"n": n}) + "\n" for n in range(1000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"x\.jsonl\.gz: after line \d+: cannot be unpacked"):
        list(lines.read(path))
