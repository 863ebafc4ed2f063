"""A packed checkpoint is prepared once; what is kept never decides what comes out."""

import os
import shutil

import numpy as np
import pytest

from m3connect import disk
from m3connect.errors import CheckpointError
from m3connect.inference import M3Encoder, onnx_backend
from m3connect.model.hub import resolve

TEXTS = ["The river rises in the hills.", "Der Fluss mündet ins Meer."]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder of the bundled model's own, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    for file in resolve("m3-mini").iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def made(monkeypatch):
    """The weights that were made, by how many tensors."""
    calls = []
    rounded = onnx_backend._rounded
    monkeypatch.setattr(
        onnx_backend, "_rounded", lambda *given: calls.append(given) or rounded(*given)
    )
    return calls


def vectors(model):
    """The dense vectors of the texts in 8 bits."""
    return M3Encoder.load(model, dtype="int8", threads=1).encode(TEXTS).dense


def kept():
    """The folders of prepared models (the tokenizer's is tested in ``tests/model``)."""
    return list((disk.cache_folder() / "models").glob("model-int8-*"))


@pytest.mark.slow
def test_the_second_load_makes_nothing(model, made):
    """It maps what the first one left, and gives the same numbers."""
    first, second = vectors(model), vectors(model)
    assert len(made) == 1
    np.testing.assert_array_equal(first, second)
    assert sorted(file.name for file in kept()[0].iterdir()) == [
        "graph.onnx",
        "made_of.txt",
        "weights",
    ]


@pytest.mark.slow
def test_another_checkpoint_in_its_place_is_prepared_again(model, made):
    """Files that were replaced count, and the old ones are not kept beside them."""
    vectors(model)
    trained = model / "trained.safetensors"
    target = trained.resolve()
    trained.unlink()
    shutil.copy(target, trained)
    os.utime(trained, ns=(1, 1))
    vectors(model)
    assert len(made) == 2
    assert len(kept()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["graph.onnx", "weights"])
def test_what_is_damaged_is_made_again(model, made, caplog, damage):
    """With a warning; the next load is quick again."""
    expected = vectors(model)
    (kept()[0] / damage).write_bytes(b"")
    np.testing.assert_array_equal(vectors(model), expected)
    assert "is made again" in caplog.text
    vectors(model)
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(model, made, tmp_path):
    """The model loads each time anew, and nothing half is left."""
    (tmp_path / "cache").write_text("a file where the folder should be")
    expected = vectors(model)
    np.testing.assert_array_equal(vectors(model), expected)
    assert len(made) >= 2


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_model(model, little_room):
    """What did not fit is removed, and the encoder works."""
    little_room(1_000_000)
    assert vectors(model).shape == (2, 384)
    assert list((disk.cache_folder() / "models").iterdir()) == []


def test_a_graph_of_another_version_is_refused(monkeypatch):
    """It would take other inputs; the message says what to install."""
    monkeypatch.setattr(onnx_backend, "_UNPADDED", ("rows", "attention_mask"))
    with pytest.raises(CheckpointError, match="pip install -U m3connect-m3-mini"):
        M3Encoder.load("m3-mini", threads=1)
