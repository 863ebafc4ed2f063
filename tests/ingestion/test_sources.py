"""Every format becomes documents, and what cannot is reported by file and line."""

import gzip
import io
import json
import os
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect.errors import ConfigError
from m3connect.ingestion import files
from m3connect.ingestion.report import Failure
from m3connect.ingestion.sources import count, find, read
from m3connect.types import Document

ROWS = [{"id": "a", "text": "Ä one", "lang": "de"}, {"id": "b", "text": "two, 2", "lang": "en"}]
DOCUMENTS = [Document("a", "Ä one", {"lang": "de"}), Document("b", "two, 2", {"lang": "en"})]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def separated(rows, sign):
    lines = [sign.join(rows[0])] + [sign.join(f'"{value}"' for value in r.values()) for r in rows]
    return "\n".join(lines).encode()


def parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


RECORD_FILES = {
    "rows.jsonl": jsonl(ROWS),
    "rows.ndjson": b"\xef\xbb\xbf" + jsonl(ROWS),  # with a byte order mark
    "rows.csv": separated(ROWS, ","),
    "rows.tsv": separated(ROWS, "\t"),
    "rows.parquet": parquet(ROWS),
}
PAGE_FILES = {
    "page.txt": (b"plain\n", Document("page.txt", "plain\n", {"source": "page.txt"})),
    "page.md": (
        b"# A title\n\nbody",
        Document(
            "page.md", "# A title\n\nbody", {"source": "page.md", "title": "A title"}, "markdown"
        ),
    ),
    "page.html": (
        "<html><head><title>Tïtle</title><style>p{}</style></head><body><h1>Head</h1>"
        "<script>x()</script><p>a <b>b</b></p></body></html>".encode(),
        Document(
            "page.html", "# Head\n\na **b**", {"source": "page.html", "title": "Tïtle"}, "markdown"
        ),
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", RECORD_FILES)
def test_rows_become_documents(tmp_path, name, packed):
    """A document a row, with all other fields as metadata."""
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(RECORD_FILES[name]) if packed else RECORD_FILES[name])
    assert list(read([path])) == DOCUMENTS
    assert count(find([path])) == 2


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", PAGE_FILES)
def test_files_become_documents(tmp_path, name, packed):
    """A document a file, named by its path, with source and title."""
    content, expected = PAGE_FILES[name]
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    (document,) = read([path])
    assert document.text == expected.text
    assert document.format == expected.format
    assert document.id == document.metadata["source"] == path.name
    assert document.metadata.get("title") == expected.metadata.get("title")
    assert count(find([path])) == 1


def test_a_folder_is_read_in_order_and_wholly(tmp_path):
    """Names are relative to the folder, whatever the machine; hidden and unknown files are left."""
    for name in ("b.txt", "a/z.md", "a/.hidden.txt", ".git/x.txt", "picture.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    assert [document.id for document in read([tmp_path])] == ["a/z.md", "b.txt"]


def test_a_glob_stands_for_the_files_it_matches(tmp_path, monkeypatch):
    """Names are relative to the folder before the first wildcard."""
    for name in ("docs/x/one.md", "docs/y/two.md", "docs/y/three.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    monkeypatch.chdir(tmp_path)
    assert [document.id for document in read(["docs/**/*.md"])] == ["x/one.md", "y/two.md"]
    (tmp_path / "docs/odd[1].txt").write_text("text")
    assert [document.id for document in read(["docs/odd[1].txt"])] == ["odd[1].txt"]


def test_a_url_is_read_through_fsspec(monkeypatch):
    """Files of other machines are named by their address."""
    monkeypatch.setattr(files, "PROTOCOLS", (*files.PROTOCOLS, "memory"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/rows.jsonl.gz", gzip.compress(jsonl(ROWS)))
    memory.pipe("/bucket/sub/page.txt", b"plain")
    documents = list(read(["memory://bucket"]))
    assert documents[:2] == DOCUMENTS
    assert documents[2].id == "memory:///bucket/sub/page.txt"


def test_standard_input_is_json_lines(monkeypatch):
    """A dash reads it; records without an id are named by their line."""
    content = jsonl([ROWS[0], {"text": "no id"}])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert [document.id for document in read(["-"])] == ["a", "stdin:2"]
    assert count(find(["-"])) is None


def test_json_lines_are_read_one_at_a_time(monkeypatch):
    """The first document is there before the second line is."""
    pipe_out, pipe_in = os.pipe()
    with os.fdopen(pipe_in, "wb", buffering=0) as sender, os.fdopen(pipe_out, "rb") as receiver:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=receiver))
        documents = read(["-"])
        sender.write(jsonl(ROWS[:1]))
        assert next(documents) == DOCUMENTS[0]
        sender.write(jsonl(ROWS[1:]))
        assert next(documents) == DOCUMENTS[1]


def test_fields_can_be_named(tmp_path):
    """Id, text and the metadata to keep; a field a record lacks is left out of its metadata."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"key": 7, "body": "x", "year": 2020, "junk": [1]}]))
    named = read([path], id_field="key", text_field="body", metadata_fields=["year", "lang"])
    assert list(named) == [Document("7", "x", {"year": 2020})]


@pytest.mark.parametrize(
    ("record", "id_", "metadata"),
    [
        ({"_id": "x", "text": "t"}, "x", {}),
        ({"id": 12, "text": "t"}, "12", {}),
        ({"text": "t", "a": {"b": [1, None]}}, "rows.jsonl:1", {"a": {"b": [1, None]}}),
    ],
)
def test_an_id_is_found_or_made(tmp_path, record, id_, metadata):
    """From id, else _id, else file and line."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([record]))
    assert list(read([path])) == [Document(id_, "t", metadata)]


def test_parquet_values_become_json(tmp_path):
    """Dates are ISO 8601 and decimals numbers, also inside lists and structs."""
    path = tmp_path / "rows.parquet"
    moment = datetime(2024, 5, 1, 12, tzinfo=UTC)
    nested = {"days": [date(2024, 5, 1)], "price": Decimal("1.50")}
    row = {"id": "a", "text": "t", "at": moment, "nested": nested}
    pq.write_table(pa.Table.from_pylist([row]), path)
    (document,) = read([path])
    assert document.metadata == {
        "at": "2024-05-01T12:00:00+00:00",
        "nested": {"days": ["2024-05-01"], "price": 1.5},
    }


@pytest.mark.parametrize(
    ("name", "content", "where", "reason"),
    [
        ("x.jsonl", b'{"id": "a", "text":', "x.jsonl:1", "not JSON: .* at column"),
        ("x.jsonl", b"[" * 200_000, "x.jsonl:1", "nested too deeply"),
        ("x.jsonl", b"[1]", "x.jsonl:1", "must be a JSON object, this one is list"),
        ("x.jsonl", b'{"text": "\xff"}', "x.jsonl:1", "not UTF-8: byte 0xff at byte 11"),
        ("x.jsonl", b'{"id": "a", "body": "t"}', "x.jsonl:1", "'text' is no text: None; .*body"),
        ("x.jsonl", b'{"id": "a", "text": 3}', "x.jsonl:1", "'text' is no text: int"),
        ("x.jsonl", b'{"id": "a", "text": ["long"]}', "x.jsonl:1", "'text' is no text: list; "),
        ("x.jsonl", b'{"id": [1], "text": "t"}', "x.jsonl:1", "'id' is no id .*: list$"),
        ("x.jsonl", b'{"id": "", "text": "t"}', "x.jsonl:1", "'id' is no id"),
        ("x.csv", b"id,text\na,b,c\n", "x.csv:2", "more fields than the header"),
        ("x.csv", b"id,text\na\n", "x.csv:2", "fewer fields than the header"),
        ("x.csv", "id,text\na,Größen für Übungen".encode() + b"\xe9\n", "x.csv:2", "not UTF-8"),
    ],
)
def test_a_bad_row_is_a_failure_and_the_next_is_read(tmp_path, name, content, where, reason):
    """It names file and line, and costs no other row."""
    good = b'\n{"id": "ok", "text": "t"}\n' if name.endswith("jsonl") else b"ok,t\n"
    (tmp_path / name).write_bytes(content + good)
    failure, document = read([tmp_path / name])
    assert isinstance(failure, Failure)
    assert failure.where == where
    assert re.search(reason, failure.reason)
    assert document == Document("ok", "t")


def test_csv_rows_count_the_lines_of_the_file(tmp_path):
    """A row's number is its first line, also after a field with line breaks in it."""
    (tmp_path / "x.csv").write_bytes(b'text\n"one\ntwo"\nthree\n')
    assert [document.id for document in read([tmp_path / "x.csv"])] == ["x.csv:2", "x.csv:4"]


def test_a_csv_field_may_be_long(tmp_path):
    """The csv module's limit of 128 KiB does not apply."""
    (tmp_path / "x.csv").write_text("id,text\na," + "x" * 300_000 + "\n")
    (document,) = read([tmp_path / "x.csv"])
    assert len(document.text) == 300_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01"),
        ("x.txt", b"some text\0and more"),
        ("x.html", '<meta charset="utf-8"><p>é'.encode("latin-1")),
        ("x.html", b"<div>" * 2000),
        ("x.jsonl.gz", b"not gzip"),
        ("x.jsonl.gz", gzip.compress(b'{"id": 1', mtime=0)[:-9]),
        ("x.parquet", b"PAR1 no more"),
        ("x.csv", b"a,a\n1,2\n"),
    ],
)
def test_a_broken_file_is_a_failure_and_the_next_is_read(tmp_path, name, content):
    """The failure names the file."""
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.txt").write_text("fine")
    failure, document = read([tmp_path])
    assert isinstance(failure, Failure)
    assert failure.where == name
    assert "cannot be read" in failure.reason
    assert document.id == "z.txt"


def test_a_file_that_breaks_off_keeps_what_came_before(tmp_path):
    """Rows before the damage are documents."""
    whole = gzip.compress(
        jsonl([{"id": str(at), "text": os.urandom(99).hex()} for at in range(999)])
    )
    (tmp_path / "x.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    *documents, failure = read([tmp_path])
    assert [document.id for document in documents] == [str(at) for at in range(len(documents))]
    assert 99 < len(documents) < 999
    assert isinstance(failure, Failure)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.txt", "no such file"),
        ("nowhere/*.txt", "no such file"),
        ("*.mdx", "no such file"),
        ("image.png", "unknown format '.png'; known: .jsonl"),
        ("strange://x", "only these protocols are read"),
        ("pipe.txt", "no regular file"),
        ("nothing.txt", "no regular file"),
    ],
)
def test_a_bad_path_is_refused_before_anything_is_read(tmp_path, monkeypatch, path, message):
    """With what to do about it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "nothing.txt").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=message):
        next(read([path]))
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.md").write_text("text")
    (tmp_path / "good" / "left out.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match=message):
        next(read(["good", path]))
