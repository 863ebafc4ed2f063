"""Estimates of the memory that a step takes, in bytes of one process."""

from __future__ import annotations

from typing import Any

from torch import nn

from m3connect.model.config import BodyConfig, M3Config
from m3connect.training.collate import Batch
from m3connect.training.recipe import AnyRecipe, Recipe, RunTable
from m3connect.training.retromae import NAMED_AT_ONCE, HiddenTexts

_NUMBER = 4
"""Bytes: weights and gradients are float32."""
_ADAM = 4
"""Numbers that a learning weight takes: itself, its gradient, two moments."""


def weights(module: nn.Module) -> int:
    """Weights, and what the optimizer keeps of those that learn."""
    return sum(
        _NUMBER * weight.numel() * (_ADAM if weight.requires_grad else 1)
        for weight in module.parameters()
    )


def of_step(recipe: AnyRecipe, config: M3Config, batch: Any, processes: int) -> dict[str, int]:
    """What a step takes beside the weights.

    Args:
        recipe: says what is kept and what is computed again.
        config: of the model.
        batch: the largest, of the recipe's task.
        processes: that share a batch.
    """
    if isinstance(recipe, Recipe):
        return _contrastive(recipe, config, batch, processes)
    return _retromae(recipe.run, config.body, batch)


def _contrastive(recipe: Recipe, config: M3Config, batch: Batch, processes: int) -> dict[str, int]:
    run = recipe.run
    together = processes if recipe.batching.across_processes else 1
    padded = batch.queries.ids.numel() + batch.passages.ids.numel()
    tokens = min(run.sub_batch_tokens, padded) if run.gradient_cache else padded
    queries = min(run.score_queries, len(batch.queries)) * batch.queries.ids.shape[1]
    return {
        "activations": tokens * _activations(run, config.body),
        # token vectors and their gradients
        "representations": 2 * _NUMBER * config.multivector_width * padded * together,
        # of the token pairs that are scored at a time: plain, masked, and a gradient
        "token similarities": 3 * _NUMBER * queries * batch.passages.ids.numel() * together,
    }


def _retromae(run: RunTable, body: BodyConfig, batch: HiddenTexts) -> dict[str, int]:
    texts, length = batch.ids.shape
    decoder = _NUMBER * (
        _layer(body) + 6 * body.hidden_size
    )  # and its inputs, and the named states
    return {
        "activations": texts * length * (_activations(run, body) + decoder),
        # which token sees which: drawn as numbers, kept as truth values
        "visible pairs": texts * length * length * (_NUMBER + 1),
        # logits, their softmax, and a gradient
        "vocabulary": 3 * _NUMBER * min(NAMED_AT_ONCE, texts * length) * body.vocab_size,
    }


def _activations(run: RunTable, body: BodyConfig) -> int:
    """Of a token, what a forward pass keeps for going back."""
    kept = body.num_hidden_layers * _layer(body)
    if run.gradient_checkpointing:
        kept = body.num_hidden_layers * body.hidden_size + _layer(body)
    return _NUMBER * kept


def _layer(body: BodyConfig) -> int:
    """Of a token, the numbers that a layer keeps.

    The inputs of its matrices and LayerNorms, the queries, keys and values, and both sides of the
    activation function.
    """
    return 8 * body.hidden_size + 2 * body.intermediate_size
