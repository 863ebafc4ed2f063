"""Published collections: each form that the hub holds becomes the BEIR layout."""

import gzip
import json
import zipfile
from fnmatch import fnmatch
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect.datasets import beir, hub
from m3connect.errors import ConfigError, InputError
from m3connect.evaluation import measure, run
from m3connect.testing.fakes import HashEncoder


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def lines(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


PASSAGES = [
    {"_id": "p1", "title": "Sky", "text": "is blue"},
    {"_id": "p2", "title": "", "text": 'a "quoted\tword'},
]


@pytest.fixture
def fetch(tmp_path):
    """A hub of files, made here in the forms that the repositories have."""
    home = tmp_path / "hub"

    def put(repository, name, write, rows):
        path = home / repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, rows)

    def text(path, content):
        path.write_text(content)

    def archive(path, rows):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("MKQA/de.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    question = {"_id": "q1", "title": "", "text": "blue?"}
    for repository in ("BeIR/scifact", "BeIR/nq"):
        put(repository, "corpus/corpus-00000-of-00001.parquet", parquet, PASSAGES)
        put(repository, "queries/queries-00000-of-00001.parquet", parquet, [question])
    put("BeIR/scifact-qrels", "test.tsv", text, "query-id\tcorpus-id\tscore\nq1\tp1\t1\n")
    nano = "sentence-transformers/NanoBEIR-en"
    put(nano, "corpus/NanoNQ-00000-of-00001.parquet", parquet, PASSAGES)
    put(nano, "queries/NanoNQ-00000-of-00001.parquet", parquet, [question])
    judged = [{"query-id": "q1", "corpus-id": "p1"}]
    put(nano, "qrels/NanoNQ-00000-of-00001.parquet", parquet, judged)
    for number, passage in enumerate(PASSAGES):
        row = {"docid": passage["_id"], "title": passage["title"], "text": passage["text"]}
        put("miracl/miracl-corpus", f"miracl-corpus-v1.0-de/docs-{number}.jsonl.gz", lines, [row])
    stem = "miracl-v1.0-de"
    put("miracl/miracl", f"{stem}/topics/topics.{stem}-dev.tsv", text, 'q1\tIst "es blau?\n')
    put(
        "miracl/miracl",
        f"{stem}/qrels/qrels.{stem}-dev.tsv",
        text,
        "q1\tQ0\tp1\t1\nq1\tQ0\tp2\t0\n",
    )
    long = [{"docid": passage["_id"], "text": passage["text"]} for passage in PASSAGES]
    put("Shitao/MLDR", "mldr-v1.0-de/corpus.jsonl.gz", lines, long)
    asked = {
        "query_id": "q1",
        "query": "blau?",
        "positive_passages": [{"docid": "p1", "text": "is blue"}],
        "negative_passages": [{"docid": "p2", "text": "x"}],
    }
    put("Shitao/MLDR", "mldr-v1.0-de/test.jsonl.gz", lines, [asked])
    known: dict[str, Any] = {"id": 7, "question": "Welche Farbe?", "answers": ["Blue"]}
    put("Shitao/bge-m3-data", "MKQA_test-data.zip", archive, [known])

    def get(repository, pattern):
        root = home / repository
        paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return [path for path in paths if fnmatch(str(path.relative_to(root)), pattern)]

    return get


@pytest.mark.parametrize(
    ("name", "first", "question", "qrels"),
    [
        ("beir-scifact", "Sky is blue", "blue?", {"p1": 1}),
        ("nanobeir-NQ", "Sky is blue", "blue?", {"p1": 1}),
        ("miracl-de", "Sky is blue", 'Ist "es blau?', {"p1": 1, "p2": 0}),
        ("mldr-de", "is blue", "blau?", {"p1": 1, "p2": 0}),
        ("mkqa-de", "Sky is blue", "Welche Farbe?", {}),
    ],
)
def test_every_benchmark_becomes_a_folder(tmp_path, fetch, name, first, question, qrels):
    """Documents, queries and judgements arrive whole; quotes and tabs survive."""
    dataset = beir.load(hub.folder(name, tmp_path / "cache", fetch))
    texts = [document.text for document in dataset.documents()]
    assert texts == [first, 'a "quoted\tword']
    (query,) = dataset.queries
    assert query.text == question
    assert dataset.qrels[query.id] == qrels
    if name.endswith("-de"):
        assert query.language == "de"


def test_a_folder_is_fetched_once(tmp_path, fetch):
    """The second call reads the cache; a fetch that failed leaves nothing behind."""
    home = hub.folder("miracl-de", tmp_path / "cache", fetch)
    assert hub.folder("miracl-de", tmp_path / "cache", lambda *_: pytest.fail("fetched")) == home

    def broken(repository, pattern):
        if "topics" in pattern:
            raise InputError("gone")
        return fetch(repository, pattern)

    with pytest.raises(InputError, match="gone"):
        hub.folder("miracl-fr", tmp_path / "cache", broken)
    assert not (tmp_path / "cache" / "miracl-fr").exists()


def test_mkqa_is_measured_by_answers(tmp_path, fetch):
    """Without judgements only answer recall makes sense, and it works."""
    dataset = beir.load(hub.folder("mkqa-de", tmp_path / "cache", fetch))
    with pytest.raises(InputError, match="measure answer_recall@K"):
        measure.check(["ndcg@10"], dataset)
    names = ["answer_recall@1", "answer_recall@20"]
    (row,) = run.evaluate(dataset, HashEncoder(), modes=("dense",), names=names).rows
    assert row.figures["answer_recall@20"].tolist() == [1.0]


@pytest.mark.parametrize("name", ["trec-covid", "miracl", "miracl-"])
def test_unknown_names_are_refused(tmp_path, name):
    """A name that is no collection lists the kinds there are."""
    with pytest.raises(ConfigError, match="no collection"):
        hub.folder(name, tmp_path)


def test_an_unreachable_hub_says_what_to_do(monkeypatch):
    """Offline, the error names the data set and the way around."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'no/such' cannot be fetched.*Give a folder"):
        hub.from_hub("no/such", "*.tsv")
