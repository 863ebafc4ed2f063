"""What an encoder made of texts, kept for whoever asks for it again: frameworks ask twice."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from m3connect.contract import Encoder, Kind
from m3connect.types import LEGS, Embeddings, Leg


class Remembered:
    """An encoder that keeps what it made last. Any threads may use it at once; a copy begins empty.

    Args:
        encoder: the model.
        most_bytes: of texts and embeddings that are kept; the oldest go first.
        legs: the representations to make.
    """

    def __init__(self, encoder: Encoder, most_bytes: int, legs: Sequence[Leg] = LEGS) -> None:
        self.encoder = encoder
        self.most_bytes = most_bytes
        self.legs = tuple(legs)
        self._lock = threading.Lock()  # of the next two
        self._kept: OrderedDict[tuple[Kind, str], Embeddings] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[type[Remembered], tuple[Encoder, int, tuple[Leg, ...]]]:
        return Remembered, (self.encoder, self.most_bytes, self.legs)

    @property
    def kept_bytes(self) -> int:
        """What is kept now, in bytes."""
        return self._bytes

    def encode(self, texts: Sequence[str], kind: Kind) -> list[Embeddings]:
        """One batch of one for each text; what is not kept is encoded now, each text once."""
        unlike = dict.fromkeys(texts)
        with self._lock:
            found = {text: self._kept[kind, text] for text in unlike if (kind, text) in self._kept}
        new = [text for text in unlike if text not in found]
        if new:
            made = self.encoder.encode(new, kind=kind, legs=self.legs)
            for row, text in enumerate(new):  # copies: a view would keep the whole batch alive
                found[text] = made.take(np.array([row]))
            with self._lock:
                for text in new:
                    self._keep((kind, text), found[text])
        return [found[text] for text in texts]

    def forget(self, texts: Iterable[str], kind: Kind) -> None:
        """Keep these no longer."""
        with self._lock:
            for text in texts:
                self._drop((kind, text))

    def _keep(self, key: tuple[Kind, str], embedding: Embeddings) -> None:
        self._drop(key)
        self._kept[key] = embedding
        self._bytes += _size(key, embedding)
        while self._bytes > self.most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[Kind, str]) -> None:
        if (embedding := self._kept.pop(key, None)) is not None:
            self._bytes -= _size(key, embedding)


def _size(key: tuple[Kind, str], embedding: Embeddings) -> int:
    return sys.getsizeof(key[1]) + embedding.nbytes
