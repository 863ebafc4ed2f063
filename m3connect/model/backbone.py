"""The BERT encoder that BERT and XLM-R checkpoints share.

Modules are nested and named as in transformers, so that tensors load and save under their published
names. All but attention knows tokens alone; which of them belong to one text is what an
:data:`Attention` knows: of padded texts here, of texts end to end in ``ragged.py``.

Shapes: B texts, L tokens, H hidden width, N attention heads, h the width of one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from m3connect.model.config import BodyConfig

Attention = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Query, key and value ``[..., N, h]`` of each token, and the share of weights to drop, to the mixture of
values for each token, alike."""


class Backbone(nn.Module):
    """Token ids to last hidden states.

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        self.head_width = config.hidden_size // config.num_attention_heads
        self.embeddings = InputEmbeddings(config)
        layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Last hidden states of padded texts.

        Args:
            ids: ``int64 [B, L]``, padded on the right.
            mask: ``bool [B, L]``, true for tokens; None when nothing is padded.

        Returns:
            ``[B, L, H]``; what stands at padding has no meaning.
        """
        return self.through_layers(self.embeddings(ids), attention_of_padded(mask))

    def through_layers(
        self, states: Tensor, attend: Attention, *, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Embeddings ``[..., H]`` to last hidden states; or through some of the layers, ``[first:last]``."""
        for layer in islice(self.encoder["layer"].children(), first, last):
            states = layer(states, attend)
        return states


def attention_of_padded(mask: Tensor | None) -> Attention:
    """Attention of texts beside each other, ``[B, L, N, h]``; the mask as of :class:`Backbone`."""
    attendable = None if mask is None else mask[:, None, None, :]

    def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attendable, dropout)
        return mixed.transpose(1, 2)

    return attend


def _embedding(count: int, width: int) -> nn.Embedding:
    """A table of vectors; on ``meta``, where a checkpoint follows, without values to begin with.

    To draw these there loads torch's compiler, which takes two seconds.
    """
    weight = torch.empty(count, width)
    if not weight.is_meta:
        return nn.Embedding(count, width)
    table: nn.Embedding = nn.Embedding.from_pretrained(weight, freeze=False)  # type: ignore[no-untyped-call]
    return table


class InputEmbeddings(nn.Module):
    """Word + position + token type, normalised. All tokens are of type 0."""

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.first_position = config.first_position
        self.word_embeddings = _embedding(config.vocab_size, width)
        self.position_embeddings = _embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = _embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids: Tensor, places: Tensor | None = None) -> Tensor:
        """``[..., L]`` to ``[..., L, H]``; ``places`` of tokens in their text, None for 0, 1, ..."""
        if places is None:
            end = self.first_position + ids.shape[-1]
            positions = self.position_embeddings.weight[self.first_position : end]
        else:
            positions = self.position_embeddings(self.first_position + places)
        states = self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0]
        embedded: Tensor = self.dropout(self.LayerNorm(states))
        return embedded


class Layer(nn.Module):
    """Self-attention and feed-forward network, each with residual and LayerNorm after it."""

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(
                    {name: nn.Linear(width, width) for name in ("query", "key", "value")}
                ),
                "output": Residual(width, config),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = Residual(inner, config)

    def forward(self, states: Tensor, attend: Attention) -> Tensor:
        """``[..., H]`` to the same."""
        query, key, value = (
            projection(states).unflatten(-1, (self.heads, -1))
            for projection in self.attention["self"].children()
        )
        dropout = self.attention_dropout if self.training else 0.0
        mixed = attend(query, key, value, dropout).flatten(-2)
        states = self.attention["output"](mixed, states)
        changed: Tensor = self.output(F.gelu(self.intermediate["dense"](states)), states)
        return changed


class Residual(nn.Module):
    """A projection, added to what it changes, normalised."""

    def __init__(self, inputs: int, config: BodyConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, change: Tensor, states: Tensor) -> Tensor:
        """``[..., inputs]`` and ``[..., H]`` to ``[..., H]``."""
        normed: Tensor = self.LayerNorm(states + self.dropout(self.dense(change)))
        return normed
