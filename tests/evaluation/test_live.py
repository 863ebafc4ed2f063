"""A live collection: the database's answers are the offline answers where its index is exact."""

from typing import Any

import numpy as np
import pytest

from m3connect.connecting.registry import available, connect
from m3connect.contract import CollectionSchema
from m3connect.datasets import beir
from m3connect.errors import FingerprintMismatch, InputError
from m3connect.evaluation import live, run
from m3connect.filters import F
from m3connect.searching.modes import for_database, preset_for
from m3connect.searching.names import MODES
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import RecordBatch

ENCODER = HashEncoder()


def fill(connector, dataset, *, parts=1, encoder=ENCODER, prefix=""):
    """Write a corpus into a collection, each document as so many equal records."""
    schema = CollectionSchema(16, True, 16, fingerprint=encoder.info.fingerprint)
    connector.ensure(schema)
    for part in range(parts):
        documents = list(dataset.documents())
        ids = [f"{document.id}#{part}" for document in documents]
        payloads = [{"document_id": prefix + document.id} for document in documents]
        texts = [document.text for document in documents]
        connector.upsert(RecordBatch(ids, payloads, encoder.encode(texts)))
    connector.flush()


@pytest.fixture(params=["memory", "qdrant", "milvus"])
def connector(request, tmp_path):
    """An empty collection in each engine that runs inside this process."""
    if request.param not in available():
        pytest.skip(f"the connector {request.param} is not installed")
    options = {} if request.param == "memory" else {"path": str(tmp_path / request.param)}
    with connect(request.param, collection="evaluation", **options) as opened:
        yield opened


def test_live_equals_offline(connector, dataset):
    """Every mode's nDCG through the database is the offline one to 0.001, and records agree."""
    fill(connector, dataset)
    preset = for_database(preset_for(ENCODER.info), 20)
    found = live.evaluate(dataset, ENCODER, connector, depth=20)
    offline = run.evaluate(dataset, ENCODER, preset=preset)
    assert [row.name for row in found.rows] == list(MODES)
    for here, there in zip(found.rows, offline.rows, strict=True):
        assert here.figures["ndcg@10"].mean() == pytest.approx(
            there.figures["ndcg@10"].mean(), abs=0.001
        )
        assert here.live["overlap@10"] > 0.99
        assert here.live["ndcg@10 exact"] == pytest.approx(
            here.figures["ndcg@10"].mean(), abs=0.001
        )
        assert 0 < here.live["p50 ms"] <= here.live["p95 ms"] <= here.live["p99 ms"]
    assert found.settings["target"] == connector.name
    assert found.warnings == ()


def test_the_records_of_one_tenant_are_measured(dataset):
    """A filter chooses what is searched and read; without one a collection with tenants is refused."""
    schema = CollectionSchema(
        16, True, 16, fingerprint=ENCODER.info.fingerprint, tenant_field="tenant"
    )
    documents = list(dataset.documents())
    with MemoryConnector(collection="tenants") as tenants, MemoryConnector(collection="one") as one:
        fill(one, dataset)
        tenants.ensure(schema)
        for tenant in ("a", "b"):
            ids = [f"{tenant}/{document.id}" for document in documents]
            payloads = [{"document_id": each.id, "tenant": tenant} for each in documents]
            vectors = ENCODER.encode([document.text for document in documents])
            tenants.upsert(RecordBatch(ids, payloads, vectors))
        measured = live.evaluate(dataset, ENCODER, tenants, filter='tenant == "b"')
        alone = live.evaluate(dataset, ENCODER, one)
        with pytest.raises(InputError, match='tenant == "a"'):
            live.evaluate(dataset, ENCODER, tenants)
    assert measured.settings["records"] == len(documents)
    for row, other in zip(measured.rows, alone.rows, strict=True):
        assert row.figures["ndcg@10"].mean() == pytest.approx(other.figures["ndcg@10"].mean())
        assert row.live["overlap@10"] == 1.0


def test_documents_count_once(dataset):
    """With three records a document the figures are those of one record a document."""
    with MemoryConnector(collection="one") as one, MemoryConnector(collection="three") as three:
        fill(one, dataset)
        fill(three, dataset, parts=3)
        options: dict[str, Any] = {"modes": ("sparse",), "reference": False}
        single = live.evaluate(dataset, ENCODER, one, **options).rows[0]
        triple = live.evaluate(dataset, ENCODER, three, **options).rows[0]
    for name, values in single.figures.items():
        np.testing.assert_array_equal(values, triple.figures[name])
    assert set(single.live) == {"p50 ms", "p95 ms", "p99 ms"}


def test_queries_and_judgements_are_enough(dataset, folder):
    """Without a corpus the figures are the same, and what is judged relevant but not stored is counted."""
    (folder / "corpus.jsonl").unlink()
    bare = beir.load(folder, bare=True)
    with MemoryConnector(collection="one") as one:
        fill(one, dataset, parts=2)
        found = live.evaluate(bare, ENCODER, one)
        whole = live.evaluate(dataset, ENCODER, one)
        assert [row.figures["ndcg@10"].tolist() for row in found.rows] == [
            row.figures["ndcg@10"].tolist() for row in whole.rows
        ]
        assert (found.documents, found.warnings) == (36, ())
        with pytest.raises(InputError, match="tiny has no corpus"):
            live.evaluate(bare, ENCODER, one, names=["answer_recall@20"])
        one.delete(F("document_id") == next(iter(dataset.qrels["q00"])))
        found = live.evaluate(bare, ENCODER, one, modes=("dense",))
    assert found.warnings == ("1 documents of the dataset are not in the collection",)


def test_an_index_that_forgets_is_found_out(dataset):
    """When the database drops every second hit, overlap and figures fall, exact search does not."""

    class Forgetful(MemoryConnector):
        def search(self, queries):
            return [hits[::2] for hits in super().search(queries)]

    with Forgetful(collection="bad") as bad:
        fill(bad, dataset)
        (row,) = live.evaluate(dataset, ENCODER, bad, modes=("dense",)).rows
    assert row.live["overlap@10"] < 0.7
    assert row.figures["ndcg@10"].mean() < row.live["ndcg@10 exact"] - 0.05


def test_another_model_is_refused(dataset):
    """A collection of another model cannot be measured with this one."""
    with MemoryConnector(collection="other") as other:
        fill(other, dataset, encoder=HashEncoder(seed=1))
        with pytest.raises(FingerprintMismatch):
            live.evaluate(dataset, ENCODER, other)


def test_another_corpus_is_refused_and_a_partial_one_reported(dataset):
    """Nothing in common is an error with a hint; what is missing is counted."""
    with MemoryConnector(collection="other") as other:
        fill(other, dataset, prefix="x-")
        with pytest.raises(InputError, match=r"none of the documents of 'tiny'.*x-d00"):
            live.evaluate(dataset, ENCODER, other)
    with MemoryConnector(collection="partial") as partial:
        fill(partial, dataset)
        partial.delete(["d00#0", "d01#0"])
        found = live.evaluate(dataset, ENCODER, partial, modes=("dense",))
    assert found.warnings == ("2 documents of the dataset are not in the collection",)


def test_cut_texts_are_reported(dataset):
    """Records and queries of which the model reads the beginning alone are counted."""
    short = HashEncoder(max_length=3)
    with MemoryConnector(collection="short") as connector:
        fill(connector, dataset, encoder=short)
        found = live.evaluate(dataset, short, connector, modes=("dense",), reference=False)
    assert found.warnings == (
        "36 of 36 records are longer than the model reads and were cut",
        "12 of 12 queries are longer than the model reads and were cut",
    )
