"""Merging checkpoints of one architecture: the weighted mean of their tensors.

Training on new texts costs some of what a model could do before. Between the model before and the
model after lie models that keep most of both, at the price of neither (WiSE-FT, arXiv 2109.01903;
for embedding models LM-Cocktail, arXiv 2311.13534).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m3connect.errors import ConfigError
from m3connect.model.checkpoint import Checkpoint, read_tokenizer, weights_hash
from m3connect.model.config import M3Config
from m3connect.model.saving import check_new, save_m3, whole_or_nothing
from m3connect.model.weights import load_model

_MAY_DIFFER = {"body", "name", "fusion_weights", "weights_hash", "precisions"}
_MAY_DIFFER_IN_BODY = {"hidden_dropout_prob", "attention_probs_dropout_prob"}


def merge(checkpoints: Sequence[Checkpoint], weights: Sequence[float], output: Path) -> None:
    """Write the weighted mean of models as a checkpoint in our own layout, in float32.

    Name, fusion weights and dropout are the last one's. What the models have in common stays as it is,
    to the last bit. Two models more than the mean are in memory.

    Args:
        checkpoints: two or more that differ in the values of their tensors alone.
        weights: one a checkpoint, none below 0, with the sum 1.
        output: a folder that does not exist yet, or is empty.

    Raises:
        ConfigError: the numbers do not fit, the models do not, or the folder holds something.
        CheckpointError: a checkpoint is broken.
    """
    if len(checkpoints) < 2 or len(weights) != len(checkpoints):
        raise ConfigError(
            f"{len(checkpoints)} models and {len(weights)} weights: name two models or more, and "
            "a weight for each"
        )
    if min(weights) < 0:
        raise ConfigError(f"the weights {list(weights)} are no mean's: none may be below 0")
    if not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
        raise ConfigError(f"the weights {list(weights)} have the sum {sum(weights):g}, not 1")
    check_new(output)
    for other in checkpoints[1:]:
        _check_alike(checkpoints[0], other)
    first = _tensors(checkpoints[0])
    mean = {name: tensor * weights[0] for name, tensor in first.items()}
    alike = set(first)
    for checkpoint, weight in zip(checkpoints[1:], weights[1:], strict=True):
        for name, tensor in _tensors(checkpoint).items():
            mean[name] = mean[name] + tensor * weight
            if not torch.equal(tensor, first[name]):
                alike.discard(name)
    mean.update({name: first[name] for name in alike})  # a weighted sum would round them
    last = checkpoints[-1]
    config = last.config.retrained(weights_hash(mean))
    with whole_or_nothing(output):
        save_m3(config, mean, last.path, output)


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in load_model(checkpoint).tensors().items()}


def _check_alike(first: Checkpoint, other: Checkpoint) -> None:
    mine, theirs = (_architecture(checkpoint.config) for checkpoint in (first, other))
    differing = [
        f"{name} ({mine[name]} and {theirs[name]})" for name in mine if mine[name] != theirs[name]
    ]
    if read_tokenizer(first.path)[1] != read_tokenizer(other.path)[1]:
        differing.append("tokenizer")
    if differing:
        raise ConfigError(f"{first.path} and {other.path} differ in {', '.join(differing)}")


def _architecture(config: M3Config) -> dict[str, Any]:
    body = config.body.model_dump(exclude=_MAY_DIFFER_IN_BODY)
    return body | config.model_dump(exclude=_MAY_DIFFER)
