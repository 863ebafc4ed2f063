"""The embedded engine on disk: locks, crashes, what survives them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge

from m3connect.contract import CollectionSchema, FieldKind
from m3connect.errors import CollectionNotFound, PermanentError, SchemaMismatch, WritesRefused
from m3connect.filters import F
from m3connect.searching.names import ModeName
from m3connect.searching.search import search
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import check_records
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Embeddings, RecordBatch, Rrf, Weighted
from m3connect_qdrant import connect
from m3connect_qdrant.engine.edge import EdgeEngine
from m3connect_qdrant.errors import CollectionExists
from m3connect_qdrant.filters import indexes
from m3connect_qdrant.mapping import sparse_params, vector_params


def run(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start ``code`` in a process of its own; ``path`` is its folder."""
    start = f"path = {str(folder)!r}\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", start], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


WRITER = """
from m3connect.testing import corpus
from m3connect.types import Embeddings, RecordBatch
from m3connect_qdrant import connect
connector = connect(collection="docs", path=path)
connector.ensure(corpus.SCHEMA)
for seed in range(1000):
    connector.upsert(corpus.records(seed, 20, prefix=f"{seed}-"))
    print(seed, flush=True)
"""
HOLDER = """
from m3connect.testing import corpus
from m3connect.types import Embeddings, RecordBatch
from m3connect_qdrant import connect
connector = connect(collection="docs", path=path)
connector.ensure(corpus.SCHEMA)
print("open", flush=True)
input()
"""


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """After kill -9 in mid-write, every record that upsert returned for is there, whole."""
    with run(WRITER, tmp_path) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(8)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
    assert writer.returncode == -signal.SIGKILL
    with connect(collection="docs", path=str(tmp_path)) as connector:
        for seed in acknowledged:
            batch = corpus.records(seed, 20, prefix=f"{seed}-")
            check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
        assert connector.count() - 20 * len(acknowledged) in (0, 20)
        connector.flush()
        assert len(connector.search([corpus.query(1, "dense", limit=1000)])[0]) >= 160


def test_an_open_collection_says_who_holds_it(tmp_path: Path) -> None:
    """A second opener, in this process or another, learns which process is in the way."""
    with connect(collection="docs", path=str(tmp_path)) as first:
        first.ensure(corpus.SCHEMA)
        second = connect(collection="docs", path=str(tmp_path))
        with pytest.raises(PermanentError, match="this very process") as caught:
            second.count()
        assert caught.value.__cause__ is not None
    assert second.count() == 0, "free again once the first is closed"
    second.close()
    with run(HOLDER, tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        third = connect(collection="docs", path=str(tmp_path))
        with pytest.raises(PermanentError, match=f"process {other.pid} on {socket.gethostname()}"):
            third.ensure(corpus.SCHEMA)
        other.kill()
    assert third.count() == 0, "a dead process holds nothing"
    third.close()


def test_a_held_collection_is_not_dropped(tmp_path: Path) -> None:
    """Who is refused the folder cannot drop it; the holder can, and nothing of it stays."""
    with (
        connect(collection="docs", path=str(tmp_path)) as holder,
        connect(collection="docs", path=str(tmp_path)) as other,
    ):
        holder.ensure(corpus.SCHEMA)
        holder.upsert(corpus.records(1, 3))
        assert other.collections() == ["docs"]
        with pytest.raises(PermanentError, match="in use by this very process"):
            other.drop()
        assert holder.count() == 3
        holder.drop()
        assert [*tmp_path.iterdir()] == []


def test_a_collection_of_other_tenants_is_not_dropped(tmp_path: Path) -> None:
    """Who asks for another way to keep tenants apart than it has means another collection."""
    with connect(collection="docs", path=str(tmp_path)) as plain:
        plain.ensure(corpus.SCHEMA)
    with (
        connect(collection="docs", path=str(tmp_path), tenant_field="team") as strict,
        pytest.raises(SchemaMismatch, match="wanted 'team'"),
    ):
        strict.drop()
    with connect(collection="docs", path=str(tmp_path)) as plain:
        assert plain.collections() == ["docs"]


def test_a_lost_note_of_the_holder_is_no_obstacle(tmp_path: Path) -> None:
    """The engine's own lock decides; the note beside it only names the holder."""
    with connect(collection="docs", path=str(tmp_path)) as first:
        first.ensure(corpus.SCHEMA)
        (tmp_path / "docs" / "holder.json").write_text("{")
        with pytest.raises(PermanentError, match="another process"):
            connect(collection="docs", path=str(tmp_path)).count()


def test_connecting_and_asking_make_no_files(tmp_path: Path) -> None:
    """Only ensure creates something."""
    with (
        connect(collection="docs", path=str(tmp_path)) as connector,
        pytest.raises(CollectionNotFound),
    ):
        connector.count()
    assert [*tmp_path.iterdir()] == []


def test_the_default_folder_is_under_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without url and path a collection lies in .m3connect/qdrant."""
    monkeypatch.chdir(tmp_path)
    with connect(collection="docs") as connector:
        connector.ensure(corpus.SCHEMA)
    assert (tmp_path / ".m3connect/qdrant/docs/collection.json").exists()


def test_the_holder_reads_the_metadata_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each search asks for it, and nobody else can have written it; who comes later reads it anew."""
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.describe()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", None)
            connector.annotate({"note": 1})
            assert connector.describe().notes == {"note": 1}
    with connect(collection="docs", path=str(tmp_path)) as connector:
        assert connector.describe().notes == {"note": 1}


def test_a_creation_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection is made aside and moved into place whole."""

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with (
        connect(collection="docs", path=str(tmp_path)) as connector,
        pytest.raises(PermanentError, match="disk full"),
    ):
        connector.ensure(corpus.SCHEMA)
    assert [*tmp_path.iterdir()] == []


def test_a_second_creator_finds_the_collection(tmp_path: Path) -> None:
    """Who comes second learns that it exists, and replaces nothing; an empty folder is no matter."""
    folder = tmp_path / "docs"
    folder.mkdir()
    params = vector_params(corpus.SCHEMA), sparse_params(corpus.SCHEMA)
    EdgeEngine(folder).create(*params, "first", {})
    with pytest.raises(CollectionExists):
        EdgeEngine(folder).create(*params, "second", {})
    engine = EdgeEngine(folder)
    assert engine.metadata() == ("first", {})
    engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    """A folder that holds something else is neither used nor emptied."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("unsaved")
    with (
        connect(collection="docs", path=str(tmp_path)) as connector,
        pytest.raises(PermanentError),
    ):
        connector.ensure(corpus.SCHEMA)
    assert (tmp_path / "docs" / "thesis.txt").read_text() == "unsaved"


def test_deep_payloads_do_not_break_the_collection(tmp_path: Path) -> None:
    """The engine itself cannot read a payload of 125 levels after a restart; here it can be."""
    deep: object = 1
    for _ in range(125):
        deep = [deep]
    vectors = {"v": qdrant_edge.EdgeVectorParams(size=1, distance=qdrant_edge.Distance.Dot)}
    raw = tmp_path / "raw"
    raw.mkdir()
    shard = qdrant_edge.EdgeShard.create(str(raw), qdrant_edge.EdgeConfig(vectors=vectors))
    point = qdrant_edge.Point(1, {"v": [1.0]}, {"a": deep})
    shard.update(qdrant_edge.UpdateOperation.upsert_points([point]))
    shard.close()
    with pytest.raises(Exception, match="RecursionLimitExceeded"):
        qdrant_edge.EdgeShard.load(str(raw))

    batch = corpus.records(1, 1)
    batch.payloads[0]["deep"] = deep  # type: ignore[index]
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
    with connect(collection="docs", path=str(tmp_path)) as connector:
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
        assert connector.count(F("deep") == 1) == 1


def test_turbo_storage_is_chosen_at_creation(tmp_path: Path) -> None:
    """Compressed token vectors come back near what they were, and rank alike."""
    batch = corpus.records(4, 20)
    options = {"collection": "docs", "path": str(tmp_path)}
    with connect(**options, multivector_storage="turbo8") as connector:  # type: ignore[arg-type]
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        stored = connector.fetch(batch.ids).embeddings.multivector
    given = batch.embeddings.multivector
    assert stored is not None
    assert given is not None
    difference = abs(stored.vectors.astype("f4") - given.vectors.astype("f4")).max()
    assert 0 < difference < 0.1


def test_indexes_have_the_keys_that_they_were_given(tmp_path: Path) -> None:
    """The engine spells index keys as they are asked for, so none is made twice."""
    kinds: dict[str, FieldKind] = {
        "lang": "keyword",
        "a-b_c9": "integer",
        "author.name": "keyword",
        "naïve Schlüssel": "datetime",
        'quo"te[0]/%': "float",
    }
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(replace(corpus.SCHEMA, payload_fields=kinds))
        made = connector._engine.indexes()
    assert made == {key for field, kind in kinds.items() for key in indexes(field, kind)}


@pytest.mark.slow
def test_flush_builds_the_graph(tmp_path: Path) -> None:
    """Enough dense vectors are searched through a graph once they are flushed."""
    schema = CollectionSchema(2048, sparse=False, multivector_width=None)
    batch = corpus.records(5, 1500, schema)
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(schema)
        connector.upsert(batch)
        engine = connector._engine
        assert isinstance(engine, EdgeEngine)
        assert engine._open().info().indexed_vectors_count == 0
        connector.flush()
        assert engine._open().info().indexed_vectors_count == 1500


def test_a_full_disk_refuses_writes_and_leaves_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine maps its files and would crash: it is not asked to write, and reads on."""
    batch = corpus.records(6, 30)
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=65 * 10**6))
        with pytest.raises(WritesRefused, match="65 MB left"):
            connector.upsert(corpus.records(7, 30, prefix="more"))
        connector.flush()
        assert "it answers without new indexes" in caplog.text
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
        assert len(connector.search([corpus.query(1, "dense")])[0]) == 10
    with connect(collection="other", path=str(tmp_path)) as other, pytest.raises(WritesRefused):
        other.ensure(corpus.SCHEMA)
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


def test_a_collection_in_a_folder_needs_no_client(tmp_path: Path) -> None:
    """Its import is half of what a search would take."""
    code = (
        "import sys, m3connect_qdrant\n"
        f"connector = m3connect_qdrant.connect(collection='a', path={str(tmp_path)!r})\n"
        "connector.collections()\n"
        "sys.exit(bool({'qdrant_client', 'grpc', 'httpx'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_the_log_does_not_keep_all_that_was_ever_written(tmp_path: Path) -> None:
    """What it held is in the segments before its files go, and comes back after the process ended."""
    long = "x" * 3_900_000
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(CollectionSchema(4, sparse=False, multivector_width=None))
        for row in range(30):
            vectors = Embeddings(
                np.ones((1, 4), np.float32), None, None, np.ones(1, np.int32), np.zeros(1, np.bool_)
            )
            connector.upsert(RecordBatch([f"r{row}"], [{"text": long, "row": row}], vectors))
        log = tmp_path / "docs" / "shard" / "wal"
        assert sum(file.stat().st_blocks * 512 for file in log.iterdir()) < 30 * len(long) * 0.7
    with connect(collection="docs", path=str(tmp_path)) as connector:
        assert connector.count() == 30
        assert connector.count("row >= 0 and row < 30") == 30


@pytest.mark.parametrize("fusion", [Rrf(), Rrf(dense=0.5), Weighted(1, 1, 1, rescore=False)])
@pytest.mark.parametrize("mode", ["hybrid", "all"])
def test_explanations_add_up_where_scores_tie(
    tmp_path: Path, mode: ModeName, fusion: Rrf | Weighted
) -> None:
    """What ties in a leg is ranked as the engine likes, and explained by the rank that it had."""
    encoder = HashEncoder()
    words = ("lock", "door", "open", "shut", "rust", "wax", "bell")
    texts = [f"keys {word}" for word in words]
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(CollectionSchema.of(encoder.info.fingerprint, LEGS))
        ids = [f"p{row}" for row in range(len(texts))]
        records = [{"text": text} for text in texts]
        connector.upsert(RecordBatch(ids, records, encoder.encode(texts)))
        hits = search(connector, encoder, "keys", mode=mode, fusion=fusion, depth=5, limit=5)
        assert hits.plan.native
        parts = [sum(part.parts.values()) for part in hits.explain()]
        assert parts == pytest.approx([hit.score for hit in hits], abs=1e-6)
