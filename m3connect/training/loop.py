"""The training loop. :func:`train` is the main path:

    plan an epoch -> batches -> gradients -> a step -> log, measure, checkpoint

What a batch is and where its gradients come from is the task's business: ``contrastive.py``
(queries and passages -> representations -> scores -> losses) or ``retromae.py``. It runs once, or
once a process under ``torchrun`` or ``accelerate launch``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor, nn

from m3connect.disk import take_place, unfinished, writing
from m3connect.errors import ConfigError, InputError
from m3connect.progress import Progress, silent
from m3connect.training.checkpoints import NO_ROOM, Checkpoints, RunState, claim_output
from m3connect.training.contrastive import Contrastive
from m3connect.training.distributed import idle_cores, make_accelerator, start_trackers, whole
from m3connect.training.frozen import FrozenStates
from m3connect.training.log import LOG_NAME, Monitor
from m3connect.training.measuring import Evaluate
from m3connect.training.optimizer import make_optimizer, make_schedule
from m3connect.training.recipe import AnyRecipe, OptimizerTable, Recipe
from m3connect.training.retromae import RetroMae
from m3connect.training.sampling import PlannedBatch
from m3connect.training.trainable import Trainable, gathered, save_trainable


class Task(Protocol):
    """What is learnt."""

    trainable: Trainable
    """The model that the run leaves."""
    module: nn.Module
    """What moves: the model, and what helps to train it."""
    names: Sequence[str]
    """Of the datasets."""
    edges: Sequence[int]
    """Upper ends of the ranges of lengths."""

    def plan(self, epoch: int, processes: int, *, draft: bool = False) -> list[PlannedBatch]:
        """The batches of an epoch; a draft has the right sizes and is made without the model."""

    def start(self, plan: Sequence[PlannedBatch]) -> None:
        """Make the module ready for the first step."""

    def restart(self) -> None:
        """Give the module the shape of the run's checkpoints."""

    def batch(self, planned: PlannedBatch, epoch: int, rank: int, processes: int) -> Any:
        """A process's part of a batch; it has ``to(device)`` and ``tokens``."""

    def backward(
        self, model: nn.Module, batch: Any, step: int, share: float, accelerator: Accelerator
    ) -> Mapping[str, Tensor]:
        """Add ``share`` of a batch's gradients; returns the loss and its parts."""


def train(
    recipe: AnyRecipe,
    *,
    evaluate: Evaluate | None = None,
    resume: bool = False,
    progress: Progress = silent,
    frozen: FrozenStates | None = None,
) -> Path:
    """Run a recipe.

    Args:
        recipe: what to do.
        evaluate: measures the model, for the recipe's ``[evaluation]`` table; see
            :func:`m3connect.training.measuring.make_evaluate`. :func:`m3connect.train` has one.
        resume: go on from the last checkpoint in the recipe's output folder. Of the recipe, paths,
            ``run``, ``evaluation`` and ``optimizer.steps`` may have changed: fewer steps let the
            learning rate fall to 0 earlier. The number of processes must be the same.
        progress: told of every step, in the first process.
        frozen: remembers what frozen layers make of texts, for this run's later epochs and for runs
            that come after it with the same layers; a contrastive run on whole models can use it.

    Returns:
        the folder of the trained model: the best that was measured, else the last.

    Raises:
        ConfigError: the recipe does not suit the model, the processes or the output folder, or
            asks for figures that nothing measures.
        InputError: data that is missing or malformed, or too little for a batch.
        CheckpointError: the model that it starts from cannot be loaded.
        M3ConnectError: the disk is full; the last checkpoint is there.
    """
    if recipe.evaluation and evaluate is None:
        raise ConfigError(
            "the recipe has an [evaluation] table and nothing that measures was given: call "
            "m3connect.train(recipe), give evaluate=..., or leave the table out"
        )
    set_seed(recipe.seed)  # before the task, whose new layers are drawn
    task = make_task(recipe, frozen)
    run = Run(recipe, task, resume=resume, remembers=frozen is not None)
    for batches in run.batches():
        run.step(batches)
        if run.accelerator.is_main_process:
            progress("steps", run.state.step, run.state.total)
        if run.due(recipe.run.log_every):
            run.log()
        if evaluate and recipe.evaluation and run.due(recipe.evaluation.every):
            run.measure(evaluate)
            if run.state.measured_without_gain == recipe.evaluation.patience:
                break
        if run.due(recipe.run.checkpoint_every):
            run.checkpoints.save()
    return run.finish()


def make_task(recipe: AnyRecipe, frozen: FrozenStates | None = None) -> Task:
    """What a recipe's stage learns; raises as :func:`train` does."""
    if isinstance(recipe, Recipe):
        return Contrastive(recipe, frozen)
    if frozen is not None:
        raise ConfigError("RetroMAE freezes nothing: leave frozen=... out")
    return RetroMae(recipe)


class Run:
    """A recipe being run: all that it needs, and where it stands.

    Args:
        recipe: what to do.
        task: what is learnt.
        resume: go on from the last checkpoint.
        remembers: whether processes may leave layers out, each for its own texts.
    """

    def __init__(
        self, recipe: AnyRecipe, task: Task, *, resume: bool, remembers: bool = False
    ) -> None:
        self.recipe = recipe
        self.task = task
        self.accelerator = make_accelerator(recipe)
        self.sharded = bool(self.accelerator.is_fsdp2)
        if self.sharded and remembers:
            raise ConfigError("a sharded model's passes are made together: leave frozen=... out")
        task.module.to(self.accelerator.device)
        self.state = RunState(self.accelerator.num_processes)
        source = task.trainable.config.weights_hash
        if self.accelerator.is_main_process:
            claim_output(recipe, resume=resume)
        if resume:
            task.restart()
        else:
            self.state.begin(self._plan(0))
            self.state.total = total_steps(recipe.optimizer, self.state.batches)
            task.start(self.state.plan)
        optimizer = make_optimizer(task.module, recipe.optimizer)
        self.schedule = make_schedule(optimizer, recipe.optimizer, self.state)
        self.model, self.optimizer = self.accelerator.prepare(task.module, optimizer)
        self.checkpoints = Checkpoints(
            self.accelerator, recipe, optimizer, self.schedule, self.state
        )
        if resume:
            self.checkpoints.restore(source)
            self.state.total = total_steps(recipe.optimizer, self.state.batches)
        else:
            self.state.source = source
            self.checkpoints.save()
        start_trackers(self.accelerator, recipe)
        main = self.accelerator.is_main_process
        self.monitor = Monitor(recipe.output / LOG_NAME if main else None, self.accelerator.log)

    def _plan(self, epoch: int) -> list[PlannedBatch]:
        """An epoch's plan, made by one process for all."""
        plans: list[list[PlannedBatch] | None] = [None]
        if self.accelerator.is_main_process or self.sharded:  # a sharded model needs all of them
            with nullcontext() if self.sharded else idle_cores():
                plans = [self.task.plan(epoch, self.accelerator.num_processes)]
        broadcast_object_list(plans)
        return plans[0] or []

    def batches(self) -> Iterator[list[Any]]:
        """This process's batches of each step that is left."""
        state, count = self.state, self.recipe.optimizer.accumulate
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        while state.step < state.total:
            if state.position + count > len(state.plan):
                state.epoch += 1
                state.begin(self._plan(state.epoch))
            chosen = state.plan[state.position : state.position + count]
            state.position += count
            batches = [self.task.batch(part, state.epoch, rank, processes) for part in chosen]
            yield [batch.to(self.accelerator.device) for batch in batches]

    def step(self, batches: Sequence[Any]) -> None:
        """One step of the optimizer."""
        began = time.monotonic()
        self.model.train()
        for number, batch in enumerate(batches, start=1):
            exchange = number == len(batches)
            with nullcontext() if exchange else self.accelerator.no_sync(self.model):
                figures = self.task.backward(
                    self.model, batch, self.state.step, 1 / len(batches), self.accelerator
                )
            self.monitor.add(figures)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.monitor.add(
            {"grad_norm": float(whole(norm)), "learning_rate": self.schedule.get_last_lr()[0]}
        )
        self.schedule.step()
        self.optimizer.zero_grad()
        self.state.step += 1
        tokens = sum(batch.tokens for batch in batches)
        self.state.tokens += tokens * self.accelerator.num_processes
        self.state.seconds += time.monotonic() - began

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.state.step % every == 0 or self.state.step == self.state.total

    def log(self) -> None:
        """A line of the log."""
        state = self.state
        self.monitor.write(
            step=state.step,
            epoch=state.epoch,
            tokens=state.tokens,
            seconds=round(state.seconds, 3),
        )

    def measure(self, evaluate: Evaluate) -> None:
        """Development figures; the best model so far is kept."""
        scores: list[Mapping[str, float]] = [{}]
        trainable = self._trainable()
        if self.accelerator.is_main_process:
            trainable.model.to(self.accelerator.device).eval()
            scores = [evaluate(trainable)]
        broadcast_object_list(scores)
        self.monitor.measured(self.state.step, scores[0])
        table = self.recipe.evaluation
        *_, last = scores[0]
        if table and self.state.better(scores[0][table.mode or last]):
            self._save(trainable, "best")

    def finish(self) -> Path:
        """Write the model; returns its folder."""
        self._save(self._trainable(), "last")
        # Nobody leaves before the model is written, nor right after an exchange of tensors: gloo's
        # threads may still hold one of them, and to free it while Python shuts down is an abort.
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        best = self.recipe.output / "best"
        return best if best.is_dir() else self.recipe.output / "last"

    def _trainable(self) -> Trainable:
        """The model in one piece; every process must call this."""
        return gathered(self.task.trainable) if self.sharded else self.task.trainable

    def _save(self, trainable: Trainable, name: str) -> None:
        if self.accelerator.is_main_process:
            target = self.recipe.output / name
            with writing(target, NO_ROOM):
                save_trainable(trainable, unfinished(target))
            take_place(unfinished(target), target)
        self.accelerator.wait_for_everyone()


def total_steps(table: OptimizerTable, batches: int) -> int:
    """Steps of the whole run: each of its epochs counts as many batches as the first has.

    Args:
        table: the recipe's.
        batches: of the first epoch.

    Raises:
        InputError: there are not enough batches for one step.
    """
    steps = batches // table.accumulate
    if not steps:
        raise InputError(
            f"an epoch has {batches} batches and a step takes {table.accumulate}: lower "
            "optimizer.accumulate, or the sizes (batching.sizes, tokens or smallest)"
        )
    most = steps * table.epochs
    return most if table.steps is None else min(table.steps, most)
