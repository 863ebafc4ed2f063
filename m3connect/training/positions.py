"""More positions than a model was trained with."""

from __future__ import annotations

import torch
from torch import nn

from m3connect.model.m3 import M3Model


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
