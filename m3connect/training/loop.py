"""The training loop. :func:`train` is the main path:

    plan an epoch -> batches -> representations -> (gather) -> scores -> losses -> a step

It runs once, or once a process under ``torchrun`` or ``accelerate launch``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor

from m3connect.errors import InputError
from m3connect.training.checkpoints import Checkpoints, claim_output
from m3connect.training.collate import Batch
from m3connect.training.config import Recipe
from m3connect.training.encoding import Reps
from m3connect.training.feed import Feed
from m3connect.training.gradcache import cached_backward, plain_backward
from m3connect.training.heads import shape_heads, start_heads
from m3connect.training.monitor import LOG_NAME, Monitor, lexical_health
from m3connect.training.objective import make_criterion
from m3connect.training.optimizer import make_optimizer, make_schedule
from m3connect.training.planning import PlannedBatch
from m3connect.training.progress import Progress
from m3connect.training.subject import Subject, freeze, open_subject, recompute_layers, save_subject

Evaluate = Callable[[Subject], Mapping[str, float]]
"""Mean nDCG@10 by mode on the development sets."""


def train(recipe: Recipe, *, evaluate: Evaluate | None = None, resume: bool = False) -> Path:
    """Run a recipe.

    Args:
        recipe: what to do.
        evaluate: measures the model where the recipe has an ``[evaluation]`` table.
        resume: go on from the last checkpoint in the recipe's output folder.

    Returns:
        the folder of the trained model: the best that was measured, else the last.

    Raises:
        ConfigError: the recipe does not suit the model or the output folder.
        InputError: data that is missing or malformed, or too little for a batch.
        CheckpointError: the model that it starts from cannot be loaded.
    """
    run = Run(recipe, resume=resume)
    for batches in run.batches():
        run.step(batches)
        if run.due(recipe.run.log_every):
            run.log()
        if evaluate and recipe.evaluation and run.due(recipe.evaluation.every):
            run.measure(evaluate)
            if run.progress.measured_without_gain == recipe.evaluation.patience:
                break
        if run.due(recipe.run.checkpoint_every):
            run.checkpoints.save()
    return run.finish()


class Run:
    """A recipe being run: all that it needs, and where it stands.

    Args:
        recipe: what to do.
        resume: go on from the last checkpoint.
    """

    def __init__(self, recipe: Recipe, *, resume: bool) -> None:
        self.recipe = recipe
        self.accelerator = Accelerator(mixed_precision=recipe.run.precision)
        set_seed(recipe.seed)
        self.subject = open_subject(recipe)
        self.subject.model.to(self.accelerator.device)
        self.feed = Feed(recipe, self.subject)
        self.criterion = make_criterion(recipe)
        self.progress = Progress()
        if self.accelerator.is_main_process:
            claim_output(recipe, resume=resume)
        if resume:
            shape_heads(self.subject.model, recipe.model)
        else:
            self._start()
        freeze(self.subject.model, recipe.model, recipe.objective.legs)
        if recipe.run.gradient_checkpointing:
            recompute_layers(self.subject.model)
        optimizer = make_optimizer(self.subject.model, recipe.optimizer)
        self.schedule = make_schedule(optimizer, recipe.optimizer, self.progress)
        self.model, self.optimizer = self.accelerator.prepare(self.subject.model, optimizer)
        self.checkpoints = Checkpoints(self.accelerator, recipe, self.schedule, self.progress)
        if resume:
            self.checkpoints.restore()
        else:
            self.checkpoints.save()
        main = self.accelerator.is_main_process
        self.monitor = Monitor(recipe.output / LOG_NAME if main else None)

    def _start(self) -> None:
        """What happens once, before the first step: the plan, the heads' start."""
        self.progress.begin(self._plan(0))
        self.progress.total = total_steps(self.recipe, self.progress.plan)
        passages = self.feed.head_passages(self.progress.plan)
        start_heads(self.subject.model, self.recipe.model, passages)

    def _plan(self, epoch: int) -> list[PlannedBatch]:
        """An epoch's plan, made by one process for all."""
        found: list[list[PlannedBatch] | None] = [None]
        if self.accelerator.is_main_process:
            found = [self.feed.plan(epoch, self.accelerator.num_processes)]
        broadcast_object_list(found)
        return found[0] or []

    def batches(self) -> Iterator[list[Batch]]:
        """This process's batches of each step that is left."""
        progress, count = self.progress, self.recipe.optimizer.accumulate
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        while progress.step < progress.total:
            if progress.position + count > len(progress.plan):
                progress.epoch += 1
                progress.begin(self._plan(progress.epoch))
            chosen = progress.plan[progress.position : progress.position + count]
            progress.position += count
            batches = [self.feed.batch(part, progress.epoch, rank, processes) for part in chosen]
            yield [batch.to(self.accelerator.device) for batch in batches]

    def step(self, batches: Sequence[Batch]) -> None:
        """One step of the optimizer."""
        began = time.monotonic()
        self.model.train()
        for number, batch in enumerate(batches, start=1):
            exchange = number == len(batches)
            with nullcontext() if exchange else self.accelerator.no_sync(self.model):
                self._backward(batch, len(batches))
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.monitor.add(
            {"grad_norm": float(norm), "learning_rate": self.schedule.get_last_lr()[0]}
        )
        self.schedule.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        tokens = sum(batch.tokens for batch in batches)
        self.progress.tokens += tokens * self.accelerator.num_processes
        self.progress.seconds += time.monotonic() - began

    def _backward(self, batch: Batch, of: int) -> None:
        """Gradients of one of a step's batches."""
        start = self.recipe.objective.self_distill_from
        self_distill = start is not None and self.progress.step >= start

        def loss_of(reps: Sequence[Reps]) -> Tensor:
            loss, parts = self.criterion(reps[0], reps[1], batch, self_distill=self_distill)
            self.monitor.add({"loss": loss.detach(), **parts})
            if "sparse" in reps[1]:
                self.monitor.add(lexical_health(reps[1]["sparse"], batch.passages))
            return loss / of

        texts = (batch.queries, batch.passages)
        run, legs = self.recipe.run, self.recipe.objective.legs
        go_back = self.accelerator.backward
        if run.gradient_cache:
            no_sync = partial(self.accelerator.no_sync, self.model)
            cached_backward(
                self.model, texts, loss_of, legs, run.sub_batch_tokens, go_back, no_sync
            )
        else:
            plain_backward(self.model, texts, loss_of, legs, run.sub_batch_tokens, go_back)

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.progress.step % every == 0 or self.progress.step == self.progress.total

    def log(self) -> None:
        """A line of the log."""
        progress = self.progress
        self.monitor.write(
            step=progress.step,
            epoch=progress.epoch,
            tokens=progress.tokens,
            seconds=round(progress.seconds, 3),
        )

    def measure(self, evaluate: Evaluate) -> None:
        """Development figures; the best model so far is kept."""
        found: list[Mapping[str, float]] = [{}]
        if self.accelerator.is_main_process:
            self.subject.model.eval()
            found = [evaluate(self.subject)]
        broadcast_object_list(found)
        self.monitor.measured(self.progress.step, found[0])
        table = self.recipe.evaluation
        if table and self.progress.better(found[0][table.mode]):
            self._save("best")

    def finish(self) -> Path:
        """Write the model; returns its folder."""
        self._save("last")
        self.accelerator.end_training()
        best = self.recipe.output / "best"
        return best if best.is_dir() else self.recipe.output / "last"

    def _save(self, name: str) -> None:
        if self.accelerator.is_main_process:
            save_subject(self.subject, self.recipe.output / name)
        self.accelerator.wait_for_everyone()


def total_steps(recipe: Recipe, plan: Sequence[PlannedBatch]) -> int:
    """Steps of the whole run, if later epochs have as many batches as the first.

    Raises:
        InputError: there are not enough batches for one step.
    """
    table = recipe.optimizer
    steps = len(plan) // table.accumulate
    if not steps:
        raise InputError(
            f"an epoch has {len(plan)} batches and a step takes {table.accumulate}: "
            "lower optimizer.accumulate or batching.sizes"
        )
    return min(table.steps or steps * table.epochs, steps * table.epochs)
