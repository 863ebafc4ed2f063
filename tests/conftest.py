"""For every test: a small test collection and a tiny M3.

Two layers, 32 wide, token vectors 16 wide, random weights, a real tokenizer, no download.
"""

import json
import resource
import shutil
from pathlib import Path

import pytest

from m3connect.datasets import beir
from m3connect.reporting import charts

GOLDEN = Path(__file__).parent / "golden"
TOPICS = ("river", "engine", "violin", "harvest", "planet", "castle")


@pytest.fixture(scope="session")
def golden():
    """Small random checkpoints in the published layout, with what FlagEmbedding makes of them."""
    return GOLDEN


@pytest.fixture(scope="session")
def tiny_m3(tmp_path_factory):
    """A tiny checkpoint in our own layout, with a graph: both backends run it."""
    from m3connect.model.checkpoint import open_checkpoint
    from m3connect.model.export import export

    folder = tmp_path_factory.mktemp("tiny") / "tiny-m3"
    export(open_checkpoint(GOLDEN / "narrow", "tiny-m3"), "onnx", folder)
    return folder


@pytest.fixture
def vary(tiny_m3, tmp_path):
    """A function that copies the tiny checkpoint with other values in its ``m3.json``."""
    from m3connect.model.checkpoint import open_checkpoint
    from m3connect.model.onnx_graph import build

    def copy(**changes):
        folder = tmp_path / "-".join(["varied", *changes])
        shutil.copytree(tiny_m3, folder)
        values = json.loads((folder / "m3.json").read_text())
        (folder / "m3.json").write_text(json.dumps(values | changes))
        config = open_checkpoint(folder).config
        for name, int8 in (("graph.onnx", False), ("graph.int8.onnx", True)):
            graph = build(config, "input_ids", folder / "model.safetensors", int8=int8)
            (folder / name).write_bytes(graph.SerializeToString())
        return folder

    return copy


@pytest.fixture
def empty_charts(monkeypatch):
    """Reports have charts of a title alone, which costs nothing; test_page.py draws real ones."""
    monkeypatch.setattr(charts, "_finished", lambda figure, axes, title: f"<svg>{title}</svg>")


@pytest.fixture
def little_room():
    """A function that keeps files from growing beyond so many bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_collection(where):
    """36 documents on six topics in two languages, and 12 queries."""
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
def folder(tmp_path):
    """A small test collection as files of its own."""
    return write_collection(tmp_path / "tiny")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """That collection, loaded."""
    return beir.load(write_collection(tmp_path_factory.mktemp("collection") / "tiny"))
