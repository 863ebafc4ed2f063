"""Arrow in, a collection out: every way gives the collection of a single process."""

import importlib
import pickle
import subprocess
import sys

import pyarrow as pa
import pytest

from m3connect import ingest, transfer
from m3connect.errors import ConfigError, FingerprintMismatch, InputError
from m3connect.ingestion.report import TWICE
from m3connect.integrations.arrow import Sink, encode_batch, in_groups, write_all
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from tests.integrations.documents import OPTIONS, documents

ROWS = documents(40)
TABLE = pa.Table.from_pylist(ROWS)
ENCODER = HashEncoder()


@pytest.fixture
def expected():
    """The collection that ``ingest`` makes in one process."""
    connector = MemoryConnector(collection="docs")
    ingest(TABLE, ENCODER, connector, **OPTIONS)
    return connector


@pytest.fixture
def collection(monkeypatch):
    """A collection that outlives the sink's connection."""
    connector = MemoryConnector(collection="docs")
    monkeypatch.setattr(connector, "close", lambda: None)
    monkeypatch.setattr(
        "m3connect.integrations.arrow.connect", lambda target, *, collection: connector
    )
    return connector


def sink(**options):
    """One that has been to another process and back."""
    return pickle.loads(pickle.dumps(Sink("memory", "docs", encoder=ENCODER, **OPTIONS, **options)))


def batches(table, rows):
    return table.to_batches(max_chunksize=rows)


def the_same(collection, expected):
    assert transfer.verify(expected, collection, samples=5).equal
    assert collection.describe().schema == expected.describe().schema
    assert ingest(TABLE, ENCODER, collection, **OPTIONS).unchanged == len(ROWS)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_documents_are_cut_encoded_and_written(collection, expected, rows):
    """Batch by batch, with counts that add up."""
    with sink() as into:
        reports = [into.write(batch) for batch in batches(TABLE, rows)]
    assert sum(report.written for report in reports) == len(ROWS)
    assert all(report.read == report.written for report in reports)
    the_same(collection, expected)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("cut", ["whole", "passages", "no metadata"])
def test_passages_that_were_encoded_elsewhere_are_the_same(collection, expected, portable, cut):
    """Also in portable types, in slices that part documents, and from engines that drop metadata."""
    with sink() as into:
        written = 0
        for batch in batches(TABLE, 11):
            passages = encode_batch(batch, ENCODER, portable=portable, **OPTIONS)
            if cut == "no metadata":
                passages = passages.replace_schema_metadata(None)
            parts = [passages] if cut == "whole" else batches(passages, 3)
            written += sum(into.write(part).written for part in parts)
    assert written == len(ROWS)
    the_same(collection, expected)


@pytest.mark.parametrize("encoded", [False, True])
def test_a_batch_twice_changes_nothing_and_a_shorter_one_leaves_nothing(collection, encoded):
    """An engine may retry; a new version of a document replaces the old one whole."""

    def batch(rows):
        table = pa.Table.from_pylist(rows)
        return encode_batch(table, ENCODER, **OPTIONS) if encoded else table

    with sink() as into:
        into.write(batch(ROWS))
        assert into.write(batch(ROWS)).unchanged == len(ROWS)
        shorter = [{**row, "text": "w"} for row in ROWS]
        assert into.write(batch(shorter)).written == len(ROWS)
    assert collection.count() == len(ROWS)


LONG = {"id": "a", "text": ROWS[4]["text"], "n": 4, "title": "t"}  # five passages
SHORT = {**LONG, "text": "w"}


def test_passages_of_two_versions_never_meet(collection, caplog):
    """One of which some are missing is no part of another, and of two in one write the second fails."""
    old, new = (
        encode_batch(pa.Table.from_pylist([row]), ENCODER, **OPTIONS) for row in (LONG, SHORT)
    )
    into = sink()
    reports = [into.write(part) for part in (old.slice(0, 4), new)]
    assert [report.written for report in reports] == [0, 1]
    assert collection.count() == 1
    assert ingest([SHORT], ENCODER, collection, **OPTIONS).unchanged == 1
    with pytest.raises(InputError, match=r"of 1 documents not all passages came \(a, "):
        into.flush()
    both = into.write(pa.concat_tables([new, old]))
    assert (both.unchanged, both.failed) == (1, 1)
    assert caplog.messages == [f"a: {TWICE}"]
    assert collection.count() == 1


@pytest.mark.parametrize("way", ["documents", "passages", "batches without metadata"])
def test_a_document_that_has_no_text_any_more_goes(collection, way):
    """Through the stage of its own, too, in types of any engine; it is counted as empty."""

    def parts(rows):
        table = pa.Table.from_pylist(rows)
        if way == "documents":
            return [table]
        if way == "passages":
            return [encode_batch(table, ENCODER, **OPTIONS)]
        encoded = encode_batch(table, ENCODER, portable=True, **OPTIONS)
        return encoded.replace_schema_metadata(None).to_batches()

    with sink() as into:
        kept = {**SHORT, "id": "b"}
        for batch in parts([LONG, kept]):
            into.write(batch)
        assert collection.count() == 6
        reports = [into.write(batch) for batch in parts([{**LONG, "text": "  "}, kept])]
    counts = [(each.unchanged, each.empty, each.deleted) for each in reports]
    assert tuple(map(sum, zip(*counts, strict=True))) == (1, 1, 5)
    assert collection.count() == 1


def test_a_document_that_came_in_part_is_not_written(collection):
    """The error names it, and the collection holds nothing of it."""
    passages = encode_batch(TABLE.slice(4, 1), ENCODER, **OPTIONS)
    into = sink()
    into.write(passages.slice(0, 2))
    with pytest.raises(InputError, match=r"not all passages came \(d4"):
        into.flush()
    assert collection.count() == 0


def test_bad_documents_cost_themselves(collection, caplog):
    """Both stages name them; all others go on."""
    table = pa.table({"id": ["a", "b"], "text": ["x", None]})
    assert sink().write(table).failed == 1
    failures = []
    assert len(encode_batch(table, ENCODER, failed=failures.append)) == 1
    assert [failure.id for failure in failures] == ["b"]
    assert len(encode_batch(table, ENCODER)) == 1
    assert [message.partition(":")[0] for message in caplog.messages] == ["b", "b"]


def test_what_does_not_fit_is_refused(collection):
    """Another model's vectors, documents without a model, vectors of somebody else."""
    into = sink()
    into.write(encode_batch(TABLE, ENCODER, **OPTIONS))
    with pytest.raises(FingerprintMismatch):
        into.write(encode_batch(TABLE, HashEncoder(seed=1), **OPTIONS))
    none = Sink("memory", "docs", encoder=None)
    with pytest.raises(ConfigError, match="needs a model"):
        none.write(TABLE)
    foreign = ENCODER.encode(["x"]).to_arrow().append_column("id", pa.array(["a"]))
    with pytest.raises(ConfigError, match="write them with ingest"):
        sink().write(foreign)
    with pytest.raises(InputError, match=r"Those of encode_batch are written by Sink"):
        ingest(encode_batch(TABLE, ENCODER, **OPTIONS), None, collection)


@pytest.mark.parametrize(
    ("legs", "message"),
    [("dense", r"legs=\['dense'\]"), (["dens"], "no dens vectors"), ([], "at least one of")],
)
def test_representations_that_there_are_not_are_refused(legs, message):
    """Instead of passages without vectors, which would look like documents."""
    with pytest.raises(ConfigError, match=message):
        encode_batch(TABLE, ENCODER, legs=legs)


def test_a_worker_without_rows_has_nothing_to_do(collection):
    """Though nobody has made the collection yet."""
    assert write_all(sink(), [TABLE.slice(0, 0)]).read == 0
    assert collection.collections() == []


def test_no_rows_make_a_table_of_none():
    """With all columns, so that engines can infer their types from it."""
    table = encode_batch(TABLE.slice(0, 0), ENCODER)
    assert table.schema.equals(encode_batch(TABLE, ENCODER).schema)
    assert len(table) == 0


def test_a_stage_of_its_own_has_the_sinks_options(collection, expected):
    """Documents in groups of a piece of work each, none of them parted or lost."""
    groups = list(in_groups(TABLE))
    assert [len(group) for group in groups] == [len(ROWS)]
    long = pa.table({"id": list("abcd"), "text": ["x" * 40_000, None, "y" * 40_000, "z"]})
    assert [group["id"].to_pylist() for group in in_groups(long)] == [["a", "b"], ["c", "d"]]
    no_utf8 = pa.table({"id": ["a", "b"], "text": pa.array([b"one", b"\xff"]).view(pa.string())})
    assert [len(group) for group in in_groups(no_utf8)] == [2]
    twice = TABLE.append_column("text", TABLE["text"])
    with pytest.raises(ConfigError, match="two columns of the table have one name"):
        sink().encode(*in_groups(twice))
    with sink() as into:
        into.ensure(TABLE.schema)
        assert collection.count() == 0
        into.write(pa.concat_tables(into.encode(group) for group in groups))
    the_same(collection, expected)


@pytest.mark.parametrize("engine", ["ray", "pyspark", "daft", "dlt"])
def test_an_engine_that_is_missing_names_its_extra(monkeypatch, engine):
    """With the pip line."""
    monkeypatch.setitem(sys.modules, engine, None)
    name = engine.removeprefix("py")
    with pytest.raises(ConfigError, match=rf'pip install "m3connect\[{name}\]"'):
        importlib.import_module(f"m3connect.integrations.{name}")


CHILD = """
import pickle, sys
import pyarrow as pa
sink = pickle.load(open(sys.argv[1], "rb"))
table = pa.ipc.open_file(sys.argv[2]).read_all()
with sink:
    print(sink.write(table).written)
"""


@pytest.mark.slow
def test_a_sink_writes_in_another_process(tmp_path, expected):
    """Into a real engine, by its options; nothing is connected before."""
    pytest.importorskip("m3connect_qdrant", reason='needs pip install "m3connect[qdrant]"')
    from m3connect import connect

    path = str(tmp_path / "db")
    made = Sink("qdrant", "docs", encoder=ENCODER, path=path, **OPTIONS)
    (tmp_path / "sink").write_bytes(pickle.dumps(made))
    with pa.OSFile(str(tmp_path / "t"), "wb") as file, pa.ipc.new_file(file, TABLE.schema) as out:
        out.write_table(TABLE)
    command = [sys.executable, "-W", "ignore", "-c", CHILD, tmp_path / "sink", tmp_path / "t"]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.stdout.strip() == str(len(ROWS)), child.stderr
    with connect("qdrant", collection="docs", path=path) as collection:
        assert transfer.verify(expected, collection, samples=5).equal
