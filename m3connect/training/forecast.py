"""What a recipe would do: batches, steps, tokens, and estimates of memory and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from torch import nn

from m3connect.model.config import BodyConfig
from m3connect.training.accelerator import make_accelerator
from m3connect.training.collate import Batch
from m3connect.training.config import Recipe, RunTable
from m3connect.training.contrastive import Contrastive
from m3connect.training.loop import total_steps
from m3connect.training.planning import PlannedBatch

_SAMPLE = 8
"""Planned batches whose tokens are counted."""
_TRIAL_QUERIES = 4
_NUMBER = 4
"""Bytes: weights and gradients are float32."""
_ADAM = 4
"""Numbers that a learning weight takes: itself, its gradient, two moments."""


@dataclass(frozen=True, slots=True)
class Line:
    """One dataset and range of lengths in the first epoch.

    Args:
        dataset: its name.
        longest: upper end of the range, in tokens.
        examples: that are in batches.
        batches: of all processes.
        size: queries of the largest batch.
    """

    dataset: str
    longest: int
    examples: int
    batches: int
    size: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run before it is run.

    Args:
        lines: the first epoch's plan.
        steps: of the optimizer.
        tokens: through the encoder in all, without padding; from a sample of batches.
        memory: estimated bytes of a process by what takes them.
        seconds: estimated for one process on this machine, from the time of a few texts.
    """

    lines: tuple[Line, ...]
    steps: int
    tokens: int
    memory: Mapping[str, int]
    seconds: float


def forecast(recipe: Recipe, processes: int = 1) -> Forecast:
    """Plan a recipe, and time a few of its texts.

    Args:
        recipe: what would be run.
        processes: that would share it.

    Raises:
        ConfigError: the recipe does not suit the model.
        InputError: data that is missing or malformed, or too little for a batch.
        CheckpointError: the model cannot be loaded.
    """
    task = Contrastive(recipe)
    plan = task.plan(0, processes, neighbours=False)
    steps = total_steps(recipe.optimizer, plan)
    task.restart()
    sample = [task.batch(planned, 0, 0, processes) for planned in islice(plan, _SAMPLE)]
    per_batch = processes * float(np.mean([batch.tokens for batch in sample]))
    tokens = per_batch * steps * recipe.optimizer.accumulate
    together = processes if recipe.batching.across_processes else 1
    largest = max(sample, key=lambda batch: batch.tokens)
    return Forecast(
        _lines(task, plan),
        steps,
        round(tokens),
        {
            "weights, gradients, moments": _weights(task.module),
            "activations": _activations(recipe.run, task.subject.config.body, largest),
            "representations": _representations(task.subject.config.multivector_width, largest)
            * together,
            "token similarities": _similarities(recipe.run.score_queries, largest) * together,
        },
        tokens / _tokens_per_second(task, plan[0]),
    )


def _lines(task: Contrastive, plan: Sequence[PlannedBatch]) -> tuple[Line, ...]:
    def place(planned: PlannedBatch) -> tuple[int, int]:
        return planned.dataset, planned.bucket

    lines = []
    for (dataset, bucket), group in groupby(sorted(plan, key=place), key=place):
        sizes = [len(planned.rows) for planned in group]
        name, longest = task.deck.sources[dataset].name, task.recipe.batching.edges[bucket]
        lines.append(Line(name, longest, sum(sizes), len(sizes), max(sizes)))
    return tuple(lines)


def _tokens_per_second(task: Contrastive, planned: PlannedBatch) -> float:
    """A step's work on a few queries, done twice; the second time counts."""
    few = PlannedBatch(planned.dataset, planned.rows[:_TRIAL_QUERIES], planned.bucket)
    accelerator = make_accelerator(task.recipe)
    batch = task.batch(few, 0, 0, 1).to(accelerator.device)
    module = task.module.to(accelerator.device).train()
    elapsed = 0.0
    for _ in range(2):
        began = time.monotonic()
        task.backward(module, batch, 0, 1.0, accelerator)
        elapsed = time.monotonic() - began
    return batch.tokens / elapsed


def _weights(module: nn.Module) -> int:
    """Weights, and what the optimizer keeps of those that learn."""
    return sum(
        _NUMBER * weight.numel() * (_ADAM if weight.requires_grad else 1)
        for weight in module.parameters()
    )


def _activations(run: RunTable, body: BodyConfig, batch: Batch) -> int:
    """What a forward pass keeps for going back: of a sub-batch, or of all without the cache.

    Of each token and layer that are the inputs of its matrices and LayerNorms, the queries, keys
    and values, and both sides of the activation function.
    """
    padded = batch.queries.ids.numel() + batch.passages.ids.numel()
    tokens = min(run.sub_batch_tokens, padded) if run.gradient_cache else padded
    layer = 8 * body.hidden_size + 2 * body.intermediate_size
    kept = body.num_hidden_layers * layer
    if run.gradient_checkpointing:
        kept = body.num_hidden_layers * body.hidden_size + layer
    return _NUMBER * tokens * kept


def _representations(width: int, batch: Batch) -> int:
    """Token vectors and their gradients."""
    return 2 * _NUMBER * width * (batch.queries.ids.numel() + batch.passages.ids.numel())


def _similarities(score_queries: int, batch: Batch) -> int:
    """Of the token pairs that are scored at a time: plain, masked, and a gradient."""
    queries = min(score_queries, len(batch.queries)) * batch.queries.ids.shape[1]
    return 3 * _NUMBER * queries * batch.passages.ids.numel()
