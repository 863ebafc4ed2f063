"""What a recipe would do: batches, steps, tokens, and estimates of memory and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from m3connect.training import memory
from m3connect.training.accelerator import make_accelerator
from m3connect.training.loop import Task, make_task, total_steps
from m3connect.training.planning import PlannedBatch
from m3connect.training.recipe import AnyRecipe

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
        seconds: estimated for one process on this machine, from the time of a few texts.
    """

    lines: tuple[Line, ...]
    steps: int
    tokens: int
    memory: Mapping[str, int]
    seconds: float


def forecast(recipe: AnyRecipe, processes: int = 1) -> Forecast:
    """Plan a recipe, and time a few of its texts.

    Args:
        recipe: what would be run.
        processes: that would share it.

    Raises:
        ConfigError: the recipe does not suit the model or the machine.
        InputError: data that is missing or malformed, or too little for a batch.
        CheckpointError: the model cannot be loaded.
    """
    task = make_task(recipe)
    plan = task.plan(0, processes, draft=True)
    steps = total_steps(recipe.optimizer, plan)
    task.restart()
    sample = [task.batch(planned, 0, 0, processes) for planned in islice(plan, _SAMPLE)]
    per_batch = processes * float(np.mean([batch.tokens for batch in sample]))
    tokens = per_batch * steps * recipe.optimizer.accumulate
    longest = max(plan, key=lambda planned: task.edges[planned.bucket] * len(planned.rows))
    sample.append(task.batch(longest, 0, 0, processes))
    largest = max(sample, key=lambda batch: batch.tokens)
    return Forecast(
        _lines(task, plan),
        steps,
        round(tokens),
        {
            "weights, gradients, moments": memory.weights(task.module),
            **memory.of_step(recipe, task.subject.config, largest, processes),
        },
        tokens / _tokens_per_second(recipe, task, plan[0]),
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
