"""Checkpoints of a run: where it stands, complete or absent, the last few kept.

OUTPUT/recipe.json                what is being run
OUTPUT/checkpoints/step-000500/   weights, optimizer, schedule, random numbers, progress

Of the weights, what cannot move is left out: it is read again from the model that the run started
from, so that a run whose encoder is frozen keeps a few megabytes a checkpoint. (A sharded model's
checkpoints hold everything.)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import SAFE_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from m3connect.disk import take_place, unfinished, writing
from m3connect.errors import CheckpointError, ConfigError
from m3connect.model.tensors import HEADS
from m3connect.training.log import LOG_NAME
from m3connect.training.recipe import AnyRecipe, read_recipe
from m3connect.training.sampling import PlannedBatch

NO_ROOM = "Make room; resuming goes on from the last checkpoint."
"""What to do when something of a run could not be written."""
_MAY_CHANGE: dict[str, Any] = {
    "output": True,
    "data_directory": True,
    "run": True,
    "evaluation": True,
    "optimizer": {"steps"},
}


class RunState:
    """Counters and the epoch's plan. Saved with every checkpoint.

    The plan is kept rather than made again: neighbours depend on the weights at the epoch's start.

    Args:
        processes: that share the run.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        """A plan's batches are made for so many."""
        self.step = 0
        self.total = 0
        self.tokens = 0
        self.seconds = 0.0
        self.epoch = 0
        self.position = 0
        self.plan: list[PlannedBatch] = []
        self.batches = 0
        """Of the first epoch: the length of the run follows from it. Later epochs may have others."""
        self.source = ""
        """Hash of the weights that the run started from."""
        self.best = float("-inf")
        self.measured_without_gain = 0

    def begin(self, plan: list[PlannedBatch]) -> None:
        """Start an epoch."""
        self.plan = plan
        self.batches = self.batches or len(plan)
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
        """What :meth:`state_dict` gave.

        Older checkpoints have neither ``processes``, which then stay those of now, nor ``batches``,
        which then are the current epoch's.
        """
        plan = [
            PlannedBatch(dataset, rows.numpy(), bucket) for dataset, rows, bucket in state["plan"]
        ]
        vars(self).update({"batches": len(plan), **state, "plan": plan})


class Checkpoints:
    """Saves and restores a run.

    Args:
        accelerator: knows model and optimizer.
        recipe: of the run.
        optimizer: of the run.
        schedule: of the learning rate.
        state: counters and plan.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        recipe: AnyRecipe,
        optimizer: Optimizer,
        schedule: LRScheduler,
        state: RunState,
    ) -> None:
        accelerator.register_for_checkpointing(schedule, state)
        accelerator.register_save_state_pre_hook(_leave_out_what_stays)
        accelerator.register_load_state_pre_hook(_load_what_moves)
        self.accelerator = accelerator
        self.recipe = recipe
        self.optimizer = optimizer
        self.state = state
        self.folder = recipe.output / "checkpoints"

    def save(self) -> None:
        """Write a checkpoint of this moment, and remove those that are too many.

        Raises:
            M3ConnectError: there is no room for it.
        """
        target = self.folder / f"step-{self.state.step:06d}"
        with writing(target, NO_ROOM):  # of a sharded model every process writes its part
            self.accelerator.save_state(str(unfinished(target)))
        self._forget_no_step()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            take_place(unfinished(target), target)
            for old in _saved(self.folder)[: -self.recipe.run.keep]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def restore(self, source: str) -> None:
        """Go back to the last checkpoint.

        Args:
            source: hash of the weights that the model has now, before the checkpoint's are loaded.

        Raises:
            ConfigError: there is none, or the run started from other weights or in another number
                of processes.
        """
        saved, processes = _saved(self.folder), self.state.processes
        if not saved:
            raise ConfigError(f"{self.folder} holds no checkpoint to resume from")
        self.accelerator.load_state(str(saved[-1]))
        if self.state.processes != processes:
            raise ConfigError(
                f"{saved[-1]}: the run began with {self.state.processes} processes, and now it has "
                f"{processes}: resume it with {self.state.processes} (torchrun --nproc-per-node, "
                "accelerate launch --num_processes), or start a new run"
            )
        if self.state.source != source:
            raise ConfigError(
                f"{saved[-1]} began from weights {self.state.source}, and the recipe's model has "
                f"{source} now: put the old model back, or start a new run"
            )
        self._forget_no_step()

    def _forget_no_step(self) -> None:
        """Before the first step, torch makes one of zeros to save or load a sharded optimizer.

        Adam would count it.
        """
        if not self.state.step:
            self.optimizer.state.clear()


def _saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; names of a million steps and more are longer."""
    steps = {path.name.removeprefix("step-"): path for path in folder.glob("step-*")}
    return [steps[step] for step in sorted(filter(str.isdecimal, steps), key=int)]


def _leave_out_what_stays(
    models: Sequence[nn.Module], weights: Sequence[dict[str, Tensor]], _folder: str
) -> None:
    """accelerate's hook before it writes; of a sharded model it gives no weights."""
    for model, tensors in zip(models, weights, strict=False):
        for name in _staying(model):
            del tensors[name]


def _load_what_moves(models: list[nn.Module], folder: str) -> None:
    """accelerate's hook before it reads: what is left in ``models`` it would load as a whole.

    Raises:
        CheckpointError: a tensor is missing or misshapen.
    """
    for model in models:
        file = Path(folder) / SAFE_WEIGHTS_NAME
        try:
            missing, unknown = model.load_state_dict(load_file(file), strict=False)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be loaded: {error}") from error
        if wrong := {*missing} ^ _staying(model) | {*unknown}:
            raise CheckpointError(f"{file}: tensors {sorted(wrong)} are missing or unknown")
    models.clear()


def _staying(model: nn.Module) -> set[str]:
    """What neither learns nor is set before the first step, as heads are."""
    return {
        name
        for name, weight in model.named_parameters()
        if not weight.requires_grad and not any(head in name.split(".") for head in HEADS)
    }


def claim_output(recipe: AnyRecipe, *, resume: bool) -> None:
    """Make the output folder this recipe's.

    Raises:
        ConfigError: it holds another run, or what is to be resumed was run by another recipe.
    """
    file = recipe.output / "recipe.json"
    if not resume:
        # Without a checkpoint it never took a step: what was wrong is mended, and it begins anew.
        if _saved(recipe.output / "checkpoints") or (recipe.output / LOG_NAME).exists():
            raise ConfigError(
                f"{recipe.output} already holds a run: resume it, or set another output"
            )
        recipe.output.mkdir(parents=True, exist_ok=True)
        file.write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return
    if not file.exists():
        raise ConfigError(f"{recipe.output} holds no run to resume")
    before = _fixed(read_recipe(file))
    differs = [key for key, value in _fixed(recipe).items() if before.get(key) != value]
    if differs:
        raise ConfigError(
            f"{recipe.output} was run with another {', '.join(differs)}: resume with the same "
            "recipe, or set another output"
        )


def _fixed(recipe: AnyRecipe) -> dict[str, Any]:
    """What must be the same after a restart."""
    values: dict[str, Any] = json.loads(recipe.model_dump_json(exclude=_MAY_CHANGE))
    return values
