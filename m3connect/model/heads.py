"""From hidden states to the three representations (M3 paper, section 3.2).

Shapes: B texts, L tokens, H hidden width, C multi-vector width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Representations(NamedTuple):
    """What the model makes of a batch. Every token is there; the masks say which ones count.

    Args:
        dense: ``[B, H]``, normalised.
        sparse: ``[B, L]``, the lexical weight of each token, at least 0.
        multivector: ``[B, L, C]``, the vector of each token, normalised.
    """

    dense: Tensor
    sparse: Tensor
    multivector: Tensor


class Heads(nn.Module):
    """Pooling, the lexical head and the multi-vector head. The names are the published ones.

    Args:
        hidden_size: H.
        multivector_width: C.
        pooling: how the dense vector is made.
    """

    def __init__(
        self, hidden_size: int, multivector_width: int, pooling: Literal["cls", "mean"]
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.sparse_linear = nn.Linear(hidden_size, 1)
        self.colbert_linear = nn.Linear(hidden_size, multivector_width)

    def forward(self, states: Tensor, mask: Tensor | None) -> Representations:
        """``[B, L, H]`` to the three; ``mask`` is ``bool [B, L]``, None without padding."""
        dense = F.normalize(self.pool(states, mask), dim=-1)
        return Representations(dense, self.lexical(states), self.vectors(states))

    def lexical(self, states: Tensor) -> Tensor:
        """``[..., H]`` to ``[...]``, the lexical weight of each token."""
        return F.relu(self.sparse_linear(states)).squeeze(-1)

    def vectors(self, states: Tensor) -> Tensor:
        """``[..., H]`` to ``[..., C]``, the vector of each token."""
        return F.normalize(self.colbert_linear(states), dim=-1)

    def pool(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """``[B, H]``: the first state, or the mean of the tokens' states."""
        if self.pooling == "cls":
            return states[:, 0]
        if mask is None:
            return states.mean(1)
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def content_masks(
    ids: Tensor, mask: Tensor, leading: int, special_ids: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Which tokens count for the lexical weights, and which for the multi-vector.

    Args:
        ids: ``[B, L]``.
        mask: ``bool [B, L]``, true for tokens.
        leading: tokens before the text itself (first special token and prefix).
        special_ids: ids without a lexical weight.

    Returns:
        two ``bool [B, L]``. The end token counts for the multi-vector, not for the weights.

    >>> ids = torch.tensor([[0, 9, 2, 1]])
    >>> lexical, vectors = content_masks(ids, ids != 1, 1, (0, 1, 2, 3))
    >>> lexical.tolist(), vectors.tolist()
    ([[False, True, False, False]], [[False, True, True, False]])
    """
    vectors = mask.clone()
    vectors[:, :leading] = False
    special = torch.isin(ids, torch.tensor(special_ids, device=ids.device))
    return vectors & ~special, vectors
