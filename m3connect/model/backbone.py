"""The BERT encoder that BERT and XLM-R checkpoints share.

Modules are nested and named as in transformers, so that tensors load and save under their published
names.

Shapes: B texts, L tokens, H hidden width, N attention heads.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from m3connect.model.config import BodyConfig


class Backbone(nn.Module):
    """Token ids to last hidden states.

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        self.embeddings = InputEmbeddings(config)
        layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Last hidden states.

        Args:
            ids: ``int64 [B, L]``, padded on the right.
            mask: ``bool [B, L]``, true for tokens; None when nothing is padded.

        Returns:
            ``[B, L, H]``; what stands at padding has no meaning.
        """
        states: Tensor = self.embeddings(ids)
        attendable = None if mask is None else mask[:, None, None, :]
        for layer in self.encoder["layer"].children():
            states = layer(states, attendable)
        return states


class InputEmbeddings(nn.Module):
    """Word + position + token type, normalised. All tokens are of type 0."""

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.first_position = config.first_position
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids: Tensor) -> Tensor:
        """``[B, L]`` to ``[B, L, H]``."""
        end = self.first_position + ids.shape[1]
        states = (
            self.word_embeddings(ids)
            + self.position_embeddings.weight[self.first_position : end]
            + self.token_type_embeddings.weight[0]
        )
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

    def forward(self, states: Tensor, attendable: Tensor | None) -> Tensor:
        """``[B, L, H]`` to the same; ``attendable`` is ``bool [B, 1, 1, L]`` or None."""
        states = self.attention["output"](self._attend(states, attendable), states)
        changed: Tensor = self.output(F.gelu(self.intermediate["dense"](states)), states)
        return changed

    def _attend(self, states: Tensor, attendable: Tensor | None) -> Tensor:
        query_BNLh, key_BNLh, value_BNLh = (
            projection(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in self.attention["self"].children()
        )
        mixed_BNLh = F.scaled_dot_product_attention(
            query_BNLh,
            key_BNLh,
            value_BNLh,
            attn_mask=attendable,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        return mixed_BNLh.transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """A projection, added to what it changes, normalised."""

    def __init__(self, inputs: int, config: BodyConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, change: Tensor, states: Tensor) -> Tensor:
        """``[B, L, inputs]`` and ``[B, L, H]`` to ``[B, L, H]``."""
        normed: Tensor = self.LayerNorm(states + self.dropout(self.dense(change)))
        return normed
