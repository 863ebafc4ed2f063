"""The batches' outputs become the embeddings of all texts, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3connect.inference.backend import Outputs
from m3connect.inference.lexical import lexical_weights
from m3connect.model.config import M3Config
from m3connect.model.folding import CaseFolding
from m3connect.model.tokenize import TokenIds
from m3connect.types import Embeddings, FloatArray, Leg, MultiVectors, SparseVectors, TokenArray


class Assembly:
    """Where the outputs of the batches come together, in the order of the texts.

    Content is what a text gets weights and token vectors for: all but the first special token and
    the prefix. Arrays are made once, at their final size.

    Args:
        config: widths and special ids.
        tokens: all texts.
        leading: tokens before the text itself.
        legs: the representations to keep.
        multivector_dtype: how token vectors are kept.
    """

    def __init__(
        self,
        config: M3Config,
        tokens: TokenIds,
        leading: int,
        legs: Sequence[Leg],
        multivector_dtype: np.dtype[Any],
    ) -> None:
        self.tokens = tokens
        self.special_ids = config.special_ids
        # Two texts of 5 and 3 tokens, one leading mark:
        #
        #   token      <s>  a   b   c  </s> <s>  d  </s>
        #   content    -    x   x   x   x    -   x   x
        #   place           0   1   2   3        4   5
        self.content = tokens.content(leading)
        self.places = np.cumsum(self.content) - 1
        self.owners = np.arange(len(tokens)) if tokens.owners is None else tokens.owners
        self.rows = np.repeat(self.owners, tokens.lengths)[self.content]
        self.terms = tokens.ids[self.content]
        total = len(self.terms)
        self.dense: FloatArray | None = None
        self.weights: FloatArray | None = None
        self.vectors: TokenArray | None = None
        if "dense" in legs:
            self.dense = np.empty((len(tokens), config.dense_width), np.float32)
        if "sparse" in legs:
            self.weights = np.empty(total, np.float32)
        if "multivector" in legs:
            self.vectors = np.empty((total, config.multivector_width), multivector_dtype)

    def terms_of_texts(self) -> list[NDArray[np.int64]]:
        """The content tokens of each text, in order."""
        if not self.tokens.texts:  # which numpy makes one empty piece of
            return []
        return np.split(self.terms, np.searchsorted(self.rows, np.arange(1, self.tokens.texts)))

    def put(self, rows: NDArray[np.intp], outputs: Outputs) -> None:
        """Write a batch; ``rows`` are its texts' positions, in its order."""
        positions = self.tokens.positions(rows)
        kept = np.flatnonzero(self.content[positions])
        places = self.places[positions[kept]]
        if self.dense is not None:
            self.dense[rows] = outputs.dense
        if self.weights is not None and outputs.sparse is not None:
            self.weights[places] = outputs.sparse[kept]
        if self.vectors is not None and outputs.multivector is not None:
            self.vectors[places] = outputs.multivector[kept]

    def embeddings(self, fold: CaseFolding | None) -> Embeddings:
        """Everything that was put, a row for each text.

        Of several windows it is the mean dense vector, each term's largest weight, and the token
        vectors of all.
        """
        count = self.tokens.texts
        starts = np.searchsorted(self.owners, np.arange(count))
        offsets = np.searchsorted(self.rows, np.arange(count + 1))
        return Embeddings(
            None if self.dense is None else _means(self.dense, starts),
            None if self.weights is None else self._sparse(self.weights, fold),
            None if self.vectors is None else MultiVectors(offsets, self.vectors),
            _totals(self.tokens.lengths, starts).astype(np.int32),
            self.tokens.truncated[starts],
        )

    def _sparse(self, weights: FloatArray, fold: CaseFolding | None) -> SparseVectors:
        weights = np.where(np.isin(self.terms, self.special_ids), 0, weights)
        terms = self.terms if fold is None else fold(self.terms).astype(np.int64)
        return lexical_weights(self.rows, terms, weights, self.tokens.texts)


def _totals(values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[Any]:
    """The sum of each text's windows; texts begin at ``starts``, and each has one or more."""
    return values if len(starts) == len(values) else np.add.reduceat(values, starts)


def _means(dense: FloatArray, starts: NDArray[np.int64]) -> FloatArray:
    """The mean direction of each text's windows."""
    if len(starts) == len(dense):
        return dense
    sums = _totals(dense, starts)
    means: FloatArray = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return means
