"""What smooths the inputs of the matrices in 8 bits (``int8.py``): the network's largest activations tell.

Which inputs are large is the network's own habit and hardly depends on the text, so random tokens
show it, and no text in any language has to be at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m3connect.model.checkpoint import SMOOTHING
from m3connect.model.int8 import smoothing, smoothing_name
from m3connect.model.m3 import M3Model
from m3connect.model.saving import save_safetensors
from m3connect.types import FloatArray

_TEXTS = 48
_TOKENS = 64


def write(model: M3Model, folder: Path) -> None:
    """Find a model's smoothings and write them to where :func:`checkpoint.read_smoothing` looks."""
    found = {name: torch.from_numpy(values) for name, values in find(model).items()}
    save_safetensors(found, folder / SMOOTHING)


def find(model: M3Model) -> Mapping[str, FloatArray]:
    """The smoothings of a model by name, each ``float32 [in]``.

    Query, key and value share one. It is made for the value, whose rounding tells most in what comes out.

    Args:
        model: on the CPU.
    """
    watched = {
        smoothed: module
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.Linear) and (smoothed := smoothing_name(f"{name}.weight"))
    }  # the last of query, key and value is the value
    largest: dict[str, Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(partial(_note_largest, largest, smoothed))
        for smoothed, linear in watched.items()
    ]
    try:
        with torch.inference_mode():
            model(torch.from_numpy(_random_texts(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        smoothed: smoothing(largest[smoothed].numpy(), linear.weight.detach().numpy())
        for smoothed, linear in watched.items()
    }


def _note_largest(
    largest: dict[str, Tensor], name: str, _: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    largest[name] = inputs[0].abs().flatten(0, -2).amax(0)


def _random_texts(model: M3Model) -> NDArray[np.int64]:
    """Token ids ``[texts, tokens]``, none of them special, the same each time."""
    config = model.config
    ids = np.setdiff1d(np.arange(config.body.vocab_size), config.special_ids)
    tokens = min(_TOKENS, config.body.longest_input)
    return np.random.default_rng(0).choice(ids, (_TEXTS, tokens)).astype(np.int64)
