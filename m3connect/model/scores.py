"""The scores of the M3 paper in torch, differentiable: for losses and for evaluation on a GPU.

``m3connect/searching/scoring.py`` has the same in numpy; a test holds the two equal.

Shapes: B queries, N passages, D dense width, C multi-vector width, L tokens (Lq, Lp).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dense_scores(query_BD: Tensor, passage_ND: Tensor) -> Tensor:
    """Inner products, ``[B, N]``.

    >>> dense_scores(torch.tensor([[0.5, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [[0.5, 1.0]]
    """
    return query_BD @ passage_ND.T


def sparse_scores(
    query_ids_BL: Tensor,
    query_weights_BL: Tensor,
    query_mask_BL: Tensor,
    passage_ids_NL: Tensor,
    passage_weights_NL: Tensor,
    passage_mask_NL: Tensor,
) -> Tensor:
    """``sum of w_qt * w_pt over the terms t of both``, ``[B, N]``.

    A term that occurs again counts with its largest weight. Only the terms that occur in the batch
    take part: nothing of the size of the vocabulary is made.

    Args:
        query_ids_BL, passage_ids_NL: term ids.
        query_weights_BL, passage_weights_NL: a weight for each token, at least 0.
        query_mask_BL, passage_mask_NL: which tokens count.

    >>> ids, weights = torch.tensor([[7, 9, 7]]), torch.tensor([[0.5, 1.0, 0.25]])
    >>> mask = torch.tensor([[True, True, True]])
    >>> sparse_scores(ids, weights, mask, ids, weights, mask).tolist()  # 0.5 * 0.5 + 1.0 * 1.0
    [[1.25]]
    """
    terms = torch.unique(torch.cat([query_ids_BL[query_mask_BL], passage_ids_NL[passage_mask_NL]]))
    query_BT = _term_weights(query_ids_BL, query_weights_BL, query_mask_BL, terms)
    passage_NT = _term_weights(passage_ids_NL, passage_weights_NL, passage_mask_NL, terms)
    return query_BT @ passage_NT.T


def _term_weights(ids_BL: Tensor, weights_BL: Tensor, mask_BL: Tensor, terms_T: Tensor) -> Tensor:
    """The largest weight of each term, ``[B, T]``. One column more takes what does not count."""
    columns = torch.searchsorted(terms_T, ids_BL).masked_fill(~mask_BL, len(terms_T))
    weights = weights_BL.new_zeros(len(ids_BL), len(terms_T) + 1)
    return weights.scatter_reduce(1, columns, weights_BL, "amax")[:, :-1]


def maxsim_scores(
    query_BLC: Tensor, query_mask_BL: Tensor, passage_NLC: Tensor, passage_mask_NL: Tensor
) -> Tensor:
    """The mean over query tokens of the best passage token's inner product, ``[B, N]``.

    Args:
        query_BLC, passage_NLC: token vectors.
        query_mask_BL, passage_mask_NL: which tokens count; at least one in each text.

    >>> query = torch.tensor([[[1.0, 0.0], [9.0, 9.0]]])
    >>> passage = torch.tensor([[[-0.5, 0.0], [-0.25, 1.0], [9.0, 9.0]]])
    >>> masks = torch.tensor([[True, False]]), torch.tensor([[True, True, False]])
    >>> maxsim_scores(query, masks[0], passage, masks[1]).tolist()
    [[-0.25]]
    """
    similarities_BNqp = torch.einsum("bqc,npc->bnqp", query_BLC, passage_NLC)
    hidden = ~passage_mask_NL[None, :, None, :]
    best_BNq = similarities_BNqp.masked_fill(hidden, -math.inf).amax(-1)
    counted = query_mask_BL[:, None, :]
    return (best_BNq * counted).sum(-1) / counted.sum(-1)
