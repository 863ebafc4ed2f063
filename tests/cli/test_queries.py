"""Files of queries: what is read, and what is refused with its place."""

import gzip
import json

import pytest

from m3connect.cli.queries import read_queries
from m3connect.errors import InputError

LINES = '{"id": "a", "text": "caf\u00e9"}\n\n{"_id": 7, "text": "\u4e2d", "lang": "zh"}\n'


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode(),
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        gzip.compress(LINES.encode()),
        gzip.compress(LINES.encode("utf-16")),
        LINES.replace("\n", "\r\n").encode(),
    ],
    ids=["utf-8", "bom", "utf-16", "utf-16-be", "gzip", "gzip utf-16", "crlf"],
)
def test_the_usual_encodings_are_read(tmp_path, content):
    """Own ids and BEIR's, whatever an editor saved."""
    path = tmp_path / "queries.jsonl"
    path.write_bytes(content)
    assert list(read_queries(path)) == [("a", "caf\u00e9"), ("7", "\u4e2d")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": "a", "text": "caf\xe9"}\n', "not utf-8 after line 0"),
        (b'{"id": "a", "text": "b"}\n{"id": "a"', ":2: not JSON"),
        (b'{"id": ' + b"9" * 5000 + b', "text": "b"}', ":1: not JSON"),
        (b"[" * 100_000, ":1: not JSON"),
        (b"", "there is no query in it"),
        (b"\xef\xbb\xbf\n \n", "there is no query in it"),
        (b"[1]", ":1: expected an object"),
        (b'{"text": "b"}', ":1: 'id' must be"),
        (b'{"id": null, "text": "b"}', ":1: 'id' must be"),
        (b'{"id": true, "text": "b"}', ":1: 'id' must be"),
        (b'{"id": "a", "text": null}', ":1: 'text' must be"),
        (b'{"id": "a", "text": "  "}', ":1: 'text' must be"),
        (b'{"id": "a", "text": ["b"]}', ":1: 'text' must be"),
        (gzip.compress(LINES.encode() * 9)[:-30], "queries.jsonl"),
        (b"\x1f\x8bnonsense", "queries.jsonl"),
        ("{".encode("utf-16")[:-1], "not utf-16"),
    ],
    ids=range(16),
)
def test_what_is_no_query_is_named(tmp_path, content, message):
    """File and line, never a traceback and never the word None."""
    path = tmp_path / "queries.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_queries(path))


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    """Both are named."""
    for path, message in ((tmp_path, "a folder"), (tmp_path / "none", "no such file")):
        with pytest.raises(InputError, match=message):
            list(read_queries(path))


def test_queries_come_one_by_one(tmp_path):
    """A broken line spoils nothing before it."""
    path = tmp_path / "queries.jsonl"
    path.write_text(json.dumps({"id": "a", "text": "b"}) + "\nbroken\n")
    assert next(read_queries(path)) == ("a", "b")
