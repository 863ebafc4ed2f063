"""Changes to a model before it is trained: heads that start anew, and more positions.

A random lexical head has dead weights and spoils the first thousands of steps (the paper gives it a
loss weight of 0.1 for that). A regression on inverse document frequency costs one pass over some
hundred texts and starts it useful.

T token states, H hidden width, C multi-vector width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from m3connect.model.m3 import M3Model
from m3connect.training.collate import Texts
from m3connect.training.recipe import ModelTable

_RAREST = 0.4
"""Weight of the rarest term: lexical scores then begin in the range of the other two."""
_RIDGE = 1e-3


def start_heads(model: M3Model, table: ModelTable, passages: Iterable[Texts]) -> None:
    """Set the heads that the recipe starts anew.

    Args:
        model: its encoder is ready; it is left in evaluation mode.
        table: says which heads.
        passages: batches from the training data; read only if a head needs them.
    """
    model.eval()
    if table.multivector_head == "identity":
        hidden = model.config.body.hidden_size
        set_multivector_head(model, torch.eye(hidden), torch.zeros(hidden))
    width = table.multivector_width or model.config.multivector_width
    narrower = width < model.config.multivector_width
    if table.sparse_head == "keep" and not narrower:
        return
    states_TH, rarities_T = sample_states(model, passages)
    if table.sparse_head == "ridge":
        weight_H, bias = ridge(states_TH, rarities_T)
        with torch.no_grad():
            model.heads.sparse_linear.weight.copy_(_RAREST * weight_H[None])
            model.heads.sparse_linear.bias.copy_(_RAREST * bias[None])
    if narrower:
        narrow_multivector_head(model, states_TH, width)


def shape_heads(model: M3Model, table: ModelTable) -> None:
    """Give heads the widths that :func:`start_heads` gives them; a checkpoint's weights follow."""
    hidden = model.config.body.hidden_size
    width = table.multivector_width or (
        hidden if table.multivector_head == "identity" else model.config.multivector_width
    )
    set_multivector_head(model, torch.zeros(width, hidden), torch.zeros(width))


@torch.no_grad()
def sample_states(model: M3Model, passages: Iterable[Texts]) -> tuple[Tensor, Tensor]:
    """Last hidden states ``[T, H]`` of lexical tokens, and the rarity ``[T]`` of their terms.

    Rarity is BM25's inverse document frequency among these passages, 1 for a term of one passage.
    """
    states, terms, documents = [], [], []
    count = 0
    for texts in passages:
        states.append(model.backbone(texts.ids, texts.mask)[texts.lexical])
        terms.append(texts.terms[texts.lexical])
        rows = torch.arange(len(texts), device=texts.ids.device) + count
        documents.append(rows[:, None].expand_as(texts.ids)[texts.lexical])
        count += len(texts)
    term_ids, columns_T = torch.unique(torch.cat(terms), return_inverse=True)
    pairs = torch.unique(torch.stack([columns_T, torch.cat(documents)]), dim=1)
    frequencies = torch.bincount(pairs[0], minlength=len(term_ids)).double()
    rarities = torch.log(1 + (count - frequencies + 0.5) / (frequencies + 0.5))
    most = torch.log(torch.tensor(1 + (count - 0.5) / 1.5, dtype=torch.float64))
    states_TH = torch.cat(states)
    return states_TH, (rarities / most)[columns_T].to(states_TH.dtype)


def ridge(states_TH: Tensor, values_T: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``[H]`` and bias of the ridge regression of values on states.

    >>> states = torch.tensor([[0.0], [1.0], [2.0]])
    >>> weight, bias = ridge(states, torch.tensor([1.0, 3.0, 5.0]))
    >>> round(weight.item(), 2), round(bias.item(), 2)
    (2.0, 1.0)
    """
    mean_H, mean = states_TH.mean(0), values_T.mean()
    centred_TH = states_TH - mean_H
    moments_HH = centred_TH.T @ centred_TH / len(states_TH)
    size = _RIDGE * moments_HH.diagonal().mean()
    moments_HH += size * torch.eye(len(mean_H), dtype=size.dtype, device=size.device)
    weight_H = torch.linalg.solve(moments_HH, centred_TH.T @ (values_T - mean) / len(states_TH))
    return weight_H, mean - weight_H @ mean_H


@torch.no_grad()
def narrow_multivector_head(model: M3Model, states_TH: Tensor, width: int) -> None:
    """Project the head's output onto the principal axes of its vectors, not centred.

    Inner products of token vectors lose as little as a projection of this width can lose.
    """
    head = model.heads.colbert_linear
    vectors_TC = nn.functional.normalize(head(states_TH), dim=-1)
    _, axes_CC = torch.linalg.eigh(vectors_TC.T @ vectors_TC)
    axes_KC = axes_CC[:, -width:].flip(1).T
    set_multivector_head(model, axes_KC @ head.weight, axes_KC @ head.bias)


def set_multivector_head(model: M3Model, weight_CH: Tensor, bias_C: Tensor) -> None:
    """Give the model a multi-vector head, of another width where need be."""
    width, hidden = weight_CH.shape
    head = nn.Linear(hidden, width)
    head.load_state_dict({"weight": weight_CH, "bias": bias_C})
    model.heads.colbert_linear = head.to(model.heads.colbert_linear.weight)
    model.config = model.config.model_copy(update={"multivector_width": width})


# ------------------------------------------------------------------------------------- positions


@torch.no_grad()
def extend_positions(model: M3Model, max_length: int) -> None:
    """Let the model take texts of ``max_length`` tokens.

    New positions begin as copies of the old ones, over and over: position i of the longer model is
    position i mod n of the old one, n being its number. A token then sees its near neighbours as it
    always did, and training teaches the far ones apart (Beltagy et al. 2020, section 5,
    https://arxiv.org/abs/2004.05150). The M3 paper extends to 8192 and does not say how.

    Args:
        model: changed in place; nothing happens where its positions suffice.
        max_length: tokens, special ones included.
    """
    body = model.config.body
    if max_length <= body.longest_input:
        return
    first = body.first_position
    old = model.backbone.embeddings.position_embeddings.weight
    usable = old[first:]
    copies = -(-max_length // len(usable))
    rows = torch.cat([old[:first], usable.repeat(copies, 1)[:max_length]])
    positions = nn.Embedding(len(rows), rows.shape[1]).to(rows)
    positions.weight.copy_(rows)
    model.backbone.embeddings.position_embeddings = positions
    model.config = model.config.model_copy(
        update={
            "max_length": max_length,
            "body": body.model_copy(update={"max_position_embeddings": len(rows)}),
        }
    )
