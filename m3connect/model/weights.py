"""A checkpoint's tensors into torch.

Every tensor is converted once, from the stored precision to the wanted one. A tensor that is missing
or misshapen is an error, never random.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from m3connect.errors import CheckpointError
from m3connect.model.checkpoint import Checkpoint, read_packed
from m3connect.model.config import M3Config
from m3connect.model.m3 import M3Model
from m3connect.model.published import read_published, read_tensors
from m3connect.model.tensors import HEADS, tensor_shapes


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> M3Model:
    """A checkpoint as a torch model in evaluation mode.

    Raises:
        CheckpointError: a file is missing or broken, or a tensor is missing or misshapen.
    """
    stored = read_stored(checkpoint)
    tensors = {}
    for name, shape in tensor_shapes(checkpoint.config).items():
        where = f"{_file_of(name, checkpoint)}: tensor {name}"
        if name not in stored:
            raise CheckpointError(f"{where} {list(shape)} is missing")
        tensor = torch.as_tensor(stored[name])
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{where} is {list(tensor.shape)}, expected {list(shape)}")
        tensors[name] = tensor.to(device, dtype)
    return model_of(checkpoint.config, tensors)


def model_of(config: M3Config, tensors: Mapping[str, torch.Tensor]) -> M3Model:
    """A torch model in evaluation mode, with these tensors, by their published names, as weights."""
    with torch.device("meta"):
        model = M3Model(config)
    model.load_tensors(tensors)
    return model.eval()


def _file_of(name: str, checkpoint: Checkpoint) -> Path:
    """Where to look for a tensor: a head's own file, else the folder."""
    head = name.partition(".")[0]
    own = checkpoint.layout == "bge-m3" and head in HEADS
    return checkpoint.path / f"{head}.pt" if own else checkpoint.path


def read_stored(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The stored tensors by name: torch tensors mapped from the file, numpy arrays when packed."""
    if checkpoint.layout == "packed":
        return read_packed(checkpoint)
    if checkpoint.layout == "m3":
        return read_tensors(checkpoint.path / "model.safetensors")
    return read_published(checkpoint.path)
