"""A small test collection on disk."""

import json

import pytest

from m3connect.evaluation import datasets

TOPICS = ("river", "engine", "violin", "harvest", "planet", "castle")


@pytest.fixture
def folder(tmp_path):
    """36 documents on six topics in two languages, and 12 queries."""
    where = tmp_path / "tiny"
    where.mkdir()
    documents, queries, qrels = [], [], ["query-id\tcorpus-id\trelevance"]
    for number in range(36):
        topic = TOPICS[number % 6]
        text = (
            f"{topic} story {number} about the {topic} and {TOPICS[(number + 1) % 6]} tale{number}"
        )
        documents.append({"_id": f"d{number:02}", "text": text, "lang": "en"})
    for number in range(12):
        topic = TOPICS[number % 6]
        text = f"the {topic} tale{number}"
        lang = "en" if number < 8 else "de"
        queries.append(
            {"_id": f"q{number:02}", "text": text, "lang": lang, "answers": [f"story {number + 6}"]}
        )
        qrels.append(f"q{number:02}\td{number:02}\t2")
        qrels.append(f"q{number:02}\td{number + 6:02}\t1")
    for name, rows in (("corpus", documents), ("queries", queries)):
        (where / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (where / "qrels.tsv").write_text("\n".join(qrels))
    return where


@pytest.fixture
def dataset(folder):
    """That collection, loaded."""
    return datasets.load(folder)
