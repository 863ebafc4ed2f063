"""What frozen layers make of a text, computed once: for several epochs, or several runs over the same texts.

    token ids -> embeddings, frozen layers (remembered) -> layers that learn -> heads

A text's states do not depend on the batch that it is in, nor, without dropout, on chance. They stay
in memory: H numbers a token, 1.5 kB for m3-mini.
"""

from __future__ import annotations

import hashlib
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m3connect.errors import ConfigError
from m3connect.model.backbone import Backbone, attention_of_padded
from m3connect.model.m3 import M3Model
from m3connect.training.recipe import ModelTable


class FrozenStates:
    """States of texts after a model's frozen layers, of one model and precision, for any number of runs."""

    def __init__(self) -> None:
        self._states: dict[bytes, Tensor] = {}  # the text's token ids -> [L, H]
        self._source: tuple[str, str] | None = None

    def __len__(self) -> int:
        """Texts that are remembered."""
        return len(self._states)

    def serve(self, model: M3Model, table: ModelTable, precision: str) -> None:
        """Let a model ask here before its frozen layers compute.

        Args:
            model: about to be trained; on any device.
            table: says what of it is frozen.
            precision: the run's, in which states are made.

        Raises:
            ConfigError: nothing is frozen, or dropout makes every pass another, or these are the
                states of other layers, or made in another precision.
        """
        body = model.config.body
        if table.frozen == "nothing":
            raise ConfigError('states are remembered of frozen layers: set frozen = "embeddings"')
        if body.hidden_dropout_prob or body.attention_probs_dropout_prob:
            raise ConfigError("with dropout no state is worth remembering: set dropout = 0.0")
        whole = table.frozen == "encoder"
        layers = body.num_hidden_layers if whole else table.frozen_layers
        source = _digest(model.backbone, layers), precision
        if self._source not in (None, source):
            raise ConfigError(
                "these states are of other frozen layers, or made in another precision: begin with "
                "new ones"
            )
        self._source = source
        model.backbone.forward = partial(self._forward, model.backbone, layers)  # type: ignore[method-assign]

    def _forward(self, backbone: Backbone, layers: int, ids: Tensor, mask: Tensor | None) -> Tensor:
        """As :meth:`Backbone.forward`."""
        states = self._frozen(backbone, layers, ids, mask)
        return backbone.through_layers(states, attention_of_padded(mask), first=layers)

    @torch.no_grad()
    def _frozen(self, backbone: Backbone, layers: int, ids: Tensor, mask: Tensor | None) -> Tensor:
        lengths = [ids.shape[1]] * len(ids) if mask is None else mask.sum(1).tolist()
        keys = [
            row[:length].tobytes() for row, length in zip(ids.cpu().numpy(), lengths, strict=True)
        ]
        new = [row for row, key in enumerate(keys) if key not in self._states]
        if new:
            some = None if mask is None else mask[new]
            embedded = backbone.embeddings(ids[new])
            made = backbone.through_layers(embedded, attention_of_padded(some), last=layers).cpu()
            for row, states in zip(new, made, strict=True):
                self._states[keys[row]] = states[: lengths[row]].clone()
        found = pad_sequence([self._states[key] for key in keys], batch_first=True)
        return F.pad(found, (0, 0, 0, ids.shape[1] - found.shape[1])).to(ids.device)


def _digest(backbone: Backbone, layers: int) -> str:
    """Of the weights that make the states."""
    digest = hashlib.blake2b(digest_size=16)
    lower = list(backbone.encoder["layer"].children())[:layers]
    for module in (backbone.embeddings, *lower):
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
