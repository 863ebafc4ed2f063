"""Inputs are smoothed before they are rounded: large ones no longer leave the others little."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from m3connect.errors import CheckpointError
from m3connect.inference import M3Encoder
from m3connect.model import int8, smoothing
from m3connect.model.checkpoint import SMOOTHING, open_checkpoint
from m3connect.model.hub import resolve
from m3connect.model.saving import save_safetensors
from m3connect.model.tensors import tensor_shapes
from m3connect.model.weights import load_model

TEXTS = ["The river rises in the hills.", "Der Fluss mündet ins Meer.", "x", "many words " * 30]


@pytest.fixture
def uneven(tiny_m3, tmp_path):
    """The tiny checkpoint with one large channel between its layers, which the last LayerNorm leaves out."""
    checkpoint = open_checkpoint(tiny_m3)
    tensors = {name: each.clone() for name, each in load_model(checkpoint).tensors().items()}
    for name, tensor in tensors.items():
        if name.endswith("LayerNorm.weight"):
            tensor[3] = 30
        elif int8.smoothing_name(name) and tensor.ndim == 2:
            tensor[:, 3] /= 30
    last = checkpoint.config.body.num_hidden_layers - 1
    for part in ("weight", "bias"):
        tensors[f"encoder.layer.{last}.output.LayerNorm.{part}"][3] = 0
    folder = tmp_path / "uneven"
    shutil.copytree(tiny_m3, folder)
    save_safetensors(tensors, folder / "model.safetensors")
    smoothing.write(load_model(open_checkpoint(folder)), folder)
    return folder


def error(checkpoint):
    """How far the layers' states in 8 bits are from float32's, by what comes of them."""
    low, full = (
        M3Encoder.load(checkpoint, backend="onnx", dtype=dtype).encode(TEXTS).dense
        for dtype in ("int8", "float32")
    )
    return 1 - np.einsum("nd,nd->n", low, full).mean()


def test_a_large_input_leaves_the_others_their_steps(uneven):
    """Without smoothing, rounding costs many times as much."""
    smooth = error(uneven)
    ones = {name: np.ones_like(each) for name, each in load_file(uneven / SMOOTHING).items()}
    save_file(ones, uneven / SMOOTHING)
    assert error(uneven) > 3 * smooth > 0


def test_each_smoothed_matrix_has_one(tiny_m3):
    """Of the width of its inputs, above 0, and the same each time."""
    checkpoint = open_checkpoint(tiny_m3)
    stored = load_file(tiny_m3 / SMOOTHING)
    shapes = tensor_shapes(checkpoint.config)
    wanted = {int8.smoothing_name(name) for name in shapes if len(shapes[name]) == 2} - {None}
    assert set(stored) == wanted
    assert all((each > 0).all() and np.isfinite(each).all() for each in stored.values())
    again = smoothing.find(load_model(checkpoint))
    for name, values in again.items():
        np.testing.assert_array_equal(stored[name], values)
        assert values.shape == (checkpoint.config.body.hidden_size,)


def test_a_graph_without_its_smoothing_is_an_error(vary):
    """Nothing is made up for a file that was lost on the way."""
    folder = vary()
    (folder / SMOOTHING).unlink()
    with pytest.raises(CheckpointError, match=r"graph\.int8\.onnx cannot be opened.*smoothing"):
        M3Encoder.load(folder, dtype="int8")
    M3Encoder.load(folder, backend="onnx", dtype="float32")


@pytest.mark.slow
def test_the_bundled_smoothing_is_of_the_bundled_weights():
    """``int8.safetensors`` in the package is what the code finds today."""
    checkpoint = open_checkpoint(resolve("m3-mini"))
    stored = load_file(checkpoint.path / SMOOTHING)
    found = smoothing.find(load_model(checkpoint))
    assert found.keys() == stored.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, stored[name], rtol=1e-3)
