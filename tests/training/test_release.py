"""A training run's result becomes the small part of a packed checkpoint."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from m3connect.model import packed
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.m3 import M3Model
from m3connect.model.weights import load_model
from m3connect.training.loop import train
from m3connect.training.recipe import Recipe
from tests.model import scripts


@pytest.fixture
def release():
    """The script as a module."""
    return scripts.load("release")


@pytest.fixture
def packed_model(tmp_path, config, tokenizer):
    """A packed checkpoint, 32 wide, whose base is in 4-bit blocks."""
    body = config.body.model_copy(update={"hidden_size": 32, "model_type": "bert"})
    config = config.model_copy(update={"body": body, "multivector_width": 32})
    torch.manual_seed(0)
    tensors = {name: tensor.numpy() for name, tensor in M3Model(config).tensors().items()}
    heads = {name: tensors.pop(name) for name in list(tensors) if "_linear" in name}
    base = {
        name: packed.pack(tensor) if tensor.ndim == 2 and "_embeddings" not in name else tensor
        for name, tensor in tensors.items()
    }
    folder = tmp_path / "packed"
    folder.mkdir()
    save_file(base, folder / "base.safetensors")
    save_file(packed.differences(base, heads), folder / "trained.safetensors")
    (folder / "m3.json").write_text(config.model_dump_json())
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_run_from_the_base_is_packed_and_released(
    release, packed_model, examples, tmp_path, monkeypatch
):
    """Trained from the base, packed and opened again, the model is the trained one but for rounding."""
    run = train(
        Recipe.model_validate(
            {
                "output": tmp_path / "run",
                "model": {
                    "name": str(packed_model),
                    "start": "base",
                    "sparse_head": "ridge",
                    "multivector_head": "identity",
                    "frozen": "embeddings",
                },
                "data": [{"path": str(examples)}],
                "batching": {"query_length": 16, "passage_length": 32, "edges": [32], "sizes": 16},
                "optimizer": {"learning_rate": 1e-4},
            }
        )
    )
    before = json.loads((packed_model / "m3.json").read_text())["weights_hash"]
    arguments = [
        "release.py",
        str(run),
        "--into",
        str(packed_model),
        "--fusion-weights",
        "1",
        "0.4",
        "1",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    release.main()
    trained = load_file(packed_model / "trained.safetensors")
    assert not [
        name for name in trained if "embeddings.word" in name or "embeddings.position" in name
    ]
    checkpoint = open_checkpoint(packed_model)
    assert checkpoint.config.weights_hash != before
    assert checkpoint.config.fusion_weights == (1, 0.4, 1)
    expected = load_model(open_checkpoint(run)).tensors()
    found = load_model(checkpoint).tensors()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, atol=1e-3, err_msg=name)
