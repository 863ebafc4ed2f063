"""A tiny M3 for every test: two layers, 32 wide, token vectors 16 wide, random weights, a real tokenizer, no download."""

import json
import resource
import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


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
        graph = build(open_checkpoint(folder).config, "input_ids", folder / "model.safetensors")
        (folder / "graph.onnx").write_bytes(graph.SerializeToString())
        return folder

    return copy


@pytest.fixture
def little_room():
    """A function that keeps files from growing beyond so many bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
