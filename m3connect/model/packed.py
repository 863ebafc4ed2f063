"""Matrices in blocks of 4 bits, and the layout of a packed checkpoint.

A block is 32 neighbours of a row in 18 bytes: a float16 scale d and 16 bytes; byte j holds weight
j in its low half and weight j + 16 in its high half; a weight is ``(half - 8) * d``. (Known as
Q4_0.) A matrix ``[R, C]`` is stored as ``uint8 [R, C / 32, 18]``.

A packed checkpoint has its tensors in two files:

- ``base.safetensors``, frozen: matrices in blocks, everything else in float32;
- ``trained.safetensors``, small, replaced by training: a tensor in blocks is a *difference* to the
  base's matrix, any other tensor replaces the base's. (Training moves a weight by less than the
  base's 4-bit steps: a trained matrix in blocks would round the gain away, its difference does
  not.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3connect.types import FloatArray

BLOCK = 32
BLOCK_BYTES = 18

Blocks = NDArray[np.uint8]


def is_packed(tensor: NDArray[Any]) -> bool:
    """Whether a stored tensor is a matrix in blocks."""
    return tensor.dtype == np.uint8 and tensor.ndim == 3 and tensor.shape[2] == BLOCK_BYTES


def unpack(blocks: Blocks) -> FloatArray:
    """Blocks ``uint8 [R, C / 32, 18]`` to a matrix ``float32 [R, C]``."""
    rows, count, _ = blocks.shape
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16).astype(np.float32)
    halves = blocks[:, :, 2:]
    matrix = np.empty((rows, count, BLOCK), np.float32)
    matrix[:, :, : BLOCK // 2] = halves & 15
    matrix[:, :, BLOCK // 2 :] = halves >> 4
    matrix -= 8
    matrix *= scales
    return matrix.reshape(rows, count * BLOCK)


def pack(matrix: FloatArray) -> Blocks:
    """A matrix ``[R, C]``, C a multiple of 32, to blocks; each weight moves by at most one scale."""
    rows, columns = matrix.shape
    groups = matrix.astype(np.float32).reshape(rows, columns // BLOCK, BLOCK)
    largest = np.abs(groups).argmax(axis=2)[:, :, None]
    # The largest weight becomes half 0, that is -8 d: its sign is free to use the longer side.
    scales = (np.take_along_axis(groups, largest, axis=2) / -8).astype(np.float16)
    steps = scales.astype(np.float32)
    quotients = np.divide(groups, steps, out=np.zeros_like(groups), where=steps != 0)
    halves = np.clip(np.floor(quotients + 8.5), 0, 15).astype(np.uint8)
    pairs = halves[:, :, : BLOCK // 2] | halves[:, :, BLOCK // 2 :] << 4
    return np.concatenate([scales.view(np.uint8), pairs], axis=2)


class PackedTensors(Mapping[str, NDArray[Any]]):
    """The whole tensors of a packed checkpoint, unpacked when asked for.

    Args:
        base: the stored tensors of the frozen part.
        trained: the stored tensors of the trained part.
    """

    def __init__(
        self, base: Mapping[str, NDArray[Any]], trained: Mapping[str, NDArray[Any]]
    ) -> None:
        self.base = base
        self.trained = trained

    def __getitem__(self, name: str) -> NDArray[Any]:
        trained = self.trained.get(name)
        if trained is not None and not is_packed(trained):
            return trained
        base = self.base[name]
        tensor = unpack(base) if is_packed(base) else base
        return tensor if trained is None else tensor + unpack(trained)

    def __iter__(self) -> Iterator[str]:
        return iter({**self.base, **self.trained})

    def __len__(self) -> int:
        return len({**self.base, **self.trained})

    def rows(self, name: str, ids: NDArray[Any]) -> FloatArray:
        """Some rows of an untrained matrix, in the shape ``[*ids.shape, C]``.

        Only these are unpacked, each once: a large table never exists in full.
        """
        unique, inverse = np.unique(ids, return_inverse=True)
        return unpack(self.base[name][unique])[inverse.reshape(ids.shape)]


def differences(
    base: Mapping[str, NDArray[Any]], tensors: Mapping[str, FloatArray]
) -> dict[str, NDArray[Any]]:
    """The trained part of a packed checkpoint: matrices as differences in blocks, the rest float16.

    Args:
        base: the stored tensors of the frozen part.
        tensors: the trained tensors by name, whole.
    """
    return {
        name: pack(tensor - unpack(base[name]))
        if name in base and is_packed(base[name])
        else tensor.astype(np.float16)
        for name, tensor in tensors.items()
    }
