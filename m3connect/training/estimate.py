"""What a recipe would do: batches, steps, tokens, and estimates of memory and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
from torch import nn

from m3connect.model.config import BodyConfig, M3Config
from m3connect.training.collate import Batch
from m3connect.training.distributed import make_accelerator
from m3connect.training.loop import Task, make_task, total_steps
from m3connect.training.recipe import AnyRecipe, Recipe, RunTable
from m3connect.training.retromae import PREDICTED_AT_ONCE, MaskedTexts
from m3connect.training.sampling import PlannedBatch

_NUMBER = 4
"""Bytes: weights and gradients are float32."""
_ADAM = 4
"""Numbers that a learning weight takes: itself, its gradient, two moments."""
_SAMPLE = 8
"""Planned batches whose tokens are counted."""
_TRIAL_EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One dataset and range of lengths in the first epoch.

    Args:
        dataset: its name.
        longest: upper end of the range, in tokens.
        examples: that are in batches.
        batches: of all processes.
        size: examples in the largest batch.
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
        processes: that share the run: cards, or this machine's CPU.
        rate: tokens a second of a process: given, or measured here with a few texts.
        seconds: that all of it takes at that rate, without what processes wait for each other.
    """

    lines: tuple[Line, ...]
    steps: int
    tokens: int
    memory: Mapping[str, int]
    processes: int
    rate: float
    seconds: float


def forecast(recipe: AnyRecipe, processes: int = 1, rate: float | None = None) -> Forecast:
    """Plan a recipe, and time a few of its texts.

    Args:
        recipe: what would be run.
        processes: that would share it.
        rate: tokens a second of a process, such as an earlier forecast measured on the machine
            where the run will be; None measures this one, with the shortest texts.

    Raises:
        ConfigError: the recipe does not suit the model or the machine.
        InputError: data that is missing or malformed, or too little for a batch.
        CheckpointError: the model cannot be loaded.
    """
    task = make_task(recipe)
    plan = task.plan(0, processes, draft=True)
    steps = total_steps(recipe.optimizer, len(plan))
    task.restart()
    sample = [task.batch(planned, 0, 0, processes) for planned in islice(plan, _SAMPLE)]
    per_batch = processes * float(np.mean([batch.tokens for batch in sample]))
    tokens = per_batch * steps * recipe.optimizer.accumulate
    longest = max(plan, key=lambda planned: task.edges[planned.bucket] * len(planned.rows))
    sample.append(task.batch(longest, 0, 0, processes))
    largest = max(sample, key=lambda batch: batch.tokens)
    shortest = min(plan, key=lambda planned: planned.bucket)
    rate = _tokens_per_second(recipe, task, shortest) if rate is None else rate
    return Forecast(
        _lines(task, plan),
        steps,
        round(tokens),
        {
            "weights, gradients, moments": weight_bytes(task.module),
            **step_bytes(recipe, task.trainable.config, largest, processes),
        },
        processes,
        rate,
        tokens / (rate * processes),
    )


def _lines(task: Task, plan: Sequence[PlannedBatch]) -> tuple[Line, ...]:
    def place(planned: PlannedBatch) -> tuple[int, int]:
        return planned.dataset, planned.bucket

    lines = []
    for (dataset, bucket), group in groupby(sorted(plan, key=place), key=place):
        sizes = [len(planned.rows) for planned in group]
        name, longest = task.names[dataset], task.edges[bucket]
        lines.append(Line(name, longest, sum(sizes), len(sizes), max(sizes)))
    return tuple(lines)


def _tokens_per_second(recipe: AnyRecipe, task: Task, planned: PlannedBatch) -> float:
    """A step's work on a few examples, done twice; the second time counts."""
    few = PlannedBatch(planned.dataset, planned.rows[:_TRIAL_EXAMPLES], planned.bucket)
    accelerator = make_accelerator(recipe)
    batch = task.batch(few, 0, 0, 1).to(accelerator.device)
    module = task.module.to(accelerator.device).train()
    elapsed = 0.0
    for _ in range(2):
        began = time.monotonic()
        task.backward(module, batch, 0, 1.0, accelerator)
        elapsed = time.monotonic() - began
    return float(batch.tokens / elapsed)


# ---------------------------------------------------------------------------------------- memory


def weight_bytes(module: nn.Module) -> int:
    """Weights, and what the optimizer keeps of those that learn."""
    return sum(
        _NUMBER * weight.numel() * (_ADAM if weight.requires_grad else 1)
        for weight in module.parameters()
    )


def step_bytes(recipe: AnyRecipe, config: M3Config, batch: Any, processes: int) -> dict[str, int]:
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
    run, legs = recipe.run, recipe.objective.legs
    together = processes if recipe.batching.across_processes else 1
    padded = batch.queries.ids.numel() + batch.passages.ids.numel()
    tokens = min(run.sub_batch_tokens, padded) if run.gradient_cache else padded
    # Own queries, and the passages of all.
    texts = len(batch.queries) + together * len(batch.passages)
    scored = batch.queries.ids.numel() + together * batch.passages.ids.numel()
    numbers = {
        "dense": texts * config.dense_width,
        "sparse": scored,
        "multivector": scored * config.multivector_width,
    }
    found = {
        "activations": tokens * _activations(run, config.body),
        # and their gradients
        "representations": 2 * _NUMBER * sum(numbers[leg] for leg in legs),
    }
    if "multivector" in legs:
        queries = min(run.score_queries, len(batch.queries)) * batch.queries.ids.shape[1]
        # of the token pairs that are scored at a time: plain, masked, and a gradient
        found["token similarities"] = 3 * _NUMBER * queries * batch.passages.ids.numel() * together
    return found


def _retromae(run: RunTable, body: BodyConfig, batch: MaskedTexts) -> dict[str, int]:
    texts, length = batch.ids.shape
    decoder = _NUMBER * (
        _layer(body) + 6 * body.hidden_size
    )  # and its inputs, and the predicted states
    return {
        "activations": texts * length * (_activations(run, body) + decoder),
        # which token sees which: drawn as numbers, kept as truth values
        "visible pairs": texts * length * length * (_NUMBER + 1),
        # logits, their softmax, and a gradient
        "vocabulary": 3 * _NUMBER * min(PREDICTED_AT_ONCE, texts * length) * body.vocab_size,
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
