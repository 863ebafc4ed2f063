"""The contrastive task: queries against passages, with one, two or all three representations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from m3connect.model.folding import CaseFolding
from m3connect.model.m3 import M3Model
from m3connect.model.tokenize import TextTokenizer
from m3connect.training.collate import Batch, Collator, Texts
from m3connect.training.criterion import make_criterion
from m3connect.training.examples import open_source
from m3connect.training.frozen import FrozenStates
from m3connect.training.gradcache import Reps, cached_backward, encode, plain_backward, sub_batches
from m3connect.training.log import lexical_health
from m3connect.training.lora import add_adapters
from m3connect.training.recipe import Recipe
from m3connect.training.sampling import PlannedBatch, Sample, Sampler, plan_epoch
from m3connect.training.surgery import shape_heads, start_heads
from m3connect.training.trainable import Trainable, freeze, open_trainable, recompute_layers
from m3connect.types import FloatArray

HEAD_PASSAGES = 1000
"""Passages whose token states heads start from."""
_HEAD_BATCH = 16
_TOPIC_LENGTH = 32
"""Tokens that decide who is whose neighbour: the start of a text tells its topic."""


class Contrastive:
    """What :class:`m3connect.training.loop.Run` needs to know of the task.

    Args:
        recipe: says what and how.
        frozen: what its frozen layers made of texts before, and will have made of these.

    Raises:
        InputError: a dataset is missing, empty or malformed.
        ConfigError: the recipe does not suit the model.
        CheckpointError: the model cannot be loaded.
    """

    def __init__(self, recipe: Recipe, frozen: FrozenStates | None = None) -> None:
        self.recipe = recipe
        self.trainable: Trainable = open_trainable(recipe)
        if frozen is not None:
            frozen.serve(self.trainable.model, recipe.model, recipe.run.precision)
        self.module: nn.Module = self.trainable.model
        self.criterion = make_criterion(recipe)
        sources = [open_source(recipe.data_directory / table.path) for table in recipe.data]
        table = recipe.batching
        teacher = recipe.objective.teacher != "none"
        self.sampler = Sampler(sources, recipe.data, table, recipe.seed, teacher=teacher)
        self.names: Sequence[str] = [source.name for source in sources]
        self.edges: Sequence[int] = table.edges
        self.collator = self._collator(table.query_length, table.passage_length)

    def _collator(self, query_length: int, passage_length: int) -> Collator:
        config, tokenizer = self.trainable.config, self.trainable.tokenizer
        return Collator(
            config,
            TextTokenizer(tokenizer, config, query_length),
            TextTokenizer(tokenizer, config, passage_length),
            fold=CaseFolding(tokenizer) if config.fold_case else None,
        )

    def start(self, plan: Sequence[PlannedBatch]) -> None:
        """Before the first step of a new run: the heads."""
        start_heads(self.trainable.model, self.recipe.model, self._head_passages(plan))
        self._arrange()

    def restart(self) -> None:
        """Before a checkpoint is loaded: the heads' shapes."""
        shape_heads(self.trainable.model, self.recipe.model)
        self._arrange()

    def _arrange(self) -> None:
        model, table = self.trainable.model, self.recipe.model
        freeze(model, table, self.recipe.objective.legs)
        if self.recipe.lora:
            add_adapters(model, self.recipe.lora, table.frozen_layers)
        if self.recipe.run.gradient_checkpointing:
            recompute_layers(model)

    def plan(self, epoch: int, processes: int, *, draft: bool = False) -> list[PlannedBatch]:
        """An epoch's batches; neighbours are found with the model as it is now, in no draft.

        Raises:
            InputError: a dataset does not fill a batch, or lacks negatives or teacher scores.
        """
        embed = None if draft or self.recipe.batching.neighbours == 1 else self._topic_vectors
        return plan_epoch(self.sampler, epoch, processes, self.collator.lengths, embed)

    def batch(self, planned: PlannedBatch, epoch: int, rank: int, processes: int) -> Batch:
        """A process's part of a planned batch."""
        rows = np.array_split(planned.rows, processes)[rank]
        return self.collator.batch(
            [self.sampler.sample(epoch, planned.dataset, row) for row in rows.tolist()]
        )

    def backward(
        self, model: nn.Module, batch: Batch, step: int, share: float, accelerator: Accelerator
    ) -> Mapping[str, Tensor]:
        """Add a batch's gradients; returns the loss and its parts.

        Args:
            model: the module, wrapped for its processes.
            batch: this process's.
            step: of the optimizer, from 0.
            share: of the batch in the step.
            accelerator: goes back, and exchanges gradients.
        """
        begin = self.recipe.objective.self_distill_from
        metrics: dict[str, Tensor] = {}

        def loss_of(reps: Sequence[Reps]) -> Tensor:
            distill = begin is not None and step >= begin
            loss, parts = self.criterion(reps[0], reps[1], batch, self_distill=distill)
            metrics.update(parts, loss=loss.detach())
            if "sparse" in reps[1]:
                metrics.update(lexical_health(reps[1]["sparse"], batch.passages))
            return loss * share

        run, legs = self.recipe.run, self.recipe.objective.legs
        texts, go_back = (batch.queries, batch.passages), accelerator.backward
        if run.gradient_cache:
            no_sync = partial(accelerator.no_sync, model)
            cached_backward(model, texts, loss_of, legs, run.sub_batch_tokens, go_back, no_sync)
        else:
            plain_backward(model, texts, loss_of, legs, run.sub_batch_tokens, go_back)
        return metrics

    def _head_passages(self, plan: Sequence[PlannedBatch]) -> Iterator[Texts]:
        """Some passages of the epoch's, of like length together."""
        samples = (
            self.sampler.sample(0, batch.dataset, row)
            for batch in plan
            for row in batch.rows.tolist()
        )
        texts = sorted((sample.passages[0] for sample in islice(samples, HEAD_PASSAGES)), key=len)
        device = next(self.trainable.model.parameters()).device
        for start in range(0, len(texts), _HEAD_BATCH):
            yield self.collator.texts(texts[start : start + _HEAD_BATCH], "passage").to(device)

    def _topic_vectors(self, samples: Sequence[Sample]) -> FloatArray:
        """The sum of query and positive in the dense space."""
        model, table = self.trainable.model.eval(), self.recipe.batching
        short = self._collator(
            min(_TOPIC_LENGTH, table.query_length), min(_TOPIC_LENGTH, table.passage_length)
        )
        queries = short.texts([sample.query for sample in samples], "query")
        passages = short.texts([sample.passages[0] for sample in samples], "passage")
        vectors: FloatArray = (self._dense(model, queries) + self._dense(model, passages)).numpy()
        return vectors

    @torch.no_grad()
    def _dense(self, model: M3Model, texts: Texts) -> Tensor:
        device, run = next(model.parameters()).device, self.recipe.run
        texts = texts.to(device)
        parts = sub_batches(texts, run.sub_batch_tokens)
        with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
            return encode(model, texts, parts, ("dense",))["dense"].float().cpu()
