"""The weighted mean of checkpoints."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from m3connect import cli
from m3connect.errors import ConfigError
from m3connect.inference import M3Encoder
from m3connect.model.checkpoint import open_checkpoint, weights_hash
from m3connect.model.merging import merge


@pytest.fixture
def moved(vary):
    """The tiny checkpoint after a training that moved every value, under other fusion weights."""
    folder = vary(fusion_weights=(1.0, 0.5, 2.0), name="moved")
    tensors, rng = load_file(folder / "model.safetensors"), np.random.default_rng(1)
    steps = {name: rng.normal(0, 0.05, tensor.shape) for name, tensor in tensors.items()}
    moved = {name: (tensor + steps[name]).astype("f4") for name, tensor in tensors.items()}
    save_file(moved, folder / "model.safetensors")
    return folder


def tensors(folder):
    return load_file(folder / "model.safetensors")


def test_every_tensor_is_the_mean(tiny_m3, moved, tmp_path):
    """Heads included; the result is a model of its own, with the last one's settings."""
    merge([open_checkpoint(tiny_m3), open_checkpoint(moved)], [0.25, 0.75], tmp_path / "merged")
    before, after, found = tensors(tiny_m3), tensors(moved), tensors(tmp_path / "merged")
    assert found.keys() == before.keys()
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor, 0.25 * before[name] + 0.75 * after[name], atol=1e-6)
    config = open_checkpoint(tmp_path / "merged").config
    assert config.weights_hash == weights_hash(found)
    assert (config.name, config.fusion_weights) == ("moved", (1.0, 0.5, 2.0))


def test_all_the_weight_on_one_is_that_one(tiny_m3, moved, tmp_path):
    """A weight of 0 leaves no trace, whichever place it has."""
    merge([open_checkpoint(moved), open_checkpoint(tiny_m3)], [0.0, 1.0], tmp_path / "merged")
    expected, found = tensors(tiny_m3), tensors(tmp_path / "merged")
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_models_share_is_not_rounded(tiny_m3, moved, tmp_path):
    """A frozen tensor stays as it is, to the last bit, whatever the weights."""
    given, expected = tensors(moved), tensors(tiny_m3)
    frozen = next(name for name in given if name.endswith("word_embeddings.weight"))
    save_file(given | {frozen: expected[frozen]}, moved / "model.safetensors")
    merge([open_checkpoint(tiny_m3), open_checkpoint(moved)], [0.15, 0.85], tmp_path / "merged")
    found = tensors(tmp_path / "merged")
    assert [name for name in found if np.array_equal(found[name], expected[name])] == [frozen]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "mean"}, r"differ in pooling \(cls and mean\)"),
        ({"query_prefix": "q: ", "fold_case": True}, r"query_prefix \( and q: \), fold_case"),
    ],
)
def test_models_that_read_text_differently_are_refused(tiny_m3, vary, tmp_path, changes, message):
    """What differs is named, and nothing is written."""
    other = vary(**changes)
    with pytest.raises(ConfigError, match=message):
        merge([open_checkpoint(tiny_m3), open_checkpoint(other)], [0.5, 0.5], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_other_tokenizers_and_shapes_are_refused(tiny_m3, golden, tmp_path):
    """Ids must mean the same, and matrices have the same shape."""
    other = tmp_path / "other"
    shutil.copytree(tiny_m3, other)
    (other / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes() + b"\n")
    with pytest.raises(ConfigError, match="differ in tokenizer"):
        merge([open_checkpoint(tiny_m3), open_checkpoint(other)], [0.5, 0.5], tmp_path / "merged")
    wide = open_checkpoint(golden / "pickle")
    with pytest.raises(ConfigError, match="multivector_width"):
        merge([open_checkpoint(tiny_m3), wide], [0.5, 0.5], tmp_path / "merged")


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (1, [1.0], "two models or more"),
        (2, [1.0], "a weight for each"),
        (2, [0.5, 0.6], "the sum 1.1, not 1"),
        (2, [1.5, -0.5], "none may be below 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tiny_m3, tmp_path, count, weights, message):
    """Weights are never stretched to fit."""
    with pytest.raises(ConfigError, match=message):
        merge([open_checkpoint(tiny_m3)] * count, weights, tmp_path / "merged")


def test_the_command_writes_a_model_that_encodes(tiny_m3, moved, tmp_path, capsys):
    """And it does not write into a folder that holds something."""
    line = ["merge", str(tiny_m3), str(moved), "--weights", "0.5,0.5", "--output"]
    with pytest.raises(SystemExit) as exit_:
        cli.main([*line, str(tmp_path / "merged")])
    assert exit_.value.code == 0
    assert "merged into" in capsys.readouterr().out
    encoded = M3Encoder.load(tmp_path / "merged").encode(["a river"], kind="query")
    assert np.isfinite(encoded.dense).all()
    with pytest.raises(SystemExit) as exit_:
        cli.main([*line, str(tmp_path / "merged")])
    assert exit_.value.code == 2
    assert "not empty" in capsys.readouterr().err
