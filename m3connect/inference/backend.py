"""What runs the network: ONNX Runtime or torch, here or in other processes, behind one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from m3connect.inference.precision import Choice
from m3connect.types import FloatArray, Leg, TokenArray


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the network makes of a padded batch of B texts and L tokens.

    Every token is still there, padding and special tokens included. A representation that was
    not asked for is None.

    Args:
        dense: ``float32 [B, D]``, normalised.
        sparse: ``float32 [B, L]``, the lexical weight of each token.
        multivector: ``float16 or float32 [B, L, C]``, the normalised vector of each token.
    """

    dense: FloatArray | None
    sparse: FloatArray | None
    multivector: TokenArray | None


class Backend(Protocol):
    """A loaded network."""

    name: str
    """``onnx`` or ``torch``."""

    device: str

    choice: Choice
    """The precision in which it computes, and why."""

    batch_tokens: int
    """The token budget of a batch that suits the device."""

    @property
    def at_once(self) -> int:
        """Batches that it works on at the same time."""

    def run(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], legs: Sequence[Leg]
    ) -> Outputs:
        """One forward pass.

        Args:
            ids: ``[B, L]`` token ids, padded on the right.
            lengths: ``[B]`` tokens of each text; at least 1, the largest is L.
            legs: the representations to return.
        """

    def run_all(
        self, batches: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]], legs: Sequence[Leg]
    ) -> Iterator[Outputs]:
        """One forward pass for each batch, in order; read ahead a little.

        Args:
            batches: ``ids`` and ``lengths`` of each, as for :meth:`run`.
            legs: the representations to return.
        """
