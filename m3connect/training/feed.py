"""From files to the batches of a process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from m3connect.model.folding import CaseFolding
from m3connect.model.m3 import M3Model
from m3connect.model.tokenize import TextTokenizer
from m3connect.training.collate import Batch, Collator, Texts
from m3connect.training.config import Recipe
from m3connect.training.drawing import Drawn
from m3connect.training.encoding import encode, sub_batches
from m3connect.training.examples import open_source
from m3connect.training.planning import Deck, PlannedBatch, plan_epoch
from m3connect.training.subject import Subject
from m3connect.types import FloatArray

HEAD_PASSAGES = 1000
"""Passages whose token states heads start from."""
_PLACING_LENGTH = 64
"""Tokens that decide who is whose neighbour: the start of a text tells its topic."""


class Feed:
    """The recipe's data, ready to be asked for batches.

    Args:
        recipe: says what and how.
        subject: whose tokenizer is used.

    Raises:
        InputError: a dataset is missing, empty or malformed.
        ConfigError: the recipe's lengths do not suit the model.
    """

    def __init__(self, recipe: Recipe, subject: Subject) -> None:
        self.recipe = recipe
        self.subject = subject
        sources = [open_source(recipe.data_directory / table.path) for table in recipe.data]
        table = recipe.batching
        teacher = recipe.objective.teacher != "none"
        self.deck = Deck(sources, recipe.data, table, recipe.seed, teacher=teacher)
        self.collator = self._collator(table.query_length, table.passage_length)

    def _collator(self, query_length: int, passage_length: int) -> Collator:
        config, tokenizer = self.subject.config, self.subject.tokenizer
        return Collator(
            config,
            TextTokenizer(tokenizer, config, query_length),
            TextTokenizer(tokenizer, config, passage_length),
            fold=CaseFolding(tokenizer) if config.fold_case else None,
        )

    def plan(
        self, epoch: int, processes: int, *, with_neighbours: bool = True
    ) -> list[PlannedBatch]:
        """An epoch's batches; neighbours are found with the model as it is now.

        Raises:
            InputError: a dataset does not fill a batch, or lacks negatives or teacher scores.
        """
        place = self._place if with_neighbours and self.recipe.batching.neighbours > 1 else None
        return plan_epoch(self.deck, epoch, processes, self.collator.lengths, place)

    def batch(self, planned: PlannedBatch, epoch: int, rank: int, processes: int) -> Batch:
        """A process's part of a planned batch."""
        part = np.array_split(planned.rows, processes)[rank]
        return self.collator.batch(
            [self.deck.drawn(epoch, planned.dataset, row) for row in part.tolist()]
        )

    def head_passages(self, plan: Sequence[PlannedBatch]) -> Iterator[Texts]:
        """Some passages of the epoch's, for :func:`m3connect.training.heads.start_heads`."""
        drawn = (
            self.deck.drawn(0, batch.dataset, row) for batch in plan for row in batch.rows.tolist()
        )
        texts = sorted((example.passages[0] for example in islice(drawn, HEAD_PASSAGES)), key=len)
        for start in range(0, len(texts), 16):
            device = next(self.subject.model.parameters()).device
            yield self.collator.texts(texts[start : start + 16], "passage").to(device)

    def _place(self, drawn: Sequence[Drawn]) -> FloatArray:
        """The sum of query and positive in the dense space."""
        model = self.subject.model.eval()
        short = self._collator(
            min(_PLACING_LENGTH, self.recipe.batching.query_length),
            min(_PLACING_LENGTH, self.recipe.batching.passage_length),
        )
        queries = short.texts([example.query for example in drawn], "query")
        passages = short.texts([example.passages[0] for example in drawn], "passage")
        vectors: FloatArray = (self._dense(model, queries) + self._dense(model, passages)).numpy()
        return vectors

    @torch.no_grad()
    def _dense(self, model: M3Model, texts: Texts) -> torch.Tensor:
        texts = texts.to(next(model.parameters()).device)
        parts = sub_batches(texts, self.recipe.run.sub_batch_tokens)
        return encode(model, texts, parts, ("dense",))["dense"].float().cpu()
