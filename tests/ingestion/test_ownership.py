"""Whose a document is: one source does not replace another's documents without a word."""

import os

import pyarrow as pa
import pytest

from m3connect.errors import Refused
from m3connect.ingestion import Options, ingest, open_source, plan
from m3connect.ingestion.ledger import FIELD
from m3connect.ingestion.ownership import UNNAMED
from m3connect.integrations.arrow import Sink
from m3connect.types import Document, RecordBatch


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two folders that both hold README.md, of other words; the working folder is theirs."""
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / "README.md").write_text(f"the words of {name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "two"


def texts(connector):
    """What the collection holds: each document's text and owner."""
    return {
        payload["document_id"]: (payload.get("text"), payload[FIELD]["source"])
        for batch in connector.scan()
        for payload in batch.payloads
        if payload["position"] == 0
    }


def test_a_folder_does_not_replace_what_another_brought(two, encoder, connector):
    """It is refused before anything is written, with the id, the owner and the ways out."""
    ingest("two/a", encoder, connector)
    before = texts(connector)
    assert before == {"README.md": ("the words of a", f"{two}/a/")}
    (two / "b" / "A.md").write_text("comes first\n")
    with pytest.raises(Refused, match=rf"'{two}/a/': 'README.md'\..*--id-prefix.*--take-over"):
        ingest("two/b", encoder, connector)
    with pytest.raises(Refused):
        plan(open_source("two/b", encoder), connector)
    assert texts(connector) == before


def test_each_way_out_leads_out(two, encoder, connector):
    """Prefixed ids keep both; taken over it is the other's; one name makes both one source."""
    ingest("two/a", encoder, connector)
    ingest("two/b", encoder, connector, reading=Options(id_prefix="b/"))
    assert set(texts(connector)) == {"README.md", "b/README.md"}
    assert ingest("two/b", encoder, connector, take_over=True).written == 1
    assert texts(connector)["README.md"] == ("the words of b", f"{two}/b/")
    with pytest.raises(Refused):
        ingest("two/a", encoder, connector)
    ingest("two/a", encoder, connector, source_name=f"{two}/b/")
    assert texts(connector)["README.md"] == ("the words of a", f"{two}/b/")


def test_a_source_is_the_same_from_wherever_it_is_called(two, encoder, connector, monkeypatch):
    """By an absolute path, a relative one, a glob, and file by file."""
    ingest("two/a", encoder, connector)
    monkeypatch.chdir(two / "b")
    for path in ("../a", "../a/", str(two / "a"), "../a/*.md", "../a/README.md"):
        assert ingest(path, encoder, connector).unchanged == 1
    (two / "a" / "README.md").write_text("other words\n")
    assert ingest("../a/README.md", encoder, connector).written == 1


def test_a_moved_folder_is_told_its_old_name(two, encoder, connector):
    """Refused though nothing changed, since what it no longer has would be nobody's."""
    ingest("two/a", encoder, connector)
    os.rename(two / "a", two / "moved")  # noqa: PTH104
    with pytest.raises(Refused, match=rf"--source '{two}/a/'"):
        ingest("two/moved", encoder, connector)
    assert ingest("two/moved", encoder, connector, source_name=f"{two}/a/").unchanged == 1
    ingest("two/moved", encoder, connector, take_over=True)
    assert ingest("two/moved", encoder, connector).unchanged == 1


def test_a_folder_within_a_folder(two, encoder, connector):
    """The outer run may replace what the inner brought, as it reads the same files; not vice versa."""
    (two / "README.md").write_text("the words of both\n")
    ingest("two/a", encoder, connector)
    ingest("two", encoder, connector)
    assert texts(connector)["README.md"] == ("the words of both", f"{two}/")
    with pytest.raises(Refused):
        ingest("two/a", encoder, connector)
    with pytest.raises(Refused):
        ingest("two/a/README.md", encoder, connector)


def test_files_of_records(two, encoder, connector):
    """One of a folder is a part of it; beside it, another source."""
    for name in ("one", "other"):
        (two / f"{name}.jsonl").write_text(f'{{"id": "r", "text": "of {name}"}}\n')
    ingest(two / "one.jsonl", encoder, connector)
    with pytest.raises(Refused, match=rf"'{two}/one.jsonl': 'r'"):
        ingest(two / "other.jsonl", encoder, connector)
    (two / "other.jsonl").unlink()
    report = ingest(two, encoder, connector)
    assert (report.unchanged, report.written) == (1, 2)
    (two / "one.jsonl").write_text('{"id": "r", "text": "new"}\n')
    assert ingest(two, encoder, connector).written == 1
    (two / "one.jsonl").write_text('{"id": "r", "text": "newer"}\n')
    assert ingest(two / "one.jsonl", encoder, connector).written == 1


def test_python_replaces_by_id(encoder, connector, two):
    """Call after call without names; but not what a folder brought, and no other name's."""
    for text in ("first", "second"):
        assert ingest([Document("README.md", text)], encoder, connector).written == 1
    assert texts(connector) == {"README.md": ("second", UNNAMED)}
    for other in ("two/a", [Document("README.md", "x", source="crm")]):
        with pytest.raises(Refused, match="'unnamed'"):
            ingest(other, encoder, connector)
    report = ingest([{"id": "1", "text": "x"}], encoder, connector, source_name="crm")
    assert (report.written, texts(connector)["1"]) == (1, ("x", "crm"))


def test_what_older_versions_wrote_belongs_to_who_reads_it_first(encoder, connector, two):
    """Without a word, and nothing is encoded: it counts as unchanged."""
    ingest("two/a", encoder, connector)
    for batch in list(connector.scan(vectors=True)):
        for payload in batch.payloads:
            del payload[FIELD]["source"], payload[FIELD]["encoded"]
        connector.upsert(RecordBatch(batch.ids, batch.payloads, batch.embeddings))
    assert plan(open_source("two/a", encoder), connector).unchanged == 1
    report = ingest("two/a", encoder, connector)
    assert (report.unchanged, report.written, report.tokens) == (1, 0, 0)
    assert texts(connector)["README.md"] == ("the words of a", f"{two}/a/")
    with pytest.raises(Refused):
        ingest("two/b", encoder, connector)


def test_embeddings_have_owners_too(encoder, connector):
    """Rows under an id of another source are refused."""

    def rows(*names):
        return encoder.encode(list(names)).to_arrow().append_column("id", pa.array(names))

    ingest(rows("a"), encoder, connector, source_name="one")
    with pytest.raises(Refused, match="'one': 'a'"):
        ingest(rows("b", "a"), encoder, connector)
    planned = plan(open_source(rows("b", "a"), encoder), connector, take_over=True)
    assert (planned.written, planned.unchanged, planned.taken_over) == (1, 1, 1)
    report = ingest(rows("b", "a"), encoder, connector, take_over=True)
    assert (planned.chunks, planned.taken_over) == (report.chunks, report.taken_over)
    again = plan(
        open_source(rows("b", "a"), encoder, source_name="three"), connector, take_over=True
    )
    assert (again.unchanged, again.taken_over, again.bytes) == (2, 2, {})
    assert (report.written, report.unchanged, set(texts(connector).values())) == (
        1,
        1,
        {(None, UNNAMED)},
    )


def test_a_pipelines_sink_has_a_name(encoder, connector, monkeypatch):
    """Documents and encoded passages alike."""
    monkeypatch.setattr("m3connect.integrations.arrow.connect", lambda *_, **__: connector)
    monkeypatch.setattr(connector, "close", lambda: None)
    batch = pa.table({"id": ["a"], "text": ["words"]})
    with Sink("memory", "docs", encoder=encoder, source_name="crm") as sink:
        assert sink.write(batch).written == 1
    with (
        Sink("memory", "docs", encoder=encoder) as sink,
        pytest.raises(Refused, match="'crm': 'a'"),
    ):
        sink.write(batch)


def test_the_refusal_comes_before_any_of_those_documents_is_written(
    encoder, connector, monkeypatch
):
    """Documents before it may be in, whole; they are this source's own."""
    monkeypatch.setattr("m3connect.ingestion.steps.WINDOW_DOCUMENTS", 2)
    ingest([Document("d9", "x")], encoder, connector, source_name="other")
    with pytest.raises(Refused, match="'d9'"):
        ingest([Document(f"d{at}", "y") for at in range(10)], encoder, connector)
    assert texts(connector)["d9"] == ("x", "other")


def test_a_page_that_would_be_refused_is_foreseen(two, encoder, connector, monkeypatch):
    """Before the first write of a new source, however far back it stands; later runs do not ask."""
    monkeypatch.setattr("m3connect.ingestion.steps.WINDOW_DOCUMENTS", 2)
    monkeypatch.setattr("m3connect.ingestion.steps.GROUP_PASSAGES", 2)
    ingest("two/a", encoder, connector)
    for at in range(9):
        (two / "b" / f"A{at}.md").write_text(f"page {at}\n")
    with pytest.raises(Refused, match=r"'README\.md'"):
        ingest("two/b", encoder, connector)
    assert connector.count() == 1
    asked = []
    fetch = connector.fetch
    monkeypatch.setattr(
        connector,
        "fetch",
        lambda ids, vectors=True: asked.extend(ids) or fetch(ids, vectors=vectors),
    )
    ingest("two/b", encoder, connector, reading=Options(id_prefix="b/"))
    assert asked.count("b/README.md#0") == 2
    (two / "b" / "README.md").write_text("changed\n")
    ingest("two/b", encoder, connector, reading=Options(id_prefix="b/"))
    assert asked.count("b/README.md#0") == 3
