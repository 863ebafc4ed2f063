"""A mode is one query: searched, measured offline and measured live it ranks the same."""

import json
from typing import Any

import pytest

from m3connect.contract import CollectionSchema
from m3connect.datasets import beir
from m3connect.evaluation import live, run
from m3connect.searching.modes import Setting, note_of
from m3connect.searching.names import MODES
from m3connect.searching.search import search_many, served_preset
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import RecordBatch, Rrf

ENCODER = HashEncoder()


@pytest.fixture
def dataset(tmp_path):
    """Four times as many documents as a leg brings candidates: who brings them shows."""
    texts = [f"word{n % 7} topic{n % 190} item{n}" for n in range(400)]
    rows: dict[str, list[dict[str, Any]]] = {
        "corpus.jsonl": [{"_id": f"d{n:03}", "text": text} for n, text in enumerate(texts)],
        "queries.jsonl": [{"_id": f"q{n}", "text": texts[n * 31]} for n in range(8)],
        "qrels.jsonl": [{"qid": f"q{n}", "docid": f"d{n * 31:03}", "score": 1} for n in range(8)],
    }
    for name, values in rows.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, values)))
    return beir.load(tmp_path)


@pytest.fixture
def collection(dataset):
    """The dataset's corpus in the oracle."""
    documents = list(dataset.documents())
    with MemoryConnector(collection="exact") as exact:
        exact.ensure(CollectionSchema(16, True, 16, "float32", {}, ENCODER.info.fingerprint))
        embeddings = ENCODER.encode([document.text for document in documents])
        ids = [document.id for document in documents]
        exact.upsert(RecordBatch(ids, [{} for _ in ids], embeddings))
        yield exact


class Ranked(dict):
    """Records every answer by mode and query, best first."""

    def __call__(self, mode, query, answer):
        """Keep one."""
        self[mode, query] = sorted(answer, key=lambda id_: (-answer[id_], id_))


@pytest.mark.parametrize("limit", [5, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "notes",
    [{}, {note_of("all"): Setting(Rrf(k=2, sparse=3.0), 4).to_json()}],
    ids=["default", "tuned"],
)
def test_served_and_measured_rank_the_same(dataset, collection, notes, limit):
    """Every mode, with nothing said and with a tuned one: search = offline = live, by default."""
    collection.annotate(notes)
    offline, lived = Ranked(), Ranked()
    names = (f"recall@{limit}",)
    preset = served_preset(ENCODER.info, collection.describe()) if notes else None
    run.evaluate(dataset, ENCODER, names=names, preset=preset, record=offline)
    live.evaluate(dataset, ENCODER, collection, names=names, record=lived)
    texts = [query.text for query in dataset.queries]
    for mode in MODES:
        answers = search_many(collection, ENCODER, texts, mode=mode, limit=limit)
        for query, hits in zip(dataset.queries, answers, strict=True):
            served = [hit.id for hit in hits]
            assert offline[mode, query.id] == served, (mode, query.id)
            assert lived[mode, query.id] == served, (mode, query.id)
