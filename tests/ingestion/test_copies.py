"""The one Parquet layout: what m3connect writes to a file, it reads as it was."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect import Document, F, search, transfer
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion import Options, encode_to_parquet, ingest, open_source, plan
from m3connect.stores.memory import MemoryConnector
from m3connect.stores.parquet import ParquetConnector
from m3connect.testing.fakes import HashEncoder

DOCS = [
    Document(f"d{at}", f"one two w{at} three four", {"lang": "en" if at % 2 else "de", "n": at})
    for at in range(6)
]


class Streaming(HashEncoder):
    """A fake that takes texts as they come, two at once."""

    def stream(self, texts, **options):
        waiting = []
        for text in texts:
            waiting.append(text)
            if len(waiting) == 2:
                yield self.encode(waiting, **options)
                waiting = []
        if waiting:
            yield self.encode(waiting, **options)


@pytest.fixture
def backup(encoder, connector, tmp_path):
    """A copy of an ingested collection, as a file."""
    fill(connector, encoder)
    connector.annotate({"tuned": 1})
    path = str(tmp_path / "backup.parquet")
    with ParquetConnector(collection="x", path=path) as file:
        transfer.copy(connector, file)
    return path


def fill(connector, encoder, docs=DOCS):
    """Passages of two tokens, so that documents have several."""
    return ingest(docs, encoder, connector, chunk_tokens=2, index_fields={"lang": "keyword"})


def new():
    return MemoryConnector(collection="new")


@pytest.mark.parametrize("marked", [True, False], ids=["documents", "records"])
def test_a_copy_that_is_ingested_equals_the_collection(encoder, tmp_path, marked):
    """Payloads, vectors, filters, schema, notes and fingerprint."""
    source = MemoryConnector(collection="source")
    if marked:
        fill(source, encoder)
    else:
        whole = tmp_path / "encoded.parquet"
        encode_to_parquet(DOCS, Streaming(), whole)
        ingest(whole, None, source)
    path = str(tmp_path / "backup.parquet")
    with ParquetConnector(collection="x", path=path) as file:
        transfer.copy(source, file)
    target = new()
    report = ingest(path, None, target)
    assert (report.written, report.failed) == (source.count(), 0)
    assert transfer.verify(source, target, samples=5).equal
    assert target.describe().schema == source.describe().schema
    for each in (source, target):
        hits = search(each, encoder, "one two", filter=F("lang") == "en")
        assert {hit.payload["document_id"] for hit in hits} == {"d1", "d3", "d5"}


def test_documents_go_on_from_a_copy(backup, encoder):
    """The ledger finds its marks: nothing is encoded again, and what shrinks leaves nothing behind."""
    target = new()
    ingest(backup, None, target)
    assert target.describe().notes["tuned"] == 1
    assert fill(target, encoder).unchanged == len(DOCS)
    shorter = [Document("d0", "one"), *DOCS[1:]]
    assert fill(target, encoder, shorter).deleted == 2
    other = new()
    fill(other, encoder, shorter)
    assert target.count() == other.count()


def test_a_copy_goes_into_a_collection_of_its_own(backup, encoder, connector):
    """Twice changes nothing; among other records it would leave documents in pieces."""
    target = new()
    ingest(backup, None, target)
    again = ingest(backup, None, target)
    assert (again.unchanged, again.written) == (target.count(), 0)
    planned = plan(open_source(backup, None), target)
    assert (planned.unchanged, planned.written) == (target.count(), 0)
    with pytest.raises(ConfigError, match=r"holds other records.*goes into a new one"):
        ingest(backup, None, connector)
    with pytest.raises(ConfigError, match=r"holds other records.*goes into a new one"):
        plan(open_source(backup, None), connector)
    fill(target, encoder)
    with pytest.raises(ConfigError, match="holds other records"):
        ingest(backup, None, target)
    with pytest.raises(ConfigError, match="they keep their ids"):
        ingest(backup, None, new(), reading=Options(id_prefix="b/"))


def test_a_copy_that_was_cut_off_is_finished_first(backup, encoder):
    """Half a document may carry the marks of a whole one, so nothing else comes in before."""
    target = new()
    upsert = target.upsert

    def dies(batch):
        upsert(batch[:5])
        raise KeyboardInterrupt

    target.upsert = dies
    with pytest.raises(KeyboardInterrupt):
        ingest(backup, None, target)
    target.upsert = upsert
    with pytest.raises(ConfigError, match="not finished"):
        fill(target, encoder)
    with pytest.raises(ConfigError, match="not finished"):
        plan(open_source(DOCS, encoder, chunk_tokens=2), target)
    assert plan(open_source(backup, None), target).unchanged == 0
    ingest(backup, None, target)
    assert fill(target, encoder).unchanged == len(DOCS)


def test_a_table_read_from_a_copy_is_refused(backup, connector):
    """It no longer says which copy it is."""
    with pytest.raises(InputError, match="ingest the file itself"):
        ingest(pq.read_table(backup), None, new())


def test_encoded_documents_keep_their_metadata(encoder, tmp_path):
    """From the file and from a table read from it, filters find them; twice writes nothing."""
    path = tmp_path / "encoded.parquet"
    report = encode_to_parquet(DOCS, Streaming(), path)
    assert (report.read, report.encoded, report.tokens) == (6, 6, 6 * 7)
    target, other = new(), new()
    assert ingest(path, None, target).written == 6
    assert ingest(pq.read_table(path), None, other, source_name=str(path)).written == 6
    assert transfer.verify(target, other, samples=5).equal
    assert target.describe().schema.fingerprint == encoder.info.fingerprint
    assert ingest(path, None, target).unchanged == 6
    hits = search(target, encoder, "one", filter=F("lang") == "de")
    assert {hit.id for hit in hits} == {"d0", "d2", "d4"}


def test_an_older_layout_is_refused(backup):
    """It says what to do."""
    table = pq.read_table(backup)
    content = json.loads(table.schema.metadata[b"m3connect"])
    del content["layout"]
    pq.write_table(table.replace_schema_metadata({"m3connect": json.dumps(content)}), backup)
    with pytest.raises(InputError, match=r"layout 1, this version reads 2; write it again with"):
        ingest(backup, None, new())
    pq.write_table(table.replace_schema_metadata({"m3connect": b"no json"}), backup)
    with pytest.raises(InputError, match="damaged"):
        ingest(backup, None, new())


@pytest.fixture
def good(tmp_path):
    """A file of four embeddings."""
    path = tmp_path / "good.parquet"
    encode_to_parquet(DOCS[:4], Streaming(), path)
    return path


def damaged(path, column, values, type_):
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    pq.write_table(table.set_column(at, column, pa.array(values, type_)), path)


@pytest.mark.parametrize("as_table", [False, True])
def test_a_damaged_row_is_a_dead_letter(good, tmp_path, as_table):
    """A term that is no index, and a null; all other rows are stored as they are."""
    table = pq.read_table(good)
    terms = table["sparse_indices"].to_pylist()
    terms[0] = [-1, *terms[0][1:]]
    damaged(good, "sparse_indices", terms, pa.list_(pa.int64()))
    dense = table["dense"].to_pylist()
    dense[2] = None
    damaged(good, "dense", dense, table.schema.field("dense").type)
    letters = tmp_path / "dead.jsonl"
    target = new()
    source = pq.read_table(good) if as_table else good
    report = ingest(source, None, target, dead_letters=letters)
    assert (report.written, report.failed) == (2, 2)
    reasons = {
        row["id"]: row["reason"] for row in map(json.loads, letters.read_text().splitlines())
    }
    assert "-1, which is no index of a term" in reasons["d0"]
    assert "'dense' holds nulls" in reasons["d2"]
    expected = HashEncoder().encode([DOCS[1].text])
    assert target.fetch(["d1"]).embeddings.sparse == expected.sparse


def test_vectors_as_lists_of_any_size_are_taken(good):
    """Spark and DuckDB know no others; one of another width is a dead letter."""
    dense = pq.read_table(good)["dense"].to_pylist()
    dense[1] = dense[1][:3]
    damaged(good, "dense", dense, pa.list_(pa.float32()))
    target = new()
    report = ingest(good, None, target)
    assert (report.written, report.failed) == (3, 1)
    assert np.array_equal(target.fetch(["d0"]).embeddings.dense[0], np.float32(dense[0]))


def test_a_fingerprint_that_is_none_is_refused(good):
    """A foreign table's metadata must be what they say."""
    table = pq.read_table(good).drop_columns(["payload"])
    pq.write_table(table.replace_schema_metadata({"m3connect.fingerprint": b"no json"}), good)
    with pytest.raises(InputError, match="is no fingerprint"):
        ingest(good, None, new())
