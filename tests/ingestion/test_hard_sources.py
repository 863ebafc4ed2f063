"""Files as people have them: in odd encodings, damaged, mislabelled, or made to do harm."""

import csv
import gzip
import io
import json
import lzma
import os
import sys
import zipfile
from contextlib import nullcontext
from datetime import date
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect.conversion.converter import Converter
from m3connect.errors import ConfigError, InputError
from m3connect.filters import F, matches
from m3connect.ingestion import NotPruned, files, formats, ingest
from m3connect.ingestion.encoding import read_lines
from m3connect.ingestion.formats import Fields, Options
from m3connect.ingestion.listing import find
from m3connect.ingestion.report import Failure
from m3connect.ingestion.selection import Remarks, Selection
from m3connect.ingestion.sources import read, read_files
from m3connect.types import Document

GOOD = b'{"id": "ok", "text": "t"}\n'
# Not imported here: a process of its own reads such files.
needs_markitdown = pytest.mark.skipif(
    find_spec("markitdown") is None, reason='needs pip install "m3connect[files]"'
)


def read_one(path, **options):
    (item,) = read_files(find([path]), Options(**options))
    return item


def texts(path, **options):
    return [
        item.reason if isinstance(item, Failure) else item.text
        for item in read_files(find([path]), Options(**options))
    ]


# ------------------------------------------------------------------------------ failing alone


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "b", "text": "bad", "n": ' + b"1" * 5000 + b"}", "more than 4,300 digits"),
        (b'{"id": "b", "text": "bad", "n": ' + b"9" * 30 + b"}", "'n' is a whole number beyond"),
        (
            b'{"id": "b", "text": "bad", "m": ' + b'{"a": ' * 700 + b"1" + b"}" * 701,
            "'m' is nested more than 64 deep",
        ),
        (b'{"id": "b", "text": "bad", "m": ' + b"[" * 90 + b"]" * 90 + b"}", "'m' is nested"),
        (b'{"id": "b", "text": "bad", "m": {"x": [NaN]}}', "'m.x' holds nan"),
        (b'{"id": "b", "text": "bad", "m": 1e999}', "'m' holds inf"),
        (b'{"id": "b", "text": "bad", "m": "\\ud800"}', "'m' is not valid unicode"),
        (b'{"id": "b", "text": "bad", "m": {"\\udc00": 1}}', "'m' has a key that is not valid"),
        (b'{"id": "b", "text": "bad", "m": "\\u0000"}', "'m' holds NUL"),
        (b'{"id": "b", "text": "a\\u0000b"}', "the text holds NUL"),
        (b'{"id": "b", "text": null}', "'text' is no text: None"),
    ],
)
def test_a_record_that_nothing_can_hold_fails_alone(tmp_path, line, reason):
    """The failure names the line and the field; the records around it are read."""
    (tmp_path / "x.jsonl").write_bytes(GOOD + line + b"\n" + GOOD.replace(b"ok", b"ok2"))
    before, failure, after = read([tmp_path / "x.jsonl"])
    assert (before.id, after.id) == ("ok", "ok2")
    assert failure.where == "x.jsonl:2"
    assert reason in failure.reason


def damaged_xz():
    data = bytearray(lzma.compress(GOOD * 50))
    data[len(data) // 2] ^= 255
    return bytes(data)


def zipped(*members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.jsonl.xz", damaged_xz(), "Corrupt input"),
        ("x.jsonl.zip", b"PK\3\4 not really", "not a zip"),
        ("x.jsonl.zip", zipped(("a.jsonl", GOOD), ("b.jsonl", GOOD)), "holds 2 files"),
        ("x.jsonl.zip", zipped(), "holds 0 files"),
        ("x.jsonl.bz2", b"BZh9 not really", "Invalid data"),
        ("x.json", b'{"id": "a"', "not JSON"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.parquet", b"PAR1" + b"\0" * 40 + b"PAR1", "thrift"),
        ("x.md", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        ("x.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
    ],
)
def test_a_damaged_file_fails_alone(tmp_path, name, content, reason):
    """Whatever its parser raises, the next file is read."""
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.txt").write_text("fine")
    failure, document = read([tmp_path])
    assert isinstance(failure, Failure)
    assert (failure.where, document.id) == (name, "z.txt")
    assert reason in failure.reason


@pytest.mark.parametrize(
    "error", [AssertionError, RecursionError, MemoryError, KeyError, TypeError]
)
def test_whatever_a_reader_raises_costs_its_file(tmp_path, monkeypatch, error):
    """Also what no parser should raise."""

    def broken(stream, options):
        yield 1, {"id": "first", "text": "t"}
        raise error("odd")

    monkeypatch.setitem(formats.RECORDS, ".csv", broken)
    (tmp_path / "x.csv").write_text("id,text\n")
    (tmp_path / "z.txt").write_text("fine")
    first, failure, last = read([tmp_path])
    assert (first.id, failure.where, last.id) == ("first", "x.csv", "z.txt")


def test_what_ends_a_run_ends_it(tmp_path, monkeypatch):
    """A wrong option is no file's fault."""
    (tmp_path / "x.txt").write_text("fine")
    with pytest.raises(ConfigError, match="--encoding: unknown encoding 'klingon'"):
        texts(tmp_path, encoding="klingon")


def test_a_parquet_value_that_python_lacks_costs_its_row(tmp_path):
    """Dates beyond the year 9999, in the middle of a batch."""
    days = pa.array([0, 5_000_000, 1], pa.date32())
    table = pa.table({"id": ["a", "b", "c"], "text": ["t"] * 3, "day": days})
    pq.write_table(table, tmp_path / "x.parquet")
    first, failure, last = read([tmp_path])
    assert (first.metadata, last.metadata) == ({"day": "1970-01-01"}, {"day": "1970-01-02"})
    assert failure.where == "x.parquet:2"


@pytest.mark.parametrize("content", [b"", b"PAR1 not really PAR1", b"version https://git-lfs."])
def test_a_damaged_table_among_others_costs_itself(tmp_path, connector, encoder, content):
    """A folder of nothing but Parquet is looked at before it is read; that ends no run either."""
    for name in "ac":
        pq.write_table(pa.table({"id": [name], "text": ["t"]}), tmp_path / f"{name}.parquet")
    (tmp_path / "b.parquet").write_bytes(content)
    report = ingest([tmp_path], encoder, connector)
    assert (report.written, report.failed) == (2, 1 if content else 0)


def test_a_damaged_part_of_a_table_costs_its_rows(tmp_path):
    """The row groups around it are read, and rows keep their numbers."""
    table = pa.table({"id": list("abcdef"), "text": ["some text"] * 6})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=2, write_page_checksum=True, compression="none")
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + 12] ^= 255
    path.write_bytes(content)
    items = list(read([path]))
    assert [each.id for each in items if isinstance(each, Document)] == list("abef")
    (failure,) = [each for each in items if isinstance(each, Failure)]
    assert failure.where == "x.parquet:3"
    assert "from here on 2 rows cannot be read" in failure.reason


def test_nanoseconds_keep_their_digits(tmp_path):
    """Without pandas, which Arrow would ask for."""
    at = pa.array([1_714_564_800_123_456_789], pa.timestamp("ns"))
    pq.write_table(pa.table({"id": ["a"], "text": ["t"], "at": at}), tmp_path / "x.parquet")
    assert read_one(tmp_path).metadata == {"at": "2024-05-01T12:00:00.123456789"}


def test_times_of_pandas_are_dates_to_filters(tmp_path):
    """They are in nanoseconds, which are zero as a rule: written as Python does, in their zone."""
    second = 1_714_564_800_000_000_000
    zones = {None: "", "UTC": "+00:00", "Asia/Kolkata": "+05:30"}
    columns = {
        f"{zone}": pa.array([second, second + 120_000], pa.timestamp("ns", zone)) for zone in zones
    }
    pq.write_table(
        pa.table({"id": ["a", "b"], "text": ["t", "t"], **columns}), tmp_path / "x.parquet"
    )
    for digits, document in zip(["", ".000120"], read([tmp_path]), strict=True):
        for zone, offset in zones.items():
            hour = "17:30" if offset == "+05:30" else "12:00"
            value = document.metadata[str(zone)]
            assert value == f"2024-05-01T{hour}:00{digits}{offset}"
            assert matches(F("at") >= date(2024, 5, 1), {"at": value})


def test_two_columns_of_one_name_are_refused(tmp_path):
    """The first would be lost."""
    table = pa.Table.from_arrays([pa.array([each]) for each in "axy"], ["id", "text", "text"])
    pq.write_table(table, tmp_path / "x.parquet")
    (failure,) = read([tmp_path])
    assert "two columns have one name: id, text, text" in failure.reason


# ------------------------------------------------------------------------- only regular files


def test_only_regular_files_inside_the_folder_are_read(tmp_path):
    """Pipes, sockets and links that lead out are left out and counted; a link within is read."""
    folder, outside = tmp_path / "docs", tmp_path / "outside"
    for each in (folder / "sub", outside):
        each.mkdir(parents=True)
    (folder / "a.txt").write_text("inside")
    (outside / "secret.txt").write_text("secret")
    os.mkfifo(folder / "pipe.txt")
    (folder / "out.txt").symlink_to(outside / "secret.txt")
    (folder / "out").symlink_to(outside)
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "sub" / "b.txt").symlink_to(folder / "a.txt")
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    remarks = Remarks()
    assert [document.id for document in read([folder], remarks=remarks)] == ["a.txt", "sub/b.txt"]
    assert remarks.left_out == {
        "no regular file": 1,
        "link that leaves the folder": 2,
        "linked folder": 1,
        "link to nothing": 1,
    }
    assert [document.text for document in read([folder / "out.txt"])] == ["secret"]


class Unseen:
    """An entry of a folder that may be listed and not entered."""

    def __init__(self, entry):
        self.name, self.path = entry.name, entry.path

    def is_symlink(self):
        return False

    def stat(self):
        raise PermissionError(13, "Permission denied", self.path)


@pytest.fixture
def forbid(tmp_path, monkeypatch):
    """From its call on ``closed`` may not be entered, and of ``listed`` no more be seen than its names.

    Simulated, since nothing is forbidden to who runs the tests as root.
    """
    for name in ("closed", "listed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old.md").write_text("text")
    (tmp_path / "a.md").write_text("text")
    scandir, stat = os.scandir, os.stat

    def refuse(path):
        if str(path).startswith(str(tmp_path / "closed")):
            raise PermissionError(13, "Permission denied", str(path))

    def guarded_scandir(path):
        refuse(path)
        opened = scandir(path)
        if not str(path).endswith("listed"):
            return opened
        with opened:
            return nullcontext([Unseen(entry) for entry in opened])

    def guarded_stat(path, *arguments, **options):
        if str(path) != str(tmp_path / "closed"):
            refuse(path)
        return stat(path, *arguments, **options)

    def forbid():
        monkeypatch.setattr(os, "scandir", guarded_scandir)
        monkeypatch.setattr(os, "stat", guarded_stat)

    return forbid


@pytest.mark.parametrize(
    ("named", "options", "failing"),
    [
        ("", {}, ["closed", "listed/old.md"]),
        ("", {"include": ["*.md"]}, ["closed", "listed/old.md"]),
        ("", {"exclude": ["closed/"]}, ["listed/old.md"]),
        ("", {"exclude": ["closed", "listed/"]}, []),
        ("**/*.md", {}, ["closed", "listed/old.md"]),
        ("c*/*.md", {}, ["closed"]),
        ("*.md", {}, []),
    ],
)
def test_what_may_not_be_looked_at_is_a_failure(forbid, tmp_path, named, options, failing):
    """Never a remark: what lies there would count as gone."""
    forbid()
    found = find([f"{tmp_path}/{named}"], Selection(**options))
    assert [file.name for file in found if file.fault] == failing
    assert ["a.md"] * (named != "c*/*.md") == [file.name for file in found if not file.fault]
    assert all("Permission denied" in file.fault for file in found if file.fault)


def test_nothing_is_pruned_while_something_may_not_be_looked_at(
    forbid, tmp_path, connector, encoder
):
    """Its documents are still there, for all that is known."""
    assert ingest([tmp_path], encoder, connector).written == 3
    forbid()
    with pytest.raises(NotPruned, match="of 3 documents read 2 failed"):
        ingest([tmp_path], encoder, connector, prune=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_whose_name_is_no_text_fails_alone(tmp_path, connector, encoder, caplog):
    """Its id cannot be stored, and is not looked up either; the line that says so can be written."""
    (tmp_path / "ok.md").write_text("# Fine")
    (tmp_path / os.fsdecode(b"\xff.md")).write_text("# Named in another encoding")
    report = ingest([tmp_path], encoder, connector)
    assert (report.written, report.failed) == (1, 1)
    assert caplog.text.encode().count(rb"\udcff.md: ") == 1


def test_an_empty_path_is_not_the_current_folder():
    """It is a variable that nobody set."""
    with pytest.raises(ConfigError, match="a path is empty"):
        find([""])


def test_what_a_remote_file_system_raises_names_the_url(monkeypatch):
    """Without the password."""

    class Away:
        protocol = "s3"

        def isfile(self, path):
            raise ConnectionError("no route to bob")

    monkeypatch.setattr(files, "url_to_fs", lambda path: (Away(), path))
    with pytest.raises(ConfigError, match=r"^s3://h/x\.md cannot be looked at: ConnectionError"):
        find(["s3://bob:SECRET@h/x.md"])


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::http://example.com/x.txt",
        "zip://x.txt::file:///tmp/x.zip",
        "github://a:b@c/x.txt",
        "ftp://host/x.txt",
        "ssh://host/x.txt",
        "data:text/plain,abc",
        "filecache::s3://b/x.txt",
        "FTP://host/x.txt",
    ],
)
def test_other_protocols_and_chains_are_refused(url):
    """fsspec knows file systems that run commands or read local files by another name."""
    with pytest.raises(ConfigError, match="only these protocols are read, and not in chains"):
        find([url])


def test_a_refused_address_does_not_print_its_password():
    """Nor a signature in its query."""
    with pytest.raises(ConfigError) as error:
        find(["ftp://bob:SECRET@host/x.txt?X-Amz-Signature=SECRET2"])
    assert "SECRET" not in str(error.value)


# ----------------------------------------------------------------------------- what is left out


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
    """And by reason, where it is not the format."""
    for name in ("a.md", "b.png", "c.png", "LICENSE", ".hidden", "node_modules/x.md", "venv/x.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "venv/pyvenv.cfg").write_text("")
    remarks = Remarks()
    assert [file.name for file in find([tmp_path], remarks=remarks)] == ["a.md"]
    assert remarks.sentences() == [
        "left out: 2 .png, 1 hidden, 1 folder node_modules, 1 folder venv, 1 without a suffix"
    ]


def test_settings_and_schemas_in_a_folder_are_no_failures(tmp_path):
    """One JSON object without a text, beside documents. Named, or with more objects, it fails as before."""
    (tmp_path / "package.json").write_text('{"name": "x", "version": 1}')
    (tmp_path / "one.json").write_text('{"text": "a document"}')
    (tmp_path / "more.json").write_text('[{"body": "b"}, {"text": "c"}]')
    remarks = Remarks()
    found = [each.where for each in read([tmp_path], remarks=remarks)]
    assert found == ["more.json:1", "more.json:2", "one.json:1"]
    assert remarks.sentences() == ["left out: 1 .json without 'text'"]
    (failure,) = read([tmp_path / "package.json"])
    assert "fields: name, version (--text-field)" in failure.reason


def test_a_folder_with_nothing_to_read_is_an_error(tmp_path):
    """It says what is there."""
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(ConfigError, match=r"nothing to read in .*; left out: 1 \.png. Known"):
        find([tmp_path])


def test_gitignore_is_honoured(tmp_path):
    """Also in folders below, whose files decide; and not if it is not wanted."""
    for name in ("a.md", "b.tmp.md", "build/c.md", "sub/d.md", "sub/e.tmp.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / ".gitignore").write_text("build/\n*.tmp.md\n")
    (tmp_path / "sub/.gitignore").write_text("!e.tmp.md\nd.md\n")
    assert [file.name for file in find([tmp_path])] == ["a.md", "sub/e.tmp.md"]
    assert len(find([tmp_path], Selection(gitignore=False))) == 5


@pytest.mark.parametrize("kind", ["pipe", "folder", "bad lines", "long"])
def test_an_odd_gitignore_ends_no_run(tmp_path, caplog, kind):
    """A pipe is not opened, bad lines leave nothing out and are told, and no pattern takes long."""
    ignore = tmp_path / ".gitignore"
    name = "a" * 200 + ".md"
    (tmp_path / name).write_text("text")
    (tmp_path / "b.tmp.md").write_text("text")
    match kind:
        case "pipe":
            os.mkfifo(ignore)
        case "folder":
            ignore.mkdir()
        case "bad lines":
            ignore.write_text("[z-a]\n!\n*.tmp.md\n")
        case "long":  # hours, if each star were tried in each place
            ignore.write_text("*a" * 30 + "*b\n**/**/a/**/a/**/a/**/b\n*.tmp.md\n")
    read_are = [name] if kind in {"bad lines", "long"} else [name, "b.tmp.md"]
    assert [file.name for file in find([tmp_path])] == read_are
    assert len(caplog.messages) == {"bad lines": 2, "long": 1}.get(kind, 0)
    with pytest.raises(ConfigError, match=r"--exclude '\[z-a\]' is no pattern of \.gitignore"):
        find([tmp_path], Selection(exclude=["[z-a]"]))


def test_patterns_choose_files(tmp_path):
    """Included ones must match, excluded ones must not."""
    for name in ("a.md", "b.txt", "drafts/c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    chosen = Selection(include=["*.md"], exclude=["drafts/"])
    assert [file.name for file in find([tmp_path], chosen)] == ["a.md"]


def test_own_output_is_never_a_source(tmp_path):
    """Files to be written are left out of folders and refused by name; old reports and dead letters too."""
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    letter = {"reason": "r", "where": "a.jsonl:2", "id": None, "root": "/x/a.jsonl"}
    (tmp_path / "dead-letters.jsonl").write_text(json.dumps(letter) + "\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "x.txt").write_text("state")
    report = tmp_path / "report"
    report.mkdir()
    for name in ("results.json", "summary.json", "results.md", "report.html"):
        (report / name).write_text("written by eval")
    outputs = Selection(outputs=[tmp_path / "state"])
    remarks = Remarks()
    assert [each.id for each in read([tmp_path], selection=outputs, remarks=remarks)] == ["ok"]
    assert remarks.left_out == {"own output": 2, "dead letters": 1}
    (report / "summary.json").unlink()  # then it is no report, but somebody's files
    assert "report/report.html" in {each.id for each in read([tmp_path], selection=outputs)}
    with pytest.raises(ConfigError, match="both to be read and to be written"):
        find([tmp_path / "a.jsonl"], Selection(outputs=[tmp_path / "a.jsonl"]))


def test_an_extra_that_is_missing_costs_its_files(tmp_path, monkeypatch):
    """Each says how to install it; the rest is read."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "b.txt").write_text("fine")
    failure, document = read([tmp_path])
    assert 'pip install "m3connect[files]"' in failure.reason
    assert document.id == "b.txt"


# ----------------------------------------------------------------------------------- encodings

SENTENCES = {
    "cp1252": "He said \u201cyes\u201d \u2014 it\u2019s fine.",
    "latin-1": "Die Prüfung der Übungen läuft schön.",
    "utf-16": "Größe, 大小",
    "utf-16-le": "Größe und mehr",
    "utf-16-be": "Größe und mehr",
    "utf-32": "Größe",
    "gbk": "这是一个中文文档。",
    "big5": "這是一個中文檔案。",
    "shift_jis": "これは日本語の文書です。",
    "iso2022_jp": "これは日本語の文書です。",
    "euc_kr": "이것은 한국어 문서입니다.",
    "cp1251": "Это русский текст для проверки.",
    "koi8-r": "Это русский текст для проверки.",
    "cp1250": "Zażółć gęślą jaźń",
    "utf-8-sig": "Größe",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_text_is_read_in_the_encoding_it_has(tmp_path, encoding):
    """Told by a mark, by being UTF-8, or by a guess, which is reported."""
    (tmp_path / "x.txt").write_bytes(SENTENCES[encoding].encode(encoding))
    remarks = Remarks()
    (document,) = read([tmp_path], remarks=remarks)
    assert document.text == SENTENCES[encoding]
    marked = encoding in {"utf-16", "utf-32", "utf-8-sig"}
    assert remarks.guessed.total() == (0 if marked else 1)
    assert ("encoding" in document.metadata) != marked


def test_the_encoding_can_be_given(tmp_path):
    """It has precedence over a guess."""
    (tmp_path / "x.txt").write_bytes("Größe".encode("cp437"))
    assert texts(tmp_path, encoding="cp437") == ["Größe"]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_records_are_read_in_utf16(tmp_path, name, encoding):
    """As Windows writes them, with a mark or without."""
    sign = "," if name == "x.csv" else "\t"
    rows = {
        ".csv": f"id{sign}text\na{sign}Größe\n",
        ".tsv": f"id{sign}text\na{sign}Größe\n",
        ".jsonl": '{"id": "a", "text": "Größe"}\n',
        ".json": '[{"id": "a", "text": "Größe"}]',
    }[name[1:]]
    (tmp_path / name).write_bytes(rows.encode(encoding))
    assert list(read([tmp_path])) == [Document("a", "Größe", {})]


def test_records_are_read_in_legacy_encodings(tmp_path):
    """CSV by a guess, JSON lines by name."""
    (tmp_path / "x.csv").write_bytes("id,text\na,Die Größe ist schön\n".encode("cp1252"))
    assert texts(tmp_path) == ["Die Größe ist schön"]
    (tmp_path / "x.csv").unlink()
    (tmp_path / "x.jsonl").write_bytes('{"id": "a", "text": "Größe"}\n'.encode("cp1252"))
    assert "not UTF-8" in texts(tmp_path)[0]
    assert texts(tmp_path, encoding="cp1252") == ["Größe"]


# ----------------------------------------------------------------------------------------- HTML

PAGES = {
    "unclosed": (
        b"<html><body>" + b"".join(b"<p>paragraph %d" % at for at in range(400)),
        "\n\n".join(f"paragraph {at}" for at in range(400)),
    ),
    "no-head-end": (b"<html><head><title>T</title><body><p>The text.</p>", "The text."),
    "no-tags": (b"just text", "just text"),
    "template": (b"<p>a<template><li>hidden<template></template></template><p>b", "a\n\nb"),
    "iframe": (b"<p>a<iframe><p>not shown</iframe>b", "ab"),
    "klingon": ('<meta charset="klingon"><p>Größe'.encode(), "Größe"),
    "doctype": (b"<p>before</p><!x[ y <p>after</p>", "before\n\nafter"),
    "windows-1252": (
        b'<meta charset="iso-8859-1"><p>He said \x93yes\x94.</p>',
        "He said \u201cyes\u201d.",
    ),
    "gb2312": (b'<meta charset="gb2312"><p>' + "镕€".encode("gb18030"), "镕€"),
    "euc-kr": (b'<meta charset="euc-kr"><p>' + "똠".encode("cp949"), "똠"),
    "shift_jis": (b'<meta charset="shift_jis"><p>' + "①".encode("cp932"), "①"),
    "says-utf-16": ('<meta charset="utf-16"><p>Größe'.encode(), "Größe"),
    "is-utf-16": ("<p>Größe".encode("utf-16"), "Größe"),
    "undeclared": ("<p>Die Prüfung läuft schön.".encode("cp1252"), "Die Prüfung läuft schön."),
    "blanks": (b"<p>one" + b" " * 80_000 + b"two", "one two"),
    "lines": (b"<p>one" + b"\n" * 80_000 + b"two", "one\ntwo"),
    "navigation": (b"<nav><a href=x>Home</a></nav><p>The text.", "The text."),
    "nested": (b"<div>" * 600 + b"deep", "deep"),
    "underscores": (b"<p>snake_case * 2", "snake_case * 2"),
    "image": (b"<p>A <img alt=dot src='data:image/png;base64," + b"iVBO" * 99 + b"'>", "A dot"),
}


def test_pages_are_read_as_browsers_read_them(tmp_path):
    """Missing end tags, encodings by their web names, blanks, deep nesting; one child reads all."""
    for name, (content, _) in PAGES.items():
        (tmp_path / f"{name}.html").write_bytes(content)
    found = {item.id.removesuffix(".html"): item for item in read([tmp_path])}
    assert {name: getattr(item, "text", item) for name, item in found.items()} == {
        name: text for name, (_, text) in PAGES.items()
    }


# -------------------------------------------------------------------------------- CSV and TSV


def test_tsv_is_not_quoted_as_csv_is(tmp_path):
    """A quote at the start of a field swallows nothing; a field quoted as a whole loses them."""
    (tmp_path / "x.tsv").write_text('id\ttext\n1\tplain\n2\t"Begin" is the word\n3\t"a ""b"" c"\n')
    assert texts(tmp_path) == ["plain", '"Begin" is the word', 'a "b" c']


def test_a_quote_that_never_ends_is_said_with_its_line(tmp_path):
    """Rows before it are read; a row that is misquoted costs itself."""
    (tmp_path / "x.csv").write_text('id,text\n1,ok\n2,"a" b\n3,ok\n4,"never\n5,lost\n')
    rows = texts(tmp_path)
    assert rows[0] == rows[2] == "ok"
    assert "misquoted" in rows[1]
    assert "a quote that opens in line 5 never ends" in rows[3]
    assert len(rows) == 4


def test_a_limit_is_of_this_file_alone(tmp_path):
    """A quote is given up at the limit; csv's own, which is the whole process', stays as it is."""
    before = csv.field_size_limit()
    (tmp_path / "long.csv").write_text("id,text\n1," + "x" * 200_000 + "\n2,ok\n")
    rows = read([tmp_path / "long.csv"])
    assert len(next(rows).text) == 200_000
    assert csv.field_size_limit() == before  # in the middle of a file
    assert [row.text for row in rows] == ["ok"]
    (tmp_path / "long.csv").unlink()
    (tmp_path / "wide.csv").write_text("id,text\n1," + "x" * 2_000 + "\n2,ok\n")
    assert texts(tmp_path, file_bytes=1000) == ["a line of more than 1,000 characters", "ok"]
    (tmp_path / "wide.csv").unlink()
    (tmp_path / "x.csv").write_text("id,text\n1,ok\n2," + "y" * 900 + '\n3,"' + "never\n" * 500)
    rows = texts(tmp_path, file_bytes=1000)
    assert rows[:2] == ["ok", "y" * 900]
    assert "a quote that opens in line 4 never ends" in rows[2]
    assert len(rows) == 3
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_is_told(tmp_path, sign):
    """The one that makes the rows as long as the header."""
    (tmp_path / "x.csv").write_text(f'id{sign}text\n1{sign}"a, b; c"\n2{sign}d e\n')
    assert texts(tmp_path) == ["a, b; c", "d e"]


def test_a_single_column_has_no_delimiter(tmp_path):
    """And a line that names one is not the header."""
    (tmp_path / "x.csv").write_text("text\none\ntwo\n")
    (tmp_path / "y.csv").write_text("sep=;\ntext;n\none;1\n")
    (tmp_path / "z.csv").write_text("sep=")
    (tmp_path / "zz.csv").write_text("SEP=\r\nn;text\r\n1;three\r\n")
    assert texts(tmp_path) == ["one", "two", "one", "three"]


CSV = "id,text,price,zip,open,note,mixed,none\n" + "".join(
    f"{line}\n"
    for line in ("01,x,18.5,10115,true,1e3x,1,", "2,7,25,01067,FALSE,,a,", "3,y,,1,,2,,")
)


def test_columns_get_types(tmp_path):
    """Numbers and booleans where a column holds nothing else; codes, ids and texts stay text."""
    (tmp_path / "x.csv").write_text(CSV)
    first, second, third = read([tmp_path])
    text = {"note": "1e3x", "mixed": "1", "none": ""}
    assert first == Document("01", "x", {"price": 18.5, "zip": "10115", "open": True, **text})
    assert second.text == "7"
    assert (second.metadata["price"], second.metadata["open"]) == (25, False)
    assert (third.metadata["price"], third.metadata["open"]) == (None, None)
    assert all(
        isinstance(value, str)
        for item in read_files(find([tmp_path]), Options(csv_types="string"))
        for value in item.metadata.values()
    )


@pytest.mark.parametrize("value", ["1_000", "nan", "inf", "0x10", "\u0663", "1.", "+5", "9" * 30])
def test_odd_numbers_stay_text(tmp_path, value):
    """What other tools would read in another way is not read as a number."""
    (tmp_path / "x.csv").write_text(f"id,text,n\n1,t,{value}\n", encoding="utf-8")
    assert read_one(tmp_path).metadata == {"n": value}


# ------------------------------------------------------------------------------- other formats


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b'[{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]', ["a", "b"]),
        (b'{\n  "id": "a",\n  "text": "x"\n}', ["a"]),
        (b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n', ["a", "b"]),
        (b"", []),
    ],
)
def test_a_json_file_is_an_array_an_object_or_lines(tmp_path, content, ids):
    """Whatever the suffix says."""
    (tmp_path / "x.json").write_bytes(content)
    assert [item.id for item in read([tmp_path])] == ids


def test_front_matter_is_metadata(tmp_path):
    """Its title is the document's; what is no mapping stays text."""
    (tmp_path / "a.md").write_text("---\ntitle: A & B\ntags: [x]\nday: 2024-05-01\n---\n\n# Head\n")
    (tmp_path / "b.md").write_text("---\n\nJust a line.\n\n---\n")
    (tmp_path / "c.md").write_text("---\na: &x [1]\nb: [*x, *x]\n---\ntext\n")
    first, second, third = read([tmp_path])
    assert first.metadata == {
        "source": "a.md",
        "title": "A & B",
        "tags": ["x"],
        "day": "2024-05-01",
    }
    assert first.text == "\n# Head\n"
    assert second.text.startswith("---\n\nJust")
    assert third.text.startswith("---\na: &x")
    only = read_files(find([tmp_path / "a.md"]), Options(Fields(metadata=["day"])))
    assert next(only).metadata == {"source": "a.md", "title": "A & B", "day": "2024-05-01"}


def test_mail_source_code_and_plain_formats_are_read(tmp_path):
    """Without an extra."""
    (tmp_path / "a.eml").write_bytes(
        b"From: a@example.com\nTo: b@example.com\nSubject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=\n"
        b"Date: Wed, 01 May 2024 12:00:00 +0000\nContent-Type: text/html; charset=utf-8\n\n"
        b"<p>The <b>text</b>"
    )
    (tmp_path / "b.rst").write_text("Title\n=====\n")
    (tmp_path / "c.py").write_text("x = 1\n")
    (tmp_path / "d.log").write_text("started\n")
    mail, *others = read([tmp_path])
    assert mail.text == "The **text**"
    assert mail.metadata == {
        "from": "a@example.com",
        "to": "b@example.com",
        "date": "2024-05-01T12:00:00+00:00",
        "source": "a.eml",
        "title": "Größe",
    }
    assert [each.text for each in others] == ["Title\n=====\n", "x = 1\n", "started\n"]


def test_a_converted_text_without_meaning_is_a_failure(tmp_path):
    """NUL characters are never stored, wherever a converter lets them through."""
    (tmp_path / "a.eml").write_bytes(b"Subject: x\n\na\0b\n")
    (failure,) = read([tmp_path])
    assert "holds NUL characters" in failure.reason


def test_mail_is_read_in_the_encoding_it_has(tmp_path):
    """As browsers read what is declared; what is not, is unknown or cannot be, is told by the bytes."""
    latin, chinese = "Grüße aus Köln, schöne Grüße", "他說朱鎔基和喆寫了這一封信" * 3
    cases = (
        ("gb2312", "gb18030", chinese),
        ("nonsense", "gb18030", chinese),
        ("us-ascii", "utf-8", chinese),
        (None, "cp1252", latin),
    )
    texts = {}
    for subtype in ("plain", "html"):
        for charset, encoding, text in cases:
            declared = f"; charset={charset}" if charset else ""
            head = f"Content-Type: text/{subtype}{declared}\nContent-Transfer-Encoding: 8bit\n\n"
            name = f"{subtype}-{charset}.eml"
            (tmp_path / name).write_bytes(head.encode() + text.encode(encoding))
            texts[name] = text
    assert {mail.id: mail.text.strip() for mail in read([tmp_path])} == texts


def test_mail_that_is_not_in_its_encoding_fails(tmp_path):
    """Where the standard library would put replacement characters, and say nothing."""
    (tmp_path / "a.eml").write_bytes(b"Content-Type: text/plain; charset=utf-8\n\ncaf\xe9 \xff\n")
    (failure,) = read([tmp_path])
    assert "not UTF-8: byte 0xe9" in failure.reason


def test_lines_of_texts_are_read_in_their_encoding(tmp_path):
    """As ``m3connect encode`` reads questions; a damaged file costs itself."""
    (tmp_path / "a.txt").write_bytes("Größe\n\nzwei\n".encode("utf-16"))
    (tmp_path / "b.txt.xz").write_bytes(damaged_xz())
    (tmp_path / "c.txt").write_bytes("Straße\n".encode("cp437"))
    first, second, failure, *_ = read_lines(find([tmp_path]))
    assert [(each.id, each.text) for each in (first, second)] == [
        ("a.txt:1", "Größe"),
        ("a.txt:3", "zwei"),
    ]
    assert failure.where == "b.txt.xz"
    (line,) = read_lines(find([tmp_path / "c.txt"]), "cp437")
    assert line.text == "Straße"


def test_an_empty_file_is_an_empty_document(tmp_path):
    """Of a page; a file of records that is empty has none."""
    for name in ("a.md", "b.html", "c.jsonl", "d.csv", "e.parquet", "f.json"):
        (tmp_path / name).write_bytes(b"")
    assert [(item.id, item.text) for item in read([tmp_path])] == [("a.md", ""), ("b.html", "")]


def test_images_in_texts_are_dropped_and_counted(tmp_path):
    """Their descriptions stay, and so does a URL that is short."""
    image = "data:image/png;base64," + "iVBORw0K" * 4000
    (tmp_path / "a.md").write_text(f"# P\n\n![a dot]({image})\n\nThe text <{image}>.\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"id": "b", "text": f"see data:x {image}"}))
    remarks = Remarks()
    assert [item.text for item in read([tmp_path], remarks=remarks)] == [
        "# P\n\na dot\n\nThe text <>.\n",
        "see data:x ",
    ]
    assert remarks.images == 3


RUN = "iVBORw0K" * 400
LINES = "\n  ".join(["iVBORw0K" * 9] * 20 + ["iVBORw0="])


@pytest.mark.parametrize(
    "url",
    [
        f"DATA:image/png;BASE64,{RUN}",
        f"data:;base64,{RUN}",
        f'data:image/png;name="a b.png";base64,{RUN}',
        f"data:image/png;base64,{LINES}",
        f"data:image/png;base64,\n{LINES}",
        f"data:image/svg+xml;charset=utf-8,%3Csvg%20{'x%20' * 40}",
    ],
)
@pytest.mark.parametrize(
    "around", ["A ![dot](URL)\nbelow", "A ![dot](<URL>)\nbelow", "A URL\n\nbelow"]
)
def test_images_in_texts_are_dropped_in_every_form(url, around):
    """In lines as mail has them, in capitals, without a type, percent-encoded: no word around is lost."""
    text, dropped = formats.without_images(around.replace("URL", url))
    assert dropped == 1
    assert text.split() in (["A", "dot", "below"], ["A", "below"])


# -------------------------------------------------------------------------------------- limits


def test_what_unpacks_to_too_much_is_refused(tmp_path):
    """A page, a line, an array: each alone."""
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 2000))
    (tmp_path / "b.jsonl.gz").write_bytes(
        gzip.compress(b'{"id": "b", "text": "' + b"x" * 2000 + b'"}\n' + GOOD)
    )
    (tmp_path / "c.json").write_bytes(b"[" + b" " * 2000 + b"]")
    (tmp_path / "d.txt").write_bytes(b"x" * 1000)
    *refused, fits = (texts(tmp_path, file_bytes=1000)[at] for at in (0, 1, 3, 4))
    assert all("1,000 bytes" in each and "--max-file-bytes" in each for each in refused)
    assert fits == "x" * 1000
    assert texts(tmp_path, file_bytes=1000)[2] == "t"


def test_a_conversion_that_never_ends_is_ended(tmp_path, monkeypatch):
    """The next one gets a new child."""
    monkeypatch.setattr("m3connect.conversion.converter._CODE", "while True: pass")
    with Converter(0.3, 1000) as converter:
        with pytest.raises(InputError, match=r"took more than 0\.3 s"):
            converter.convert(b"<p>x", ".html", None)
        monkeypatch.undo()
        converter.seconds = 60
        assert converter.convert(b"<p>x", ".html", None).text == "x"


def test_a_converter_that_dies_costs_its_file(monkeypatch):
    """It says how it ended."""
    monkeypatch.setattr("m3connect.conversion.converter._CODE", "import os; os.abort()")
    died = pytest.raises(InputError, match=r"the converter died of it \(exit -6\)")
    with Converter(60, 1000) as converter, died:
        converter.convert(b"<p>x", ".html", None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory")
def test_a_conversion_may_not_fill_the_memory(monkeypatch):
    """The child has a limit of its own; what exceeds it is that file's failure."""
    greedy = "c.convert = lambda *_: c.Page(str(len(bytearray(c.MEMORY + 1))))"
    code = f"import sys; from m3connect.conversion import converter as c; {greedy}; c.serve(60)"
    monkeypatch.setattr("m3connect.conversion.converter._CODE", code)
    with Converter(60, 1000) as converter, pytest.raises(InputError, match="more memory than"):
        converter.convert(b"x", ".html", None)


def test_nothing_is_imported_from_the_folder_that_is_read(tmp_path, monkeypatch):
    """A file there that has a library's name is no library."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "html5lib.py").write_text("raise SystemExit('run!')")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    (tmp_path / "x.html").write_text("<p>text")
    assert texts(tmp_path / "x.html") == ["text"]


def workbook(cell):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active["A1"] = "a"
    book.active[cell] = "b"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@pytest.mark.slow
@needs_markitdown
def test_a_cell_far_out_is_refused(tmp_path):
    """Before a converter writes all empty cells between."""
    (tmp_path / "a.xlsx").write_bytes(workbook("XFD1048576"))
    (tmp_path / "b.xlsx").write_bytes(workbook("XFD1"))
    (tmp_path / "c.xlsx").write_bytes(workbook("C9"))
    corner, column, document = read([tmp_path])
    assert "spans 1,048,576 rows and 16,384 columns and has 2 cells" in corner.reason
    assert "spans 1 rows and 16,384 columns" in column.reason
    assert document.id == "c.xlsx"


@pytest.mark.slow
@needs_markitdown
def test_an_office_file_that_unpacks_to_too_much_is_refused(tmp_path):
    """By what its parts say of their size."""
    (tmp_path / "a.docx").write_bytes(zipped(("word/document.xml", b"x" * 100_000)))
    assert "unpacks to 100,000 bytes" in texts(tmp_path, file_bytes=10_000)[0]


@pytest.mark.slow
@needs_markitdown
def test_books_notebooks_and_other_documents_are_read(tmp_path):
    """With the extra ``files``."""
    odt = (
        '<d xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0">'
        '<text:h text:outline-level="2">Head</text:h><text:p>Body</text:p></d>'
    )
    (tmp_path / "a.odt").write_bytes(zipped(("content.xml", odt)))
    cells = [{"cell_type": "markdown", "source": ["# Notes"]}, {"cell_type": "code", "source": "1"}]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "b.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "c.xml").write_text("<a><b>one</b><c>two</c></a>")
    bomb = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>'
    (tmp_path / "d.xml").write_text(bomb)
    odt_text, notes, xml, failure = read([tmp_path])
    assert odt_text.text == "## Head\n\nBody"
    assert "# Notes" in notes.text
    assert xml.text == "one\ntwo"
    assert "EntitiesForbidden" in failure.reason


@pytest.mark.parametrize("bad", ["b\0", "bé\0", "bbé\0"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_nul_costs_its_record_and_not_the_file(tmp_path, bad, suffix):
    """A file of UTF-8 with a single NUL is no UTF-16, whatever its length."""
    rows = [("a", "one"), ("b", bad), ("c", "three")]
    lines = [f'{{"id": "{i}", "text": "{text}"}}' for i, text in rows]
    if suffix == "csv":
        lines = ["id,text", *(",".join(row) for row in rows)]
    (tmp_path / f"x.{suffix}").write_text("\n".join(lines), encoding="utf-8")
    got = list(read([tmp_path / f"x.{suffix}"]))
    assert [each.id for each in got if isinstance(each, Document)] == ["a", "c"]
    assert len(got) == 3
