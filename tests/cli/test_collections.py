"""Everyday commands on collections and records: listing, looking, fetching, deleting, dropping."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3connect import cli
from m3connect.connecting.registry import connect
from m3connect.contract import CollectionSchema
from m3connect.ingestion import ingest
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document, Embeddings, RecordBatch

Run = Callable[..., tuple[int, str, str]]
SCHEMA = CollectionSchema(dense_width=4, sparse=False, multivector_width=None)


class Terminal(io.StringIO):
    """A person at the keyboard."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in an empty folder; ``types`` answers its questions."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, types: str | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO() if types is None else Terminal(types))
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return call


def fill(collection: str, target: str = "qdrant", **options: str) -> None:
    """Two documents of two passages each, in a collection under the current folder."""
    with connect(target, collection=collection, **options) as connector:
        connector.ensure(SCHEMA)
        connector.upsert(records())


def records() -> RecordBatch:
    names = [(document, position) for document in ("a.md", "b.md") for position in (0, 1)]
    payloads = [
        {"text": f"{document} {position} \x1b[31m", "document_id": document, "position": position}
        | {"lang": "de" if document == "a.md" else "en"}
        for document, position in names
    ]
    vectors = np.eye(4, dtype=np.float32)
    embeddings = Embeddings(vectors, None, None, np.full(4, 3, np.int32), np.zeros(4, bool))
    return RecordBatch([f"{document}#{at}" for document, at in names], payloads, embeddings)


def test_the_sources_of_a_collection_are_counted(run: Run, tmp_path: Path) -> None:
    """By documents, not by passages; what ingestion did not write has none that is known."""
    encoder = HashEncoder()
    (tmp_path / "docs").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "docs" / name).write_text("one two three four")
    with connect("qdrant", collection="handbook") as connector:
        ingest(tmp_path / "docs", encoder, connector, chunk_tokens=2)
        ingest([Document("x", "words")], encoder, connector, chunk_tokens=2)
    code, out, _ = run("info", "--sources", "--collection", "handbook")
    lines = [line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("source ")]
    assert (code, lines) == (0, [f"{tmp_path}/docs/, 2 documents", "unnamed, 1 document"])
    found = json.loads(run("info", "--sources", "--collection", "handbook", "--json")[1])
    assert found["sources"] == {f"{tmp_path}/docs/": 2, "unnamed": 1}
    assert "sources" not in json.loads(run("info", "--collection", "handbook", "--json")[1])
    fill("faq")
    assert "not known, 2 documents" in run("info", "--sources", "--collection", "faq")[1]


def count(collection: str) -> int:
    with connect("qdrant", collection=collection) as connector:
        return connector.count()


def test_collections_are_listed_with_what_they_hold(run: Run) -> None:
    """People see a table, machines every value; without a collection, the way to one."""
    assert run("collections") == (0, "", "no collections; m3connect ingest PATH makes one\n")
    fill("handbook")
    fill("faq")
    code, out, _ = run("collections")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["faq", "4"], ["handbook", "4"]]
    listed = json.loads(run("collections", "--json")[1])
    assert [(one["name"], one["records"], one["legs"]) for one in listed] == [
        ("faq", 4, ["dense"]),
        ("handbook", 4, ["dense"]),
    ]
    assert all(one["bytes"] > 0 and one["model"] is None for one in listed)


def test_a_collection_that_is_in_use_hides_no_other(run: Run) -> None:
    """What cannot be opened is named with the reason."""
    fill("handbook")
    fill("faq")
    with connect("qdrant", collection="faq") as holder:
        assert holder.count() == 4
        code, out, _ = run("collections", "--json")
    busy, free = json.loads(out)
    assert code == 0
    assert "in use by" in busy["error"]
    assert free["records"] == 4


def test_info_tells_what_a_collection_says_of_itself(run: Run) -> None:
    """Notes included; an unknown name is told those there are."""
    fill("handbook")
    with connect("qdrant", collection="handbook") as connector:
        connector.annotate({"tuned": {"k": 20}})
    code, out, _ = run("info", "--collection", "handbook")
    assert code == 0
    assert "4 wide" in out
    assert 'note tuned      {"k": 20}' in out
    assert json.loads(run("info", "--collection", "handbook", "--json")[1])["notes"] == {
        "tuned": {"k": 20}
    }
    code, _, err = run("info", "--collection", "handbok")
    assert (code, "no collection 'handbok', but 'handbook'" in err) == (1, True)


def test_fetch_shows_records_and_says_which_are_missing(run: Run) -> None:
    """By id in the order asked, by document in its order; a document's name is told from an id."""
    fill("documents")
    code, out, err = run("fetch", "b.md#1", "a.md#0", "--json")
    first, second = map(json.loads, out.splitlines())
    assert (code, err, first["id"], second["id"]) == (0, "", "b.md#1", "a.md#0")
    assert (first["metadata"], first["tokens"]) == ({"lang": "en"}, 3)
    assert "dense" not in first
    code, out, err = run("fetch", "--document", "b.md", "--document", "c.md", "--json", "--vectors")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["b.md#0", "b.md#1"]
    assert json.loads(out.splitlines()[0])["dense"] == [0.0, 0.0, 1.0, 0.0]
    assert (code, "no document 'c.md'" in err) == (1, True)
    code, out, err = run("fetch", "a.md", "a.md#0")
    assert (code, "a document of 2 passages: --document" in err) == (1, True)
    assert "a.md 0 \\x1b[31m" in out
    with connect("qdrant", collection="documents") as connector:
        odd = {"document_id": "a.md", "position": "CEO", "text": None}
        connector.upsert(replace(records()[:1], ids=["odd"], payloads=[odd]))
    code, out, _ = run("fetch", "--document", "a.md")
    assert (code, "odd" in out, "None" in out) == (0, True, False)


@pytest.mark.parametrize(
    ("what", "left"),
    [
        (["a.md#0", "b.md#0", "zz"], 2),
        (["--document", "a.md"], 2),
        (["--filter", 'lang == "en"'], 2),
        (["--filter", 'lang == "fr"'], 4),
    ],
)
def test_delete_removes_what_was_named(run: Run, what: list[str], left: int) -> None:
    """By id, document or filter; nothing found is nothing deleted, without a question."""
    fill("documents")
    code, out, _ = run("delete", *what, "--yes", "--json")
    assert (code, json.loads(out), count("documents")) == (0, {"deleted": 4 - left}, left)


def test_delete_says_how_many_and_asks(run: Run) -> None:
    """Nobody to ask, or a no, deletes nothing; one way to name records has to be chosen."""
    fill("documents")
    assert "found 0 of" in (out := run("delete", "a.md", "b.md")[1])
    assert "these are documents of 4 passages: --document" in out
    code, _, err = run("delete", "--document", "a.md")
    assert (code, "--yes deletes 2 of 4 records" in err) == (6, True)
    code, _, err = run("delete", "--document", "a.md", types="n\n")
    assert (code, "Delete 2 of 4 records of collection 'documents'?" in err) == (6, True)
    for wrong in ([], ["--filter", ""], ["a.md#0", "--document", "a.md"]):
        assert run("delete", *wrong, "--yes")[0] == 2
    assert count("documents") == 4
    assert run("delete", "--document", "a.md", types="y\n")[0] == 0
    assert count("documents") == 2


def test_drop_asks_for_the_name(run: Run) -> None:
    """Only the collection's own name drops it, typed or given."""
    fill("handbook")
    code, _, err = run("drop", "--collection", "handbook")
    assert (code, "--name handbook drops qdrant collection 'handbook' with 4 records" in err) == (
        6,
        True,
    )
    assert run("drop", "--collection", "handbook", types="hand\n")[0] == 6
    assert run("drop", "--collection", "handbook", "--name", "x")[0] == 6
    assert count("handbook") == 4
    code, out, _ = run("drop", "--collection", "handbook", "--json", types="handbook\n")
    assert (code, json.loads(out)) == (0, {"dropped": "handbook"})
    assert run("collections", "--json")[1] == "[]\n"


@pytest.mark.parametrize("target", ["milvus", "parquet"])
def test_other_targets_have_the_same_commands(run: Run, tmp_path: Path, target: str) -> None:
    """Milvus Lite and a Parquet file are listed, looked at and dropped alike."""
    path = {"parquet": {"path": str(tmp_path / "documents.parquet")}}.get(target, {})
    fill("documents", target, **path)
    place = ["--target", target, *(f"--path={value}" for value in path.values())]
    (listed,) = json.loads(run("collections", *place, "--json")[1])
    assert (listed["records"], listed["bytes"] > 0) == (4, True)
    assert "records         4" in run("info", *place)[1]
    assert json.loads(run("fetch", "a.md#1", *place, "--json")[1])["document_id"] == "a.md"
    code, _, err = run("delete", "a.md#1", *place, "--yes")
    assert (code, "written once" in err) == ((1, True) if target == "parquet" else (0, False))
    assert run("drop", *place, "--name", "documents")[0] == 0
    assert json.loads(run("collections", *place, "--json")[1]) == []


def test_a_collection_of_an_older_format_can_be_dropped(run: Run, tmp_path: Path) -> None:
    """It cannot be counted or read any more, and is listed as such."""
    fill("documents")
    about = tmp_path / ".m3connect/qdrant/documents/collection.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"format": 1}))
    (listed,) = json.loads(run("collections", "--json")[1])
    assert "has the format 1" in listed["error"]
    code, out, _ = run("drop", "--name", "documents")
    assert (code, "an unknown number of records" in out) == (0, True)
    assert run("collections", "--json")[1] == "[]\n"


def test_tenants_are_named_on_the_command_line(run: Run, tmp_path: Path) -> None:
    """From ingestion to deletion: what leaves the tenant open exits with how to say it."""
    lines = [
        {"id": f"{team}-{n}", "text": f"Invoice {n} of {team}.", "team": team}
        for team in ("a", "b")
        for n in (1, 2)
    ]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, err = run("ingest", "docs.jsonl", "--tenant-field", "team")
    assert (code, "4 written" in out) == (0, True), err
    assert "kept apart by team" in run("info")[1]
    found = run("search", "invoice", "--filter", 'team == "b"', "--json")[1]
    assert {json.loads(line)["document_id"] for line in found.splitlines()} == {"b-1", "b-2"}
    for asked in (["search", "invoice"], ["delete", "--filter", "text exists", "--yes"]):
        code, _, err = run(*asked)
        assert (code, "--filter" in err, 'team == "a"' in err) == (2, True, True), err
    assert run("fetch", "--document", "a-1")[0] == 0
    assert json.loads(run("delete", "--document", "a-1", "--yes", "--json")[1]) == {"deleted": 1}
    (tmp_path / "m3connect.toml").write_text('tenant_field = "customer"')
    code, _, err = run("search", "invoice", "--filter", 'customer == "a"')
    assert "tenant_field: collection 'team', wanted 'customer'" in err
    assert code != 0
    code, _, err = run("drop", "--name", "documents")
    assert (code, "ensure" in err) == (3, False), err  # which was not asked for
    (tmp_path / "m3connect.toml").unlink()
    assert json.loads(run("info", "--json")[1])["records"] == 3
