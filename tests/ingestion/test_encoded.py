"""Embeddings from Arrow and Parquet are stored as they are."""

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect.contract import CollectionSchema
from m3connect.errors import ConfigError, FingerprintMismatch, InputError, PermanentError
from m3connect.ingestion import Options, find, ingest, ledger, open_source, plan
from m3connect.ingestion.encoded import FINGERPRINT_KEY, open_files
from m3connect.ingestion.report import Failure
from m3connect.stores.memory import MemoryConnector
from m3connect.stores.parquet import ParquetConnector, RecordWriter
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document, Leg, RecordBatch

DENSE: tuple[Leg, ...] = ("dense",)
TEXTS = [f"text number {at}" for at in range(10)]


def table(encoder, *, texts=TEXTS, fingerprint=True, **columns):
    """As ``m3connect encode`` writes it, with further columns."""
    made = encoder.encode(texts).to_arrow()
    made = made.add_column(0, "id", pa.array([f"r{at}" for at in range(len(texts))]))
    made = made.add_column(1, "text", pa.array(texts))
    for name, values in columns.items():
        made = made.append_column(name, pa.array(values))
    stored = json.dumps(encoder.info.fingerprint.to_json()).encode()
    return made.replace_schema_metadata({FINGERPRINT_KEY: stored} if fingerprint else None)


def test_a_row_is_a_record_under_its_own_id(encoder, connector):
    """Vectors are unchanged; other columns are payload; nothing is encoded."""
    days = [date(2024, 1, 1 + at) for at in range(10)]
    report = ingest(table(encoder, day=days), None, connector)
    assert (report.read, report.written, report.chunks, report.tokens) == (10, 10, 10, 0)
    batch = connector.fetch(["r3"])
    payload = batch.payloads[0]
    assert payload == {
        "text": "text number 3",
        "document_id": "r3",
        "position": 0,
        "day": "2024-01-04",
        "_ingest": payload["_ingest"],
    }
    expected = encoder.encode(TEXTS)[3]
    assert np.array_equal(batch.embeddings.dense, expected.dense)
    assert batch.embeddings.sparse == expected.sparse
    assert batch.embeddings.multivector == expected.multivector
    assert connector.describe().schema.fingerprint == encoder.info.fingerprint


@pytest.mark.parametrize("form", ["table", "batch", "batches", "reader", "one file", "folder"])
def test_every_arrow_form_gives_the_same_collection(encoder, connector, tmp_path, form):
    """Tables, batches, streams and Parquet files."""
    whole = table(encoder)
    pq.write_table(whole, tmp_path / "one.parquet", row_group_size=3)
    source = {
        "table": whole,
        "batch": whole.combine_chunks().to_batches()[0],
        "batches": iter(whole.to_batches(max_chunksize=4)),
        "reader": whole.to_reader(max_chunksize=4),
        "one file": tmp_path / "one.parquet",
        "folder": [str(tmp_path)],
    }[form]
    assert ingest(source, None, connector, source_name="same").written == 10
    expected = MemoryConnector(collection="x")
    ingest(whole, None, expected, source_name="same")
    ids = sorted(f"r{at}" for at in range(10))
    one, two = connector.fetch(ids), expected.fetch(ids)
    assert one.payloads == two.payloads
    assert one.embeddings == two.embeddings
    assert connector.describe().schema == expected.describe().schema


def test_an_empty_table_makes_the_collection(encoder, connector):
    """Its columns say what the collection holds."""
    assert ingest(table(encoder).slice(0, 0), None, connector).read == 0
    assert connector.describe().schema.legs == ("dense", "sparse", "multivector")


def test_only_what_changed_is_written_again(encoder, connector):
    """A row changes with its payload or with its vectors."""
    ingest(table(encoder, year=[2020] * 10), None, connector)
    other_payload = table(encoder, year=[2020] * 9 + [2021])
    report = ingest(other_payload, None, connector)
    assert (report.unchanged, report.written) == (9, 1)
    dense = np.array(other_payload["dense"].to_pylist(), np.float32)
    dense[0] *= -1
    column = pa.FixedSizeListArray.from_arrays(pa.array(dense.ravel()), dense.shape[1])
    at = other_payload.schema.get_field_index("dense")
    report = ingest(other_payload.set_column(at, "dense", column), None, connector)
    assert (report.unchanged, report.written) == (9, 1)


def test_columns_may_name_document_and_position(encoder, connector):
    """Passages that were cut elsewhere keep their document."""
    named = table(encoder, document_id=["doc"] * 10, position=list(range(10)))
    ingest(named, None, connector)
    payload = connector.fetch(["r4"]).payloads[0]
    assert (payload["document_id"], payload["position"]) == ("doc", 4)
    ingest(table(encoder, document_id=range(10)), None, connector)
    assert connector.fetch(["r4"]).payloads[0]["document_id"] == "4"  # as ids are: text


def test_records_of_any_position_are_counted(encoder, connector, tmp_path):
    """Those of a source, and those that it has no more, though a column of its own is called ``position``."""
    path = tmp_path / "rows.parquet"
    rows = table(encoder, document_id=["d"] * 10, position=range(10))
    for number, left in ((10, 0), (7, 3)):
        pq.write_table(rows.slice(0, number), path)
        assert ingest(path, None, connector).left_over == left
    assert ledger.sources(connector) == {str(path): 10}
    passages = MemoryConnector(collection="passages")
    ingest([Document("two", "Words. " * 300), Document("one", "A word.")], encoder, passages)
    assert ledger.sources(passages) == {"unnamed": 2}


def test_a_prefix_stands_before_each_id(encoder, connector, caplog):
    """And before the name of its document; so two tables with equal ids share a collection."""
    ingest(table(encoder), None, connector)
    source = table(encoder, document_id=["doc"] * 10).set_column(
        0, "id", pa.array(["r0", "r0", *[f"r{at}" for at in range(2, 10)]])
    )
    report = ingest(source, None, connector, reading=Options(id_prefix="b/"))
    assert (report.written, report.failed, connector.count()) == (9, 1, 19)
    assert connector.fetch(["b/r4"]).payloads[0]["document_id"] == "b/doc"
    assert caplog.messages[0].startswith("b/r0: ")


def test_bad_rows_are_set_aside(encoder, connector, caplog):
    """No id, the same id, and a payload that is not JSON."""
    source = table(encoder, blob=[None] * 9 + [b"bytes"])
    ids = ["a", "a", None, "", *[f"x{at}" for at in range(6)]]
    report = ingest(source.set_column(0, "id", pa.array(ids)), None, connector)
    assert (report.read, report.written, report.failed) == (10, 6, 4)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "a",
        "record 3",
        "record 4",
        "x5",
    ]


@pytest.mark.parametrize("name", ["id", "text", "day"])
def test_a_value_that_python_lacks_costs_its_row(encoder, connector, caplog, name):
    """In any column; the other rows are stored."""
    source = table(encoder, day=[date(2024, 1, 1)] * 10)
    texts, days = [b"ok"] * 9 + [b"\xff"], pa.array([0] * 9 + [253402300800], pa.timestamp("s"))
    column = (
        days
        if name == "day"
        else pa.array([text + bytes([65 + at]) for at, text in enumerate(texts)]).view(pa.string())
    )
    place = source.column_names.index(name)
    report = ingest(source.set_column(place, name, column), None, connector)
    assert (report.written, report.failed) == (9, 1)
    assert "a value that cannot be read: " in caplog.text
    assert caplog.text.count("record 10: its id is ") == (name == "id")


@pytest.mark.parametrize("name", ["id", "text", "dense", "sparse_values", "n_tokens"])
def test_a_batch_that_lacks_a_column_costs_its_rows(encoder, connector, caplog, name):
    """Batches from Python may differ."""
    (whole,) = table(encoder).to_batches()
    parts = [whole.slice(0, 3), whole.slice(3, 2).drop_columns([name]), whole.slice(5)]
    report = ingest(parts, None, connector)
    assert (report.written, report.failed) == (8, 1)
    assert f"records 4 to 5: a batch of 2 rows lacks columns of the first: {name}" in caplog.text


@pytest.mark.parametrize("name", ["id", "dense", "day"])
def test_two_columns_of_one_name_are_refused(encoder, connector, caplog, name):
    """Of a table; of a later batch they cost its rows."""
    source = table(encoder, day=[date(2024, 1, 1)] * 10).combine_chunks()
    twice = source.append_column(name, source[name])
    with pytest.raises(InputError, match=f"two columns of the table have one name: .*{name}"):
        ingest(twice, None, connector)
    batches = source.slice(0, 4).to_batches() + twice.slice(4).to_batches()
    assert ingest(batches, None, connector).written == 4
    assert "records 5 to 10: two columns of the table have one name: " in caplog.text


@pytest.mark.parametrize("name", ["n_tokens", "truncated"])
def test_counts_of_another_type_are_refused(encoder, connector, name):
    """By the column's name, as vectors are."""
    source = table(encoder)
    texts = pa.array(["false"] * 10)
    with pytest.raises(InputError, match=f"column '{name}' holds string, expected"):
        ingest(source.set_column(source.column_names.index(name), name, texts), None, connector)


def test_the_model_that_made_them_must_be_the_collections(encoder, connector):
    """Whether the metadata name it, the caller does, or nobody."""
    ingest(table(encoder), None, connector)
    with pytest.raises(FingerprintMismatch, match="made by 'hash-0'"):
        ingest(table(HashEncoder(seed=1)), None, connector)
    nameless = table(encoder, fingerprint=False)
    with pytest.raises(FingerprintMismatch, match="do not say which model"):
        ingest(nameless, None, connector)
    assert ingest(nameless, encoder, connector).unchanged == 10
    with pytest.raises(FingerprintMismatch, match="chunker"):
        ingest([], encoder, connector)


def test_nobody_needs_to_know_the_model(encoder, connector):
    """A new collection without a fingerprint is possible, and stays so."""
    ingest(table(encoder, fingerprint=False), None, connector)
    assert connector.describe().schema.fingerprint is None
    assert ingest(table(encoder, fingerprint=False), None, connector).unchanged == 10


def test_some_of_the_legs_can_be_stored(encoder, connector):
    """The others are left out; one that is not there is refused."""
    ingest(table(encoder), None, connector, legs=["sparse"])
    schema = connector.describe().schema
    assert (schema.legs, schema.fingerprint.legs) == (("sparse",), ("sparse",))
    without = table(encoder).drop_columns(["sparse_indices", "sparse_values"])
    with pytest.raises(ConfigError, match="no sparse vectors; it has dense, multivector"):
        ingest(without, None, MemoryConnector(collection="x"), legs=["sparse"])


def test_columns_are_checked_first(encoder, connector):
    """Missing or reserved ones end the run before it starts."""
    with pytest.raises(InputError, match="need id"):
        ingest(table(encoder).drop_columns(["id"]), None, connector)
    with pytest.raises(InputError, match="'_m3x' has a reserved name"):
        ingest(table(encoder, _m3x=[1] * 10), None, connector)
    with pytest.raises(InputError, match="'_ingest' has a reserved name"):
        ingest(table(encoder, _ingest=[1] * 10), None, connector)


def test_parquet_files_of_both_kinds_are_told_apart(encoder, tmp_path):
    """Embeddings by their columns; a mixture is refused."""
    pq.write_table(table(encoder), tmp_path / "embedded.parquet")
    pq.write_table(pa.table({"id": ["a"], "text": ["t"]}), tmp_path / "plain.parquet")
    assert open_files(find([tmp_path / "embedded.parquet"]), None) is not None
    assert open_files(find([tmp_path / "plain.parquet"]), None) is None
    with pytest.raises(ConfigError, match="differ in their columns or their model"):
        open_files(find([tmp_path]), None)
    fingerprint = replace(encoder.info.fingerprint, weights="other")
    other = {FINGERPRINT_KEY: json.dumps(fingerprint.to_json()).encode()}
    (tmp_path / "plain.parquet").unlink()
    pq.write_table(table(encoder).replace_schema_metadata(other), tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match="differ in their columns or their model"):
        open_files(find([tmp_path]), None)


@pytest.mark.parametrize("encoded", [False, True])
def test_other_files_never_make_text_of_embeddings(encoder, connector, tmp_path, encoded):
    """They are told by their footers among files of any format, too; a damaged one fails alone."""
    (tmp_path / "torn.parquet").write_bytes(b"no")
    (tmp_path / "x.md").write_text("# x")
    rows = table(encoder) if encoded else pa.table({"id": ["a"], "text": ["t"]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    if encoded:
        with pytest.raises(ConfigError, match=r"rows\.parquet holds embeddings and x\.md does not"):
            ingest([tmp_path], encoder, connector)
        assert connector.collections() == []
    else:
        report = ingest([tmp_path], encoder, connector)
        assert (report.written, report.failed) == (2, 1)


def test_a_folder_that_cannot_be_read_costs_no_embeddings(encoder, tmp_path):
    """It is one failure among them, as a damaged file is."""
    pq.write_table(table(encoder), tmp_path / "rows.parquet")
    (file,) = find([tmp_path / "rows.parquet"])
    opened = open_files([replace(file, path="sub", name="sub", fault="denied"), file], None)
    assert opened is not None
    (failure, *records) = opened.candidates(DENSE)
    assert failure == Failure("sub cannot be read: denied")
    assert len(records) == 10


def test_a_file_of_ours_that_lost_its_metadata_is_refused(tmp_path, connector):
    """As pandas or DuckDB write it again: its payload would be a text, and its model unknown."""
    copy_of(["a", "b", "c"], tmp_path / "whole.parquet")
    rows = pq.read_table(tmp_path / "whole.parquet").replace_schema_metadata(None)
    pq.write_table(rows, tmp_path / "again.parquet")
    for source in (tmp_path / "again.parquet", rows):
        with pytest.raises(InputError, match="but lacks its metadata"):
            ingest(source, None, connector)


def test_a_folder_is_no_file_to_write_to(tmp_path):
    """It is refused before anything is encoded, and keeps what it holds."""
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="is a folder"):
        RecordWriter(tmp_path, CollectionSchema(4, False, None))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def copy_of(records, path):
    """A file of ``m3connect copy`` with two records a row group; where the second's vectors end."""
    encoder = HashEncoder(width=8)
    schema = CollectionSchema.of(encoder.info.fingerprint, DENSE)
    with RecordWriter(path, schema) as writer:
        for at in range(0, len(records), 2):
            ids = records[at : at + 2]
            payloads = [{"text": id_} for id_ in ids]
            vectors = encoder.encode(ids, legs=DENSE)
            writer.write(RecordBatch(ids, payloads, vectors))
    group = pq.ParquetFile(path).metadata.row_group(1)
    columns = [group.column(at) for at in range(group.num_columns)]
    (dense,) = [each for each in columns if each.path_in_schema.startswith("dense")]
    return dense.dictionary_page_offset or dense.data_page_offset, dense.total_compressed_size


def test_damage_costs_its_rows_and_is_never_stored(connector, tmp_path):
    """A bit that turned in the midst of vectors is told by the page's checksum; other files are read."""
    copy_of(list("klmn"), tmp_path / "good.parquet")
    bad = tmp_path / "bad.parquet"
    start, size = copy_of(list("abcdef"), bad)
    content = bytearray(bad.read_bytes())
    content[start + size - 1] ^= 1
    bad.write_bytes(content)
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "torn.parquet").write_bytes(content[: start + size])
    opened = open_files(find([tmp_path]), None)
    assert opened is not None
    found = [each for each in opened.candidates(DENSE) if isinstance(each, Failure)]
    assert "torn.parquet cannot be read: " in found[0].reason
    assert found[1].where == "records 3 to 4 of bad.parquet"
    assert "bad.parquet: 2 rows cannot be read" in found[1].reason
    report = ingest([tmp_path], None, connector)
    assert (report.written, report.failed) == (8, 2)
    assert len(connector.fetch(list("abefklmn"))) == 8
    with ParquetConnector(collection="c", path=str(bad)) as file:
        with pytest.raises(PermanentError, match="cannot be read, write it again"):
            list(file.scan(vectors=True))
        assert file.count() == 6


def test_a_bad_record_is_named_with_its_file(connector, encoder, tmp_path):
    """Counted from the first of that file."""
    for name, bad in (("a", 1), ("b", 2)):
        table = encoder.encode(["x", "y", "z"]).to_arrow()
        ids = [None if row == bad else f"{name}{row}" for row in range(3)]
        pq.write_table(table.append_column("id", pa.array(ids)), tmp_path / f"{name}.parquet")
    opened = open_files(find([tmp_path]), encoder.info.fingerprint)
    assert opened is not None
    found = [each for each in opened.candidates(DENSE) if isinstance(each, Failure)]
    assert [each.where for each in found] == ["record 2 of a.parquet", "record 3 of b.parquet"]


def test_a_plan_takes_no_time_to_encode(encoder, connector):
    """Its bytes are those of vectors and payloads."""
    guess = plan(open_source(table(encoder), None), connector)
    assert (guess.chunks, guess.tokens, guess.seconds) == (10, 0, 0.0)
    vectors = encoder.encode(TEXTS).nbytes
    assert vectors + 10 * 50 < sum(guess.bytes.values()) < vectors + 10 * 250
    assert ingest(table(encoder), None, connector).written == 10
