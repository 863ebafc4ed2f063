"""Copy and verify, on connectors in memory and in Parquet files."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect import transfer
from m3connect.contract import CollectionSchema
from m3connect.errors import (
    CollectionNotFound,
    ConfigError,
    FingerprintMismatch,
    InputError,
    SchemaMismatch,
    TransientError,
    Unsupported,
)
from m3connect.filters import F
from m3connect.searching import planner
from m3connect.searching.names import MODES
from m3connect.searching.search import build_queries
from m3connect.stores.memory import MemoryConnector
from m3connect.stores.parquet import ParquetConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import RecordBatch

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
ENCODER = HashEncoder()
SCHEMA = CollectionSchema(16, True, 16, fingerprint=ENCODER.info.fingerprint)


def records(n):
    """n seeded passages with payloads of several JSON types."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(n)]
    payloads = [{"text": text, "n": i, "tags": [i % 3, None]} for i, text in enumerate(texts)]
    return RecordBatch([f"id-{i}" for i in range(n)], payloads, ENCODER.encode(texts))


@pytest.fixture
def source():
    """Forty records in memory, with a note."""
    connector = MemoryConnector(collection="c")
    connector.ensure(SCHEMA)
    connector.upsert(records(40))
    connector.annotate({"tuned": [1, 2]})
    return connector


@pytest.fixture
def target():
    """An empty connector."""
    return MemoryConnector(collection="c")


def test_a_copy_is_equal(source, target):
    """Everything arrives: records, fingerprint, notes; a second run writes nothing."""
    told = []
    report = transfer.copy(source, target, batch_size=7, progress=lambda *what: told.append(what))
    assert told[0] == ("copying", 7, 40)
    assert told[-1] == ("copying", 40, 40)
    assert (report.read, report.written, report.skipped) == (40, 40, 0)
    assert target.describe().notes == {"tuned": [1, 2]}
    assert target.describe().schema == source.describe().schema
    found = transfer.verify(source, target)
    assert found.equal
    assert list(found.overlap) == list(MODES)
    assert set(found.overlap.values()) == {1.0}
    assert transfer.copy(source, target).written == 0


class Dying(MemoryConnector):
    """The third write fails."""

    writes = 0

    def upsert(self, batch):
        """Fail once."""
        self.writes += 1
        if self.writes == 3:
            raise TransientError("gone", connector="memory", operation="upsert")
        super().upsert(batch)


def test_an_interrupted_copy_is_completed_by_running_it_again(source):
    """What was written before the failure is skipped, the rest is written."""
    target = Dying(collection="c")
    with pytest.raises(TransientError):
        transfer.copy(source, target, batch_size=10)
    report = transfer.copy(source, target, batch_size=10)
    assert (report.written, report.skipped) == (20, 20)
    assert transfer.verify(source, target, samples=10).equal


def test_every_difference_is_reported(source, target):
    """A lost, an added and two changed records are told apart."""
    transfer.copy(source, target)
    one = records(4)
    changed = RecordBatch(one.ids[:1], [{**one.payloads[0], "n": -1}], one.embeddings[:1])
    moved = RecordBatch(one.ids[1:2], one.payloads[1:2], ENCODER.encode(["other words"]))
    extra = RecordBatch(["extra"], [{}], one.embeddings[:1])
    for batch in (changed, moved, extra):
        target.upsert(batch)
    target.delete(["id-3"])
    found = transfer.verify(source, target)
    assert not found.equal
    assert found.missing == ("id-3",)
    assert found.superfluous == ("extra",)
    assert found.payloads_differ == ("id-0",)
    assert found.vectors_differ == ("id-1",)
    repaired = transfer.copy(source, target)
    assert repaired.written == 3


def test_values_of_other_types_and_small_differences_of_exact_vectors_are_seen(source, target):
    """1, 1.0 and true are equal in Python; only token vectors are stored in halves."""
    transfer.copy(source, target)
    one = records(3)
    for row, value in ((0, 0.0), (1, True)):
        payload = {**one.payloads[row], "n": value}
        target.upsert(RecordBatch(one.ids[row : row + 1], [payload], one.embeddings[row : row + 1]))
    moved = one.embeddings[2:3]
    nearly = replace(moved, dense=moved.dense + np.float32(5e-4))
    target.upsert(RecordBatch(one.ids[2:3], one.payloads[2:3], nearly))
    found = transfer.verify(source, target)
    assert found.payloads_differ == ("id-0", "id-1")
    assert found.vectors_differ == ("id-2",)


def test_vectors_of_other_widths_differ(source):
    """They are told, and no error of numpy."""
    wide = MemoryConnector(collection="wide")
    wide.ensure(CollectionSchema(20, True, 16))
    few = records(40)
    padded = replace(few.embeddings, dense=np.pad(few.embeddings.dense, ((0, 0), (0, 4))))
    wide.upsert(RecordBatch(few.ids, few.payloads, padded))
    assert len(transfer.verify(source, wide, samples=0).vectors_differ) == 40


def test_another_fingerprint_or_schema_is_refused(source, target):
    """Vectors of two models never mix."""
    target.ensure(CollectionSchema(16, True, 16))
    with pytest.raises(FingerprintMismatch, match="another fingerprint"):
        transfer.copy(source, target)
    narrow = MemoryConnector(collection="c")
    narrow.ensure(CollectionSchema(8, True, 16))
    with pytest.raises(SchemaMismatch):
        transfer.copy(source, narrow)


def test_parquet_round_trip(source, target, tmp_path):
    """Memory to Parquet to memory loses nothing."""
    path = str(tmp_path / "c.parquet")
    with ParquetConnector(collection="c", path=path) as file:
        transfer.copy(source, file)
    with ParquetConnector(collection="c", path=path) as file:
        assert transfer.verify(source, file, samples=10).equal
        assert file.describe().notes == {"tuned": [1, 2]}
        assert transfer.copy(source, file).written == 0  # though a finished file takes no notes
        transfer.copy(file, target)
    assert transfer.verify(source, target, samples=10).equal


@pytest.mark.parametrize("mode", ["dense", "sparse", "multivector", "hybrid", "all"])
def test_a_parquet_file_answers_like_the_oracle(source, tmp_path, mode):
    """The planner scores every record on the client: same ids and scores, filters included."""
    path = str(tmp_path / "c.parquet")
    with ParquetConnector(collection="c", path=path) as file:
        transfer.copy(source, file)
        file.flush()
        queries = build_queries(
            source.describe(), ENCODER, ["beta eta"], mode=mode, filter=F("n") >= 5, limit=7
        )
        expected, found = planner.run(source, queries), planner.run(file, queries)
        assert [hit.id for hit in found[0]] == [hit.id for hit in expected[0]]
        np.testing.assert_allclose(
            [hit.score for hit in found[0]], [hit.score for hit in expected[0]], atol=1e-4
        )
        assert file.count(F("n") >= 5) == 35
        with pytest.raises(Unsupported, match="planner"):
            file.search(queries)
        with pytest.raises(InputError, match="list"):
            file.fetch("r1")


def test_a_parquet_file_is_written_once(source, tmp_path):
    """Overwriting, deleting and doubled ids are refused; a failed run leaves no file."""
    path = tmp_path / "c.parquet"

    def write_twice():
        with ParquetConnector(collection="c", path=str(path)) as file:
            file.ensure(SCHEMA)
            with pytest.raises(Unsupported, match="'m3connect encode' writes them"):
                file.fetch(["id-1"])
            file.upsert(records(2))
            file.upsert(records(1))

    with pytest.raises(Unsupported, match="already in the file"):
        write_twice()
    assert list(tmp_path.iterdir()) == []
    with ParquetConnector(collection="c", path=str(path)) as file:
        with pytest.raises(CollectionNotFound):
            file.describe()
        transfer.copy(source, file)
    with ParquetConnector(collection="c", path=str(path)) as file:
        for refused in (lambda: file.upsert(records(1)), lambda: file.delete(["id-1"])):
            with pytest.raises(Unsupported):
                refused()
        with pytest.raises(SchemaMismatch):
            file.ensure(CollectionSchema(8, True, 16))
    with pytest.raises(ConfigError, match=r"end in \.parquet"):
        ParquetConnector(collection="c", path="x.csv")


def test_a_parquet_file_is_a_collection_of_its_own(source, tmp_path):
    """It is listed when finished, tells its bytes, and is dropped if m3connect wrote it."""
    path = tmp_path / "c.parquet"
    with ParquetConnector(collection="c", path=str(path)) as file:
        assert file.collections() == []
        transfer.copy(source, file)
        assert file.collections() == ["c"]
        assert file.size() == path.stat().st_size
        file.drop()
        assert list(tmp_path.iterdir()) == []
        pq.write_table(pa.table({"x": [1]}), path)
        with pytest.raises(SchemaMismatch, match="not made by m3connect"):
            file.drop()
    assert path.exists()
