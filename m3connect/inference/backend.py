"""What runs the network: ONNX Runtime or torch, here or in other processes, behind one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from m3connect.inference.precision import Choice
from m3connect.model.tokenize import TokenIds
from m3connect.types import FloatArray, Leg, TokenArray


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the network makes of a batch of B texts with T tokens.

    Every token is still there, special tokens included, one text after the other. A representation
    that was not asked for is None.

    Args:
        dense: ``float32 [B, D]``, normalised.
        sparse: ``float32 [T]``, the lexical weight of each token.
        multivector: ``float16 or float32 [T, C]``, the normalised vector of each token.
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

    pads: bool
    """Whether texts are handed over padded to the longest of their batch, see ``batching.py``."""

    @property
    def at_once(self) -> int:
        """Batches that it works on at the same time."""

    def run(self, texts: TokenIds, legs: Sequence[Leg]) -> Outputs:
        """One forward pass.

        Args:
            texts: a batch, at least one text; those of equal length stand together.
            legs: the representations to return.
        """

    def run_all(self, batches: Iterable[TokenIds], legs: Sequence[Leg]) -> Iterator[Outputs]:
        """One forward pass for each batch, in order; read ahead a little.

        Args:
            batches: each as for :meth:`run`.
            legs: the representations to return.
        """
