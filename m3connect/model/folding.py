"""Case folding of term ids: a piece counts as its lower-case twin, where the vocabulary has one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3connect.model.pieces import AnyTokenizer

_UNSEEN = np.iinfo(np.uint32).max


class CaseFolding:
    """Maps term ids to the ids of their lower-case twins.

    The table fills as ids are seen: making it whole would cost every start half a second.

    Args:
        tokenizer: whose vocabulary the ids belong to.
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self._tokenizer = tokenizer
        self._table = np.full(tokenizer.get_vocab_size(), _UNSEEN, np.uint32)

    def __call__(self, ids: NDArray[Any]) -> NDArray[np.uint32]:
        """The folded ids, in the shape of ``ids``."""
        folded: NDArray[np.uint32] = self._table[ids]
        unseen = folded == _UNSEEN
        if unseen.any():
            for id_ in np.unique(ids[unseen]).tolist():
                self._table[id_] = self._twin(id_)
            folded = self._table[ids]
        return folded

    def _twin(self, id_: int) -> int:
        piece = self._tokenizer.id_to_token(id_)
        twin = None if piece is None else self._tokenizer.token_to_id(piece.lower())
        return id_ if twin is None else twin
