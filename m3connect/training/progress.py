"""Where a run stands: all that a restart needs beside weights, optimizer and random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from m3connect.training.planning import PlannedBatch


class Progress:
    """Counters and the epoch's plan. Saved with every checkpoint.

    The plan is kept rather than made again: neighbours depend on the weights at the epoch's start.
    """

    def __init__(self) -> None:
        self.step = 0
        self.total = 0
        self.tokens = 0
        self.seconds = 0.0
        self.epoch = 0
        self.position = 0
        self.plan: list[PlannedBatch] = []
        self.best = float("-inf")
        self.measured_without_gain = 0

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.total

    def begin(self, plan: list[PlannedBatch]) -> None:
        """Start an epoch."""
        self.plan = plan
        self.position = 0

    def better(self, score: float) -> bool:
        """Note a measurement; whether it is the best so far."""
        if score > self.best:
            self.best = score
            self.measured_without_gain = 0
            return True
        self.measured_without_gain += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """Numbers and tensors only."""
        plan = [(batch.dataset, torch.from_numpy(batch.rows), batch.bucket) for batch in self.plan]
        return {**vars(self), "plan": plan}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state_dict` gave."""
        plan = [
            PlannedBatch(dataset, rows.numpy(), bucket) for dataset, rows, bucket in state["plan"]
        ]
        vars(self).update({**state, "plan": plan})
