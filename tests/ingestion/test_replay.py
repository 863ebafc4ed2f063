"""Dead letters again: what succeeds leaves the file, and no letter is lost."""

import io
import json
from contextlib import closing
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect import disk
from m3connect.errors import ConfigError, InputError, TransientError
from m3connect.ingestion import ingest, open_source, replay
from m3connect.ingestion.lines import JsonLines
from m3connect.ingestion.report import LETTER_FIELDS, TWICE, DeadLetters, Failure
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder

ENCODER = HashEncoder()


class Watched(MemoryConnector):
    """Remembers which records were written, and refuses ids for as long as they are listed."""

    def __init__(self):
        super().__init__(collection="docs")
        self.written = []
        self.down = False

    def upsert(self, batch):
        if self.down:
            raise TransientError("gone", connector="memory", operation="upsert")
        self.written += batch.ids
        super().upsert(batch)


@pytest.fixture
def connector():
    return Watched()


def write(path, *records):
    """Lines of JSON, or texts as they are."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in records]
    path.write_text("".join(f"{line}\n" for line in lines))


def letters(path):
    """What stands in the file."""
    return [Failure(**json.loads(line)) for line in path.read_text().splitlines()]


def again(path, connector, **options):
    """With the options of the run."""
    return replay(path, partial(open_source, encoder=ENCODER, **options), connector)


def test_what_is_mended_leaves_the_file(connector, tmp_path):
    """Of a file with ids, nothing else is even looked up; names and owners are those of the run."""
    docs, bad = tmp_path / "docs", tmp_path / "bad.jsonl"
    docs.mkdir()
    write(docs / "a.jsonl", {"id": "a", "text": "x"}, {"id": "b"}, {"id": "c", "text": 5})
    write(docs / "sub.jsonl", {"id": "d", "text": "x"})
    (docs / "page.txt").write_bytes(b"nul \0")
    report = ingest([docs], ENCODER, connector, dead_letters=bad)
    root = f"{docs}/"
    assert (report.failed, {(each.id, each.where, each.root) for each in letters(bad)}) == (
        3,
        {
            ("b", "a.jsonl:2", root),
            ("c", "a.jsonl:3", root),
            ("page.txt", "page.txt", root),
        },
    )
    write(docs / "a.jsonl", {"id": "new", "text": "n"}, {"id": "b", "text": "y"}, {"id": "c"})
    (docs / "page.txt").write_text("sound")
    connector.written.clear()
    done = again(bad, connector)
    assert (done.letters, done.report.written, connector.written) == (3, 2, ["b#0", "page.txt#0"])
    assert (
        [(each.id, each.where) for each in letters(bad)]
        == [("c", "a.jsonl:3")]
        == [(each.id, each.where) for each in done.left]
    )
    write(docs / "a.jsonl", {"id": "c", "text": "z"})  # on another line
    done = again(bad, connector)
    assert (done.report.written, done.left, bad.read_text()) == (1, [], "")
    write(docs / "a.jsonl", {"id": "a", "text": "x"}, *({"id": i, "text": i} for i in "bc"))
    assert ingest([docs], ENCODER, connector).unchanged == 3  # all of this source
    assert again(bad, connector).letters == 0


def test_a_line_without_an_id_is_found_by_reading_its_whole_file(connector, tmp_path):
    """Also where it has moved: the line may say nothing of what it was."""
    path, bad = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
    write(path, "no json", {"id": "a", "text": "x"})
    ingest([path], ENCODER, connector, dead_letters=bad)
    write(path, {"id": "a", "text": "x"}, "still none", {"id": "b", "text": "y"})
    done = again(bad, connector)
    assert (done.report.unchanged, done.report.written) == (1, 1)
    assert [each.where for each in letters(bad)] == ["a.jsonl:2"]


def test_a_parquet_that_is_still_damaged_keeps_its_letter(connector, tmp_path):
    """Though no file that is read again is sound; with that reason, until it is mended."""
    bad, path = tmp_path / "bad.jsonl", tmp_path / "docs" / "b.parquet"
    path.parent.mkdir()
    path.write_bytes(b"no")
    write(path.parent / "a.jsonl", {"id": "a", "text": "x"})
    ingest([path.parent], ENCODER, connector, dead_letters=bad)
    (letter,) = letters(bad)
    assert (list(again(bad, connector).left), letters(bad)) == ([letter], [letter])
    pq.write_table(pa.table({"id": ["b"], "text": ["y"]}), path)
    assert (again(bad, connector).report.written, bad.read_text()) == (1, "")


def test_what_is_gone_stays_with_the_reason(connector, tmp_path):
    """A file, a document of a file, and what never had a file."""
    bad = tmp_path / "bad.jsonl"
    for name in ("gone", "here"):
        write(tmp_path / f"{name}.jsonl", {"id": name}, {"id": f"{name}2", "text": "x"})
    (tmp_path / "gone.txt").write_text("\0")
    paths = [tmp_path / "gone.jsonl", tmp_path / "here.jsonl", tmp_path / "gone.txt"]
    ingest(paths, ENCODER, connector, dead_letters=bad)
    ingest([{"id": "p", "text": "x"}, {"id": "p", "text": "y"}, {"id": "q", "text": 1}], ENCODER,
           connector, dead_letters=bad)  # fmt: skip
    (tmp_path / "gone.jsonl").unlink()
    (tmp_path / "gone.txt").unlink()
    write(tmp_path / "here.jsonl", {"id": "here2", "text": "x"})
    before = len(letters(bad))
    for _ in range(2):
        done = again(bad, connector)
        reasons = {each.id: each.reason for each in letters(bad)}
        assert len(reasons) == len(done.left) == done.letters == before == 5
        assert reasons["gone"].endswith("gone.jsonl is not there any more")
        assert reasons["gone.txt"].endswith("gone.txt is not there any more")
        assert reasons["here"] == "it is in its file no more: ingest tells what is"
        assert reasons["p"] == TWICE
        assert reasons["q"].startswith("the text is no text")


def test_the_second_of_two_with_one_id_never_takes_the_others_place(connector, tmp_path):
    """Though its whole file is read, because of another letter."""
    one, two, bad = (tmp_path / name for name in ("1.jsonl", "2.jsonl", "bad.jsonl"))
    write(one, {"id": "a", "text": "first"})
    write(two, {"id": "a", "text": "second"}, "no json")
    ingest([one, two], ENCODER, connector, source_name="s", dead_letters=bad)
    write(two, {"id": "a", "text": "second"}, {"id": "b", "text": "mended"})
    done = again(bad, connector, source_name="s")
    assert connector.fetch(["a#0", "b#0"]).payloads[0]["text"] == "first"
    assert [each.reason for each in letters(bad)] == [TWICE] == [each.reason for each in done.left]
    assert done.report.written == 1


def test_a_replay_that_ends_early_leaves_every_letter(connector, tmp_path):
    """The file is as it was."""
    path, bad = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
    write(path, {"id": "a"}, {"id": "b", "text": "x"})
    ingest([path], ENCODER, connector, dead_letters=bad)
    before = bad.read_bytes()
    write(path, {"id": "a", "text": "x"})
    connector.down = True
    with pytest.raises(TransientError):
        again(bad, connector)
    assert (bad.read_bytes(), sorted(each.name for each in tmp_path.iterdir())) == (
        before,
        ["a.jsonl", "bad.jsonl"],
    )


def test_what_another_run_adds_meanwhile_is_kept(connector, tmp_path):
    """Before the file is replaced, and after, by a run that had it open."""
    path, bad = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
    write(path, {"id": "a"}, {"id": "b", "text": "x"})
    ingest([path], ENCODER, connector, dead_letters=bad)
    write(path, {"id": "a", "text": "x"})
    early, late = Failure("no", "x:1", "early"), Failure("no", "x:1", "late")
    with DeadLetters(bad) as other:

        def opened(files):
            other.add(early)
            return open_source(files, ENCODER)

        assert replay(bad, opened, connector).left == []
        assert letters(bad) == [early]
        other.add(late)
    assert letters(bad) == [early, late]


def test_what_is_added_while_the_file_is_replaced_is_kept(connector, tmp_path, monkeypatch):
    """After the rest of the old file was read, and before the new one has its name."""
    path, bad = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
    write(path, {"id": "a"}, {"id": "b", "text": "x"})
    ingest([path], ENCODER, connector, dead_letters=bad)
    added = [Failure("no", "x:1", str(number)) for number in range(3)]
    take_place = disk.take_place
    with DeadLetters(bad) as other:

        def slow(written, target):
            other.add(added[0])
            take_place(written, target)
            other.add(added[1])

        with monkeypatch.context() as patched:
            patched.setattr(disk, "take_place", slow)
            (left,) = again(bad, connector).left
        other.add(added[2])
    assert set(letters(bad)) == {left, *added}
    assert again(bad, connector).letters == 4


def test_two_replays_at_once_lose_no_letter(connector, tmp_path):
    """The second to finish finds another file than it read."""
    path, bad = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
    write(path, *({"id": f"long id {number}"} for number in range(3)))
    with pytest.raises(InputError):
        ingest([path], ENCODER, connector, dead_letters=bad)
    write(path, *({"id": f"long id {number}", "text": "x"} for number in range(3)))
    new = Failure("no", "x:1", "new")

    def opened(files):
        assert again(bad, connector).report.written == 3
        with DeadLetters(bad) as other:
            other.add(new)
        return open_source(files, ENCODER)

    replay(bad, opened, connector)
    assert letters(bad) == [new]


def test_a_line_of_any_length_is_one_call(tmp_path):
    """So that those of two processes do not mix: a buffer would be emptied in pieces of 8 KiB."""
    lines = JsonLines(tmp_path / "bad.jsonl", "--dead-letters", "list", LETTER_FIELDS)
    with closing(lines):
        assert isinstance(lines.open(), io.RawIOBase)


def test_a_file_of_something_else_is_refused_and_a_torn_line_kept(connector, tmp_path):
    """And a missing one."""
    path, bad = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
    write(path, {"id": "a", "text": "x"})
    with pytest.raises(ConfigError, match=r"a\.jsonl is no list of dead letters"):
        again(path, connector)
    with pytest.raises(ConfigError, match=r"bad\.jsonl: No such file"):
        again(bad, connector)
    with pytest.raises(ConfigError, match="Is a directory"):
        again(tmp_path, connector)
    write(bad, {"reason": "no", "where": "a.jsonl:1", "id": "a", "root": str(path)}, '{"reas')
    assert again(bad, connector).report.written == 1
    assert bad.read_text() == '{"reas\n'
