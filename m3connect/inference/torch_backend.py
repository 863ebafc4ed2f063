"""The network on torch: any checkpoint, GPUs, other precisions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import ConfigError
from m3connect.inference.backend import Outputs
from m3connect.inference.precision import Choice, cpu_flags, on_torch
from m3connect.model.checkpoint import Checkpoint
from m3connect.types import Leg

try:
    import torch
except ImportError as error:
    raise ConfigError(
        'this needs torch: pip install "m3connect[torch]", or use a checkpoint with a graph '
        "(--backend onnx)"
    ) from error

from m3connect.model.m3 import M3Model
from m3connect.model.weights import load_model


class TorchBackend:
    """Runs a model on torch.

    Args:
        model: in evaluation mode, on its device and in its precision.
        choice: that precision, and why.
    """

    name = "torch"
    at_once = 1

    def __init__(self, model: M3Model, choice: Choice) -> None:
        self._model = model
        self.choice = choice
        self._device = next(model.parameters()).device
        self.device = str(self._device)
        self._process = os.getpid()
        self.batch_tokens = 1024 if self._device.type == "cpu" else 16384

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: str, dtype: str, threads: int | None) -> Self:
        """Load a checkpoint.

        Args:
            checkpoint: of any layout.
            device: as torch names it; ``auto`` is the first GPU, else the CPU.
            dtype: as torch names it; ``auto`` is float16 on a GPU, see ``precision.py``.
            threads: for the whole process; None leaves it as it is.

        Raises:
            ConfigError: torch does not know the device or precision, or it is not there.
            CheckpointError: a file is missing, broken or misshapen.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        place = _device(device)
        choice = on_torch(
            dtype, device=place.type, measured=checkpoint.config.precisions, flags=cpu_flags()
        )
        model = load_model(checkpoint, dtype=getattr(torch, choice.precision), device=place)
        return cls(model, choice)

    @torch.inference_mode()
    def run(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], legs: Sequence[Leg]
    ) -> Outputs:
        """See :class:`m3connect.inference.backend.Backend`."""
        if os.getpid() != self._process:
            # Forked: the threads that torch waits for stayed behind. On a GPU torch says so itself.
            torch.set_num_threads(1)
            self._process = os.getpid()
        mask = None
        if lengths.min() < ids.shape[1]:
            mask = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None]).to(self._device)
        found = self._model(torch.from_numpy(ids).to(self._device), mask)
        return Outputs(
            _numpy(found.dense.float()) if "dense" in legs else None,
            _numpy(found.sparse.float()) if "sparse" in legs else None,
            _numpy(found.multivector) if "multivector" in legs else None,
        )

    def run_all(
        self, batches: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]], legs: Sequence[Leg]
    ) -> Iterator[Outputs]:
        """See :class:`m3connect.inference.backend.Backend`."""
        return (self.run(ids, lengths, legs) for ids, lengths in batches)


def _numpy(tensor: torch.Tensor) -> Any:
    """To the host; numpy knows no bfloat16."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that CUDA was compiled in
        raise ConfigError(f"device {name!r} cannot be used: {error}") from error
    return device
