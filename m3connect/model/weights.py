"""A checkpoint's tensors into torch.

Every tensor is converted once, from the stored precision to the wanted one. Pickled files are read
with ``weights_only``. A tensor that is missing or misshapen is an error, never random.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from m3connect.errors import CheckpointError
from m3connect.model.checkpoint import Checkpoint, read_packed
from m3connect.model.m3 import M3Model
from m3connect.model.tensors import HEADS, tensor_shapes

_TASK_PREFIXES = ("roberta.", "bert.")
"""Put before the body's names by transformers where the model was saved with a head of its own."""


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
    with torch.device("meta"):
        model = M3Model(checkpoint.config)
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
        return _read(checkpoint.path / "model.safetensors")
    return read_published(checkpoint.path)


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors of the published layout: the body's file and the two heads'.

    Raises:
        CheckpointError: a file is missing or broken; a head is never made up.
    """
    bodies = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
    body = next((file for file in bodies if file.is_file()), None)
    if body is None:
        raise CheckpointError(f"{path} holds neither {bodies[0].name} nor {bodies[1].name}")
    tensors = {_published_name(name): tensor for name, tensor in _read(body).items()}
    for head in HEADS:
        file = path / f"{head}.pt"
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing: without it this is no M3 checkpoint, and the head is not made up"
            )
        found = _read(file)
        if found.keys() != {"weight", "bias"}:
            raise CheckpointError(f"{file} holds {sorted(found)}, expected weight and bias")
        tensors |= {f"{head}.{name}": tensor for name, tensor in found.items()}
    return tensors


def _published_name(name: str) -> str:
    for prefix in _TASK_PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _read(file: Path) -> dict[str, Tensor]:
    """All tensors of a file, mapped rather than read where the format allows."""
    tensors: dict[str, Tensor]
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            mmap = zipfile.is_zipfile(file)
            tensors = torch.load(file, weights_only=True, map_location="cpu", mmap=mmap)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    return tensors
