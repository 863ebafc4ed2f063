"""Documents that the source no longer has."""

import pickle
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect.errors import Refused
from m3connect.ingestion import NotPruned, Remarks, Selection, find, ingest, open_source, plan
from m3connect.ingestion.ledger import FIELD
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document, RecordBatch


def docs(*names, words=12):
    return [Document(name, " ".join(f"{name} x y." for _ in range(words))) for name in names]


def stored(connector):
    return {id_ for batch in connector.scan() for id_ in batch.ids}


def fill(connector, encoder, source, max_delete_ratio=1.0, **options):
    return ingest(
        source, encoder, connector, chunk_tokens=8, max_delete_ratio=max_delete_ratio, **options
    )


def test_a_pruned_collection_equals_one_made_of_the_source(encoder, connector):
    """Documents that are gone go with all their passages, changed and new ones come, others stay."""
    fill(connector, encoder, docs("a", "b", "c"))
    source = [*docs("a", "d"), *docs("c", words=2)]
    report = fill(connector, encoder, source, prune=True)
    other = type(connector)(collection="other")
    fill(other, encoder, source)
    assert (report.unchanged, report.written, report.pruned) == (1, 2, 1)
    assert stored(connector) == stored(other)


def test_without_being_asked_nothing_goes(encoder, connector):
    """The same run without the option keeps what the source no longer has."""
    fill(connector, encoder, docs("a", "b"))
    before = stored(connector)
    assert fill(connector, encoder, docs("a")).pruned == 0
    assert stored(connector) == before


def test_records_of_other_hands_stay(encoder, connector):
    """A record that ingestion did not write is not the source's to delete."""
    fill(connector, encoder, docs("a"))
    payloads: list[dict[str, Any]] = [
        {"text": "by hand"},
        {"document_id": "z", "position": 0},
        {"document_id": "z#0"},
    ]
    batch = RecordBatch(["z#0", "mine", "z#0#x"], payloads, encoder.encode(["x", "y", "z"]))
    connector.upsert(batch)
    assert fill(connector, encoder, docs("a"), prune=True).pruned == 0
    assert {"z#0", "mine", "z#0#x"} <= stored(connector)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "nothing was deleted: the source gave no documents"),
        (
            [Document("a", None), *docs("b")],
            "nothing was deleted: of 2 documents read 1 failed",
        ),
    ],
)
def test_a_source_that_was_not_read_whole_prunes_nothing(encoder, connector, source, message):
    """No documents, or a failed one: an error says so, with the report, and everything stays."""
    fill(connector, encoder, docs("a", "b"))
    before = stored(connector)
    with pytest.raises(NotPruned, match=message) as refused:
        fill(connector, encoder, source, prune=True)
    assert stored(connector) == before
    report = pickle.loads(pickle.dumps(refused.value)).report
    assert (report.read, report.unchanged) == (len(source), len(source) // 2)


def test_an_empty_folder_prunes_nothing(encoder, connector, tmp_path):
    """As where a disk is not mounted."""
    with pytest.raises(Refused, match="nothing is deleted: there is nothing to read"):
        ingest([tmp_path], encoder, connector, prune=True)


@pytest.mark.parametrize("kind", ["a.jsonl", "a.parquet", "a.csv", "a"])
def test_of_several_sources_one_that_is_empty_now_prunes_nothing(
    encoder, connector, tmp_path, kind
):
    """It is named, and what the collection holds of it counts as left over; one that never was in is no matter."""
    other, new, one = tmp_path / "other", tmp_path / "new", tmp_path / kind
    for folder in (other, new):
        folder.mkdir()
    (other / "x.txt").write_text("words")
    (other / "y.txt").write_text("words")
    if kind == "a":
        one.mkdir()
        (one / "r.txt").write_text("words")
    elif kind == "a.parquet":
        pq.write_table(pa.table({"id": ["r"], "text": ["words"]}), one)
    else:
        one.write_text(
            '{"id": "r", "text": "words"}\n' if kind == "a.jsonl" else "id,text\nr,words\n"
        )
    both = [other, one, new]
    fill(connector, encoder, both)
    before = stored(connector)
    if kind == "a":
        (one / "r.txt").unlink()
    elif kind == "a.parquet":
        pq.write_table(
            pa.table({"id": pa.array([], "string"), "text": pa.array([], "string")}), one
        )
    else:
        one.write_text("" if kind == "a.jsonl" else "id,text\n")
    (other / "y.txt").unlink()
    assert fill(connector, encoder, both).left_over == 2
    reason = f"'{one}/?' gave no documents, and the collection holds some of it"
    with pytest.raises(NotPruned, match=f"nothing was deleted: {reason}"):
        fill(connector, encoder, both, prune=True)
    with pytest.raises(Refused, match=f"nothing would be deleted: {reason}"):
        plan(open_source(both, encoder, chunk_tokens=8), connector, prune=True)
    assert stored(connector) == before
    assert fill(connector, encoder, [other, new], prune=True).pruned == 1
    assert stored(connector) == before - {"y.txt#0"}


def test_several_files_of_one_named_source_are_pruned_together(encoder, connector, tmp_path):
    """That one of them is empty is no doubt about the source."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        file.write_text(f'{{"id": "{file.stem}", "text": "words"}}\n')
    fill(connector, encoder, files, source_name="crm")
    files[1].write_text("")
    assert fill(connector, encoder, files, source_name="crm").left_over == 1
    assert fill(connector, encoder, files, source_name="crm", prune=True).pruned == 1


def test_a_list_of_pages_without_any_is_remembered(tmp_path):
    """As a folder without files is: by the name of its source."""
    (tmp_path / "x.txt").write_text("words")
    (tmp_path / "pages.urls").write_text("https://example.org/a\n")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "x.txt", tmp_path / "pages.urls", tmp_path / "empty"]
    remarks = Remarks()
    assert len(find(paths, Selection(exclude=["a"]), remarks)) == 1
    assert remarks.barren == [f"{tmp_path}/pages.urls", f"{tmp_path}/empty/"]


def test_the_plan_counts_what_would_go(encoder, connector):
    """The same documents, and deletes none."""
    fill(connector, encoder, docs("a", "b", "c"))
    before = stored(connector)
    source = open_source(docs("b"), encoder, chunk_tokens=8)
    found = plan(source, connector, prune=True, max_delete_ratio=0.7)
    assert (found.pruned, found.unchanged) == (2, 1)
    with pytest.raises(Refused, match="nothing would be deleted: this run did not find 2 of the 3"):
        plan(open_source(docs("b"), encoder, chunk_tokens=8), connector, prune=True)
    assert stored(connector) == before


def test_the_commit_goes_first_and_the_other_mark_last(encoder, connector, monkeypatch):
    """A run killed while it prunes leaves no version that counts as there, and the mark of what is left."""
    fill(connector, encoder, docs("a", "b"))
    deleted = []
    delete = connector.delete
    monkeypatch.setattr("m3connect.ingestion.pruning.AT_ONCE", 1)
    monkeypatch.setattr(connector, "delete", lambda ids: deleted.extend(ids) or delete(ids))
    fill(connector, encoder, docs("a"), prune=True)
    assert (deleted[0], deleted[-1]) == ("b#0", "b#1")
    assert len(deleted) > 2


def test_embeddings_are_pruned_by_record(connector):
    """A row that a file of embeddings no longer has goes."""
    encoder = HashEncoder()

    def rows(*names):
        return encoder.encode(list(names)).to_arrow().append_column("id", pa.array(names))

    ingest(rows("a", "b"), encoder, connector)
    with pytest.raises(Refused, match="the source gave no documents"):
        ingest(rows("a").slice(0, 0), encoder, connector, prune=True)
    report = ingest(rows("b"), encoder, connector, prune=True, max_delete_ratio=0.5)
    assert report.pruned == 1
    assert stored(connector) == {"b"}


def test_more_than_a_tenth_is_not_deleted_unasked(encoder, connector):
    """The wrong folder costs nothing: it is refused with the share to allow."""
    names = [f"d{at:02}" for at in range(20)]
    fill(connector, encoder, docs(*names, words=1))
    before = stored(connector)
    with pytest.raises(Refused, match=r"3 of the 20 documents .*--max-delete-ratio 0\.15"):
        fill(connector, encoder, docs(*names[3:], words=1), max_delete_ratio=0.1, prune=True)
    assert stored(connector) == before
    report = fill(connector, encoder, docs(*names[2:], words=1), max_delete_ratio=0.1, prune=True)
    assert report.pruned == 2


def test_a_source_prunes_its_own_documents_alone(encoder, connector, tmp_path):
    """Two folders in one collection, what lies within one, and documents of older versions."""
    for folder, files in {"a": ("a1", "a2"), "a/sub": ("s1", "s2"), "b": ("b1", "b2")}.items():
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / f"{name}.txt").write_text(f"words of {name}")
    old = docs("old", words=1)
    fill(connector, encoder, old)
    forget_owner(connector, "old#0")
    for folder in ("a/sub", "a", "b"):
        fill(connector, encoder, tmp_path / folder)
    (tmp_path / "a" / "a2.txt").unlink()
    report = fill(connector, encoder, tmp_path / "a", prune=True)
    assert report.pruned == 3, "a2.txt, and s1.txt and s2.txt under the names they had in a/sub"
    kept = ("a1.txt", "sub/s1.txt", "sub/s2.txt", "b1.txt", "b2.txt", "old")
    assert stored(connector) == {f"{name}#0" for name in kept}


def forget_owner(connector, id_):
    """As an older version left it."""
    batch = connector.fetch([id_])
    del batch.payloads[0][FIELD]["source"]
    connector.upsert(batch)


def test_what_is_left_over_is_counted(encoder, connector, tmp_path):
    """For a folder; not for one page of it, nor for documents from Python, which may be a part."""
    for name in ("x", "y", "z"):
        (tmp_path / f"{name}.txt").write_text(f"words of {name}")
    assert fill(connector, encoder, tmp_path).left_over == 0
    fill(connector, encoder, docs("other"))
    (tmp_path / "y.txt").unlink()
    assert fill(connector, encoder, tmp_path).left_over == 1
    assert fill(connector, encoder, tmp_path / "x.txt").left_over is None
    assert fill(connector, encoder, docs("more")).left_over is None
    assert fill(connector, encoder, tmp_path, prune=True).left_over is None
    assert fill(connector, encoder, tmp_path).left_over == 0


def test_what_is_left_over_is_counted_when_a_file_inside_was_read_alone(
    encoder, connector, tmp_path
):
    """Its changed records became the file's own, and must not stand for those that are gone."""
    records, page = tmp_path / "records.jsonl", tmp_path / "page.txt"
    records.write_text('{"id": "r1", "text": "one"}\n{"id": "r2", "text": "two"}\n')
    page.write_text("words of a page")
    fill(connector, encoder, tmp_path)
    records.write_text('{"id": "r1", "text": "one, changed"}\n{"id": "r2", "text": "two"}\n')
    assert fill(connector, encoder, records).left_over == 0
    assert fill(connector, encoder, tmp_path).left_over == 0
    page.unlink()
    assert fill(connector, encoder, tmp_path).left_over == 1
    assert fill(connector, encoder, tmp_path, prune=True).pruned == 1
    assert fill(connector, encoder, tmp_path).left_over == 0


def test_some_files_of_a_folder_do_not_prune_it(encoder, connector, tmp_path):
    """They do not tell what else is in it; as a source of their own they may. What is excluded is gone."""
    for name in ("x", "y"):
        (tmp_path / f"{name}.txt").write_text(f"words of {name}")
    fill(connector, encoder, tmp_path)
    page = tmp_path / "x.txt"
    glob, included = str(tmp_path / "x*"), find([tmp_path], Selection(include=["x.*"]))
    for some in (page, glob, included):
        with pytest.raises(Refused, match=rf"only some files of '{tmp_path}/'.*--source NAME"):
            fill(connector, encoder, some, prune=True)
        with pytest.raises(Refused, match="only some files"):
            plan(open_source(some, encoder), connector, prune=True)
        assert fill(connector, encoder, some).left_over is None
    assert stored(connector) == {"x.txt#0", "y.txt#0"}
    own = type(connector)(collection="own")
    fill(own, encoder, [page, tmp_path / "y.txt"], source_name="chosen")
    assert fill(own, encoder, glob, source_name="chosen", prune=True).pruned == 1
    excluded = find([tmp_path], Selection(exclude=["y.txt"]))
    assert fill(connector, encoder, excluded, prune=True).pruned == 1
