"""Low-rank adapters on the encoder's linear layers (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

Each matrix W stays and learns a difference of low rank: ``W + alpha / rank * B @ A``, with B = 0 at the
start. The heads learn as a whole, all else stays. What is saved is merged: an ordinary checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from torch import Tensor, nn

from m3connect.errors import ConfigError
from m3connect.model.m3 import M3Model
from m3connect.training.recipe import LoraTable

_KEPT, _DOWN, _UP = ".base_layer.", ".lora_A.", ".lora_B."
"""What peft puts between a layer's name and that of its tensor."""


def check_lora() -> None:
    """See that peft is installed.

    Raises:
        ConfigError: it is not; prints the pip line.
    """
    if find_spec("peft") is None:
        raise ConfigError('[lora] needs peft: pip install "m3connect[lora]"')


def add_adapters(model: M3Model, table: LoraTable, frozen_layers: int) -> None:
    """Put adapters on every linear layer of the encoder, and let nothing else of it learn.

    Args:
        model: changed in place.
        table: rank, alpha and dropout.
        frozen_layers: so many of the lowest layers get none.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = list(model.backbone.encoder["layer"].named_children())[frozen_layers:]
    targets = [
        f"encoder.layer.{number}.{name}"
        for number, layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    ]
    config = LoraConfig(
        r=table.rank,
        lora_alpha=table.alpha,
        lora_dropout=table.dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(config, model.backbone)


def merged(tensors: Mapping[str, Tensor], table: LoraTable) -> dict[str, Tensor]:
    """The tensors of a model with adapters as those of one without.

    Args:
        tensors: by name, adapters among them.
        table: rank and alpha.
    """
    plain = {
        name.replace(_KEPT, "."): tensor
        for name, tensor in tensors.items()
        if _DOWN not in name and _UP not in name
    }
    for name, down in tensors.items():
        if _DOWN in name:
            layer = name.partition(_DOWN)[0]
            up = tensors[name.replace(_DOWN, _UP)]
            weight = f"{layer}.weight"
            plain[weight] = plain[weight] + table.alpha / table.rank * (up @ down)
    return plain
