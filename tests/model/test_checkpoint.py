"""Checkpoints are read whole and exactly, or refused with the file's name."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3connect.errors import CheckpointError
from m3connect.model.checkpoint import open_checkpoint, read_tokenizer, weights_hash
from m3connect.model.published import read_published
from m3connect.model.tensors import tensor_shapes
from m3connect.model.weights import load_model


@pytest.fixture
def published(golden, tmp_path):
    """A copy of a checkpoint in the published layout."""
    return shutil.copytree(golden / "safetensors", tmp_path / "published")


@pytest.mark.parametrize("name", ["pickle", "safetensors"])
def test_the_published_layout_is_read(golden, name):
    """Sizes, heads and special ids come from the files; every tensor is the stored one."""
    checkpoint = open_checkpoint(golden / name, "some/name")
    config = checkpoint.config
    assert (checkpoint.layout, config.name, config.pooling) == ("bge-m3", "some/name", "cls")
    assert (config.dense_width, config.multivector_width, config.max_length) == (32, 32, 128)
    assert config.special_ids == (0, 1, 2, 3)
    assert not checkpoint.has_graph
    stored = read_published(golden / name)
    for tensor_name, tensor in load_model(checkpoint).tensors().items():
        assert torch.equal(tensor, stored[tensor_name].float())


def test_a_narrow_head_sets_the_width(golden):
    """The width of token vectors is the head's."""
    assert open_checkpoint(golden / "narrow").config.multivector_width == 16


def test_our_own_layout_is_read(tiny_m3):
    """``m3.json`` says everything; one file has all tensors."""
    checkpoint = open_checkpoint(tiny_m3)
    assert checkpoint.layout == "m3"
    assert checkpoint.has_graph
    stored = load_file(tiny_m3 / "model.safetensors")
    assert stored.keys() == tensor_shapes(checkpoint.config).keys()
    for name, tensor in load_model(checkpoint).tensors().items():
        assert torch.equal(tensor, stored[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_are_converted_once(published, dtype):
    """In the wanted precision they are the stored values rounded, not rounded twice."""
    stored = read_published(published)
    for name, tensor in load_model(open_checkpoint(published), dtype=dtype).tensors().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, stored[name].to(dtype))


def test_names_of_a_task_model_are_understood(published):
    """transformers writes ``roberta.`` before the body's names where it had a head of its own."""
    expected = load_model(open_checkpoint(published)).tensors()
    body = load_file(published / "model.safetensors")
    save_file(
        {f"roberta.{name}": tensor for name, tensor in body.items()},
        published / "model.safetensors",
    )
    found = load_model(open_checkpoint(published)).tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("head", ["sparse_linear.pt", "colbert_linear.pt"])
def test_a_missing_head_is_never_made_up(published, head):
    """The message names the file."""
    (published / head).unlink()
    with pytest.raises(CheckpointError, match=head):
        open_checkpoint(published)


@pytest.mark.parametrize(
    ("head", "state", "message"),
    [
        ("sparse_linear", {"weight": (2, 32), "bias": (2,)}, r"\[2, 32\], expected \[1, 32\]"),
        ("sparse_linear", {"weight": (1, 31), "bias": (1,)}, r"\[1, 31\], expected \[1, 32\]"),
        ("colbert_linear", {"weight": (32, 16), "bias": (32,)}, r"\[32, 16\], expected \[32, 32\]"),
        ("colbert_linear", {"weight": (32, 32), "bias": (31,)}, r"\[31\], expected \[32\]"),
        ("colbert_linear", {"weight": (32, 32)}, "expected weight and bias"),
    ],
)
def test_a_misshapen_head_is_refused(published, head, state, message):
    """The message names the file and both shapes."""
    tensors = {name: torch.zeros(shape) for name, shape in state.items()}
    torch.save(tensors, published / f"{head}.pt")
    with pytest.raises(CheckpointError, match=rf"{head}\.pt.*{message}"):
        load_model(open_checkpoint(published))


def test_a_missing_tensor_of_the_body_is_refused(published):
    """The message names the tensor and its shape."""
    body = load_file(published / "model.safetensors")
    del body["encoder.layer.1.output.dense.bias"]
    save_file(body, published / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layer\.1\.output\.dense\.bias \[32\] is missing"):
        load_model(open_checkpoint(published))


def test_a_missing_body_is_refused(published):
    """Both possible names are in the message."""
    (published / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors nor pytorch_model\.bin"):
        open_checkpoint(published)


@pytest.mark.parametrize("name", ["model.safetensors", "sparse_linear.pt", "tokenizer.json"])
def test_a_broken_file_is_named(published, name):
    """Half a file is an error that says which."""
    content = (published / name).read_bytes()
    (published / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(published)


class _RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["sparse_linear.pt", "pytorch_model.bin"])
def test_a_pickle_that_runs_code_is_refused(golden, tmp_path, name):
    """Pickled files are read as weights only: nothing in them is executed."""
    folder = shutil.copytree(golden / "pickle", tmp_path / "evil")
    target = tmp_path / "executed"
    (folder / name).write_bytes(pickle.dumps(_RunsCode(str(target)), protocol=2))
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(folder)
    assert not target.exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    """The message says what was looked for."""
    with pytest.raises(CheckpointError, match=r"neither m3\.json nor config\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("values", [{"model_type": "gpt2"}, {"hidden_act": "relu"}])
def test_a_body_of_another_kind_is_refused(published, values):
    """The message names the file and the key."""
    content = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(content | values))
    with pytest.raises(CheckpointError, match=rf"config\.json.*\n{next(iter(values))}"):
        open_checkpoint(published)


def test_a_missing_tokenizer_is_refused(published):
    """The message says how to get one."""
    (published / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="save_pretrained"):
        read_tokenizer(published)


def test_the_tokenizer_comes_without_truncation_and_padding(published):
    """Whatever the file says: lengths are ours to set."""
    content = json.loads((published / "tokenizer.json").read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (published / "tokenizer.json").write_text(json.dumps(content))
    tokenizer, _ = read_tokenizer(published)
    assert tokenizer.truncation is None
    assert tokenizer.padding is None


def test_the_hash_knows_a_model_whatever_its_file(golden, tmp_path):
    """The same tensors have one hash, as pickle or safetensors, in numpy or torch."""
    tensors = read_published(golden / "pickle")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "x")
    expected = open_checkpoint(golden / "pickle").config.weights_hash
    assert weights_hash(load_file(tmp_path / "x")) == expected
    assert weights_hash({name: tensor.numpy() for name, tensor in tensors.items()}) == expected
    assert expected != open_checkpoint(golden / "safetensors").config.weights_hash


@pytest.mark.parametrize("position", [0, 200, 499, 511, 513, 900, 999])
def test_the_hash_sees_sampled_values(position):
    """The first, middle and last 256 values of every tensor count."""
    tensor = np.zeros(1000, np.float32)
    before = weights_hash({"a": tensor})
    tensor[position] = 1e-7
    assert weights_hash({"a": tensor}) != before
    assert weights_hash({"b": np.zeros(1000, np.float32)}) != before
    assert weights_hash({"a": np.zeros((10, 100), np.float32)}) != before
