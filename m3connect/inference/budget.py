"""How many tokens a batch has: what suits this device, measured once and kept with the prepared models.

Only a long job measures; it takes about as long as twenty batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from m3connect.inference.backend import Backend
from m3connect.inference.batching import plan
from m3connect.inference.precision import cpu_name
from m3connect.model.checkpoint import Checkpoint
from m3connect.model.folder_cache import cached_folder
from m3connect.model.tokenize import TokenIds
from m3connect.types import Leg

WORTH_MEASURING = 512
"""Batches of the usual size that an encoder has done before it measures: a twentieth of their time."""
_SAMPLE = 4
_BETTER = 0.95
"""A budget other than the usual one takes less than this share of its time."""
_FILE = "batch_tokens"


def suited(checkpoint: Checkpoint, backend: Backend, tokens: TokenIds, legs: Sequence[Leg]) -> int:
    """The token budget that is the fastest here; measured now where that was not done yet.

    Args:
        checkpoint: what the backend runs.
        backend: on one device.
        tokens: texts of the job.
        legs: the representations of the job.
    """
    clock = time.process_time if backend.device == "cpu" else time.perf_counter

    def make(folder: Path) -> None:
        budget = fastest(backend, tokens, legs, clock)
        (folder / _FILE).write_text(str(budget), encoding="utf-8")

    budget = cached_folder(
        f"{checkpoint.path.name}-{backend.name}-{backend.device.replace(':', '')}-budget",
        sorted(file for file in checkpoint.path.iterdir() if file.is_file()),
        f"{backend.choice.precision} on {cpu_name()}",
        make,
        lambda folder: int((folder / _FILE).read_text(encoding="utf-8")),
    )
    return backend.batch_tokens if budget is None else budget


def fastest(
    backend: Backend, tokens: TokenIds, legs: Sequence[Leg], clock: Callable[[], float]
) -> int:
    """The fastest of some budgets on a sample of texts; the usual one where none is clearly faster.

    Args:
        backend: on one device.
        tokens: at least one text.
        legs: the representations to compute.
        clock: in seconds.
    """
    usual = backend.batch_tokens
    rows = plan(tokens.lengths, _SAMPLE * usual)[0]
    sample = tokens.take(rows)

    def seconds(budget: int) -> float:
        batches = plan(sample.lengths, budget, pads=backend.pads)
        started = clock()
        for batch in batches:
            backend.run(sample.take(batch), legs)
        return clock() - started

    seconds(usual)  # the first pass of all is slower
    times = {
        budget: seconds(budget) for budget in (usual, usual // 4, usual // 2, 2 * usual, 4 * usual)
    }
    best = min(times, key=times.__getitem__)
    return best if times[best] < _BETTER * times[usual] else usual
