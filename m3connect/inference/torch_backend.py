"""The network on torch: any checkpoint, GPUs, other precisions.

Texts run end to end, without padding (``model/ragged.py``). On a GPU a batch is copied out while the next
one is computed.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import ConfigError
from m3connect.inference.backend import Outputs
from m3connect.inference.batching import halves
from m3connect.inference.precision import Choice, cpu_flags, on_torch
from m3connect.model.checkpoint import Checkpoint
from m3connect.model.tokenize import TokenIds
from m3connect.types import Leg

try:
    import torch
except ImportError as error:
    raise ConfigError(
        'this needs torch: pip install "m3connect[torch]", or use a checkpoint with a graph '
        "(--backend onnx)"
    ) from error

from m3connect.model.m3 import M3Model
from m3connect.model.ragged import RaggedTexts, represent
from m3connect.model.weights import load_model

_OUT_OF_MEMORY = (torch.cuda.OutOfMemoryError, MemoryError)

_log = logging.getLogger(__name__)


class TorchBackend:
    """Runs a model on torch.

    A batch that memory does not hold is done in halves, and no later batch is larger than they were.

    Args:
        model: in evaluation mode, on its device and in its precision.
        choice: that precision, and why.
    """

    name = "torch"
    at_once = 1
    pads = False

    def __init__(self, model: M3Model, choice: Choice) -> None:
        self._model = model
        self.choice = choice
        self._device = next(model.parameters()).device
        self.device = str(self._device)
        self._process = os.getpid()
        self.batch_tokens = 1024 if self._device.type == "cpu" else 16384
        self._most = sys.maxsize  # tokens that memory holds, as far as is known

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

    def run(self, texts: TokenIds, legs: Sequence[Leg]) -> Outputs:
        """See :class:`m3connect.inference.backend.Backend`.

        Raises:
            ConfigError: memory does not hold half of the texts, or one alone.
        """
        return _joined(self._passes(texts, legs))

    def run_all(self, batches: Iterable[TokenIds], legs: Sequence[Leg]) -> Iterator[Outputs]:
        """See :class:`m3connect.inference.backend.Backend`; raises as :meth:`run`."""
        ahead = 1 if self._device.type == "cuda" else 0
        started: deque[list[_Leaving]] = deque()
        for texts in batches:
            started.append(self._passes(texts, legs))
            if len(started) > ahead:
                yield _joined(started.popleft())
        yield from map(_joined, started)

    def _passes(
        self, texts: TokenIds, legs: Sequence[Leg], *, may_halve: bool = True
    ) -> list[_Leaving]:
        """Start a batch: in one forward pass, or in as many as memory needs."""
        size = len(texts.ids)
        if size <= self._most or len(texts) == 1:
            try:
                return [self._forward(texts, legs)]
            except _OUT_OF_MEMORY as error:
                if len(texts) == 1 or not may_halve:
                    raise ConfigError(
                        f"{self.device} is out of memory with {len(texts)} texts, {size} tokens: "
                        "take a smaller --batch-tokens or --max-length"
                    ) from error
            # Not within "except": the error holds on to what the pass had allocated.
            self._most = size // 2
            may_halve = False
            _log.warning(
                "%s is out of memory with %d tokens; from now on a batch has at most %d",
                self.device,
                size,
                self._most,
            )
        parts = [texts.take(half) for half in halves(texts.lengths)]
        return [
            forward for part in parts for forward in self._passes(part, legs, may_halve=may_halve)
        ]

    def _forward(self, texts: TokenIds, legs: Sequence[Leg]) -> _Leaving:
        if os.getpid() != self._process:
            # Forked: the threads that torch waits for stayed behind. On a GPU torch says so itself.
            torch.set_num_threads(1)
            self._process = os.getpid()
        ids, offsets = self._arriving(texts.ids), self._arriving(texts.offsets)
        marks = None
        if texts.marks is not None:
            counts = np.add.reduceat(texts.marks, texts.offsets[:-1], dtype=np.int64)
            marks = self._arriving(np.flatnonzero(texts.marks)), self._arriving(counts)
        ragged = RaggedTexts(ids, offsets, texts.lengths.tolist(), marks)
        # The fastest way to do without gradients does not know nested tensors.
        nested = self._device.type == "cuda"
        with torch.no_grad() if nested else torch.inference_mode():
            return _Leaving(represent(self._model, ragged, legs))

    def _arriving(self, array: NDArray[np.int64]) -> torch.Tensor:
        """On the device, without waiting for it."""
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


class _Leaving:
    """Representations on their way from the device, which works on meanwhile."""

    def __init__(self, tensors: Mapping[Leg, torch.Tensor]) -> None:
        self._host = {leg: _host(_readable(leg, tensor)) for leg, tensor in tensors.items()}
        self._copied: torch.cuda.Event | None = None
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            self._copied = torch.cuda.current_stream(device).record_event()

    def arrays(self) -> dict[Leg, NDArray[Any]]:
        """What arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        return {leg: tensor.numpy() for leg, tensor in self._host.items()}


def _readable(leg: Leg, tensor: torch.Tensor) -> torch.Tensor:
    """In float32; token vectors also in float16, which halves what is copied."""
    return tensor if leg == "multivector" and tensor.dtype == torch.float16 else tensor.float()


def _host(tensor: torch.Tensor) -> torch.Tensor:
    """Start copying to the host: from CUDA into pinned memory, which does not wait."""
    if not tensor.is_cuda:
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _joined(passes: Sequence[_Leaving]) -> Outputs:
    """A batch of the passes that it took."""
    parts = [leaving.arrays() for leaving in passes]
    whole = parts[0]
    if len(parts) > 1:
        whole = {leg: np.concatenate([part[leg] for part in parts]) for leg in whole}
    return Outputs(whole.get("dense"), whole.get("sparse"), whole.get("multivector"))


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
