"""The files of the published layout of BAAI/bge-m3: a body, and each head in a file of its own.

Pickled files are read with ``weights_only``. Knows nothing of configurations, so that opening a
checkpoint and loading its weights may both look into these files.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from m3connect.errors import CheckpointError
from m3connect.model.tensors import HEADS

_TASK_PREFIXES = ("roberta.", "bert.")
"""Put before the body's names by transformers where the model was saved with a head of its own."""


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors of the published layout: the body's file and the two heads'.

    Raises:
        CheckpointError: a file is missing or broken; a head is never made up.
    """
    bodies = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
    body = next((file for file in bodies if file.is_file()), None)
    if body is None:
        raise CheckpointError(f"{path} holds neither {bodies[0].name} nor {bodies[1].name}")
    tensors = {_published_name(name): tensor for name, tensor in read_tensors(body).items()}
    for head in HEADS:
        file = path / f"{head}.pt"
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing: without it this is no M3 checkpoint, and the head is not made up"
            )
        stored = read_tensors(file)
        if stored.keys() != {"weight", "bias"}:
            raise CheckpointError(f"{file} holds {sorted(stored)}, expected weight and bias")
        tensors |= {f"{head}.{name}": tensor for name, tensor in stored.items()}
    return tensors


def _published_name(name: str) -> str:
    for prefix in _TASK_PREFIXES:
        name = name.removeprefix(prefix)
    return name


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file, mapped rather than read where the format allows.

    Raises:
        CheckpointError: the file is missing or broken.
    """
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
