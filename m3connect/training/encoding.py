"""Texts through the model in sub-batches of like length, and back into their order.

B texts, L tokens, H hidden width, C multi-vector width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m3connect.training.collate import Texts
from m3connect.training.distributed import highest
from m3connect.types import LEGS, Leg

Reps = dict[Leg, Tensor]
"""Representations of B texts: dense ``[B, H]``, sparse ``[B, L]``, multivector ``[B, L, C]``."""


def sub_batches(texts: Texts, budget: int) -> list[Tensor]:
    """Rows that go through the encoder together: at most ``budget`` tokens, padding included.

    A text longer than the budget goes alone.
    """
    lengths, order = texts.mask.sum(1).sort(descending=True, stable=True)
    parts = []
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[start]))
        parts.append(order[start : start + size])
        start += size
    return parts


def even_sub_batches(texts: Texts, budget: int) -> list[Tensor]:
    """:func:`sub_batches`, as many in every process: a sharded model's passes are made together.

    Every process has as many texts.
    """
    parts = sub_batches(texts, budget)
    wanted = highest(len(parts), texts.ids.device)
    while len(parts) < wanted:
        place = max(range(len(parts)), key=lambda at: len(parts[at]))
        parts[place : place + 1] = parts[place].chunk(2)
    return parts


def encode(model: nn.Module, texts: Texts, parts: Sequence[Tensor], legs: Sequence[Leg]) -> Reps:
    """All texts through the model, in their order, padded to their common length.

    Args:
        model: an ``M3Model``, wrapped or not.
        texts: to encode.
        parts: rows of each sub-batch; every row is in one.
        legs: the representations to return.
    """
    return joined([forward(model, texts, rows, legs) for rows in parts], parts, texts.ids.shape[1])


def forward(model: nn.Module, texts: Texts, rows: Tensor, legs: Sequence[Leg]) -> Reps:
    """Some rows through the model, padded no further than they need."""
    mask = texts.mask[rows]
    longest = int(mask.sum(1).max())
    mask = mask[:, :longest]
    found = model(texts.ids[rows, :longest], None if mask.all() else mask)
    return {leg: rep for leg, rep in zip(LEGS, found, strict=True) if leg in legs}


def joined(found: Sequence[Mapping[Leg, Tensor]], parts: Sequence[Tensor], length: int) -> Reps:
    """The sub-batches' representations as those of one batch."""
    back = torch.cat(list(parts)).argsort()
    return {
        leg: torch.cat([lengthened(leg, part[leg], length) for part in found])[back]
        for leg in found[0]
    }


def lengthened(leg: Leg, rep: Tensor, length: int) -> Tensor:
    """A representation with zeros for the tokens up to ``length``; no mask lets them count."""
    if leg == "dense":
        return rep
    missing = length - rep.shape[1]
    return F.pad(rep, (0, missing) if leg == "sparse" else (0, 0, 0, missing))
