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

    Content is what a text gets weights and token vectors for: all but padding, the first special
    token and the prefix. Arrays are made once, at their final size.

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
        self.leading = leading
        self.special_ids = config.special_ids
        self.offsets = np.concatenate([[0], np.cumsum(tokens.lengths - leading)])
        total = int(self.offsets[-1])
        self.terms = np.empty(total, np.int64)
        self.dense: FloatArray | None = None
        self.weights: FloatArray | None = None
        self.vectors: TokenArray | None = None
        if "dense" in legs:
            self.dense = np.empty((len(tokens), config.dense_width), np.float32)
        if "sparse" in legs:
            self.weights = np.empty(total, np.float32)
        if "multivector" in legs:
            self.vectors = np.empty((total, config.multivector_width), multivector_dtype)

    def put(self, rows: NDArray[np.intp], ids: NDArray[np.int64], outputs: Outputs) -> None:
        """Write a batch: ``rows`` are its texts' positions, ``ids`` their tokens ``[B, L]``."""
        # A row of 5 tokens in a batch 7 wide, one leading mark; the text's rows begin at offset 40:
        #
        #   column     0    1   2   3   4    5    6
        #   token      <s>  a   b   c  </s>  pad  pad
        #   content    -    x   x   x   x    -    -
        #   place           40  41  42  43
        columns = np.arange(ids.shape[1])
        content = (columns >= self.leading) & (columns < self.tokens.lengths[rows, None])
        places = (self.offsets[:-1][rows, None] + columns - self.leading)[content]
        self.terms[places] = ids[content]
        if self.dense is not None:
            self.dense[rows] = outputs.dense
        if self.weights is not None and outputs.sparse is not None:
            self.weights[places] = outputs.sparse[content]
        if self.vectors is not None and outputs.multivector is not None:
            self.vectors[places] = outputs.multivector[content]

    def embeddings(self, fold: CaseFolding | None) -> Embeddings:
        """Everything that was put."""
        return Embeddings(
            self.dense,
            None if self.weights is None else self._sparse(self.weights, fold),
            None if self.vectors is None else MultiVectors(self.offsets, self.vectors),
            self.tokens.lengths.astype(np.int32),
            self.tokens.truncated,
        )

    def _sparse(self, weights: FloatArray, fold: CaseFolding | None) -> SparseVectors:
        weights = np.where(np.isin(self.terms, self.special_ids), 0, weights)
        terms = self.terms if fold is None else fold(self.terms).astype(np.int64)
        rows = np.repeat(np.arange(len(self.tokens)), np.diff(self.offsets))
        return lexical_weights(rows, terms, weights, len(self.tokens))
