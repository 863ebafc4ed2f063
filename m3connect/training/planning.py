"""Which examples meet in which step of an epoch.

draw -> measure -> (group neighbours) -> cut into batches of one dataset and one range of lengths ->
shuffle. The plan holds places, not texts, and follows from the seed and the epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import InputError
from m3connect.training.drawing import Drawn, draw, generator, text_key
from m3connect.training.examples import Source
from m3connect.training.recipe import BatchingTable, DataTable
from m3connect.types import FloatArray

Rows = NDArray[np.int64]

Measure = Callable[[Sequence[Drawn]], Rows]
"""The length of each example's longest text, in tokens."""
Place = Callable[[Sequence[Drawn]], FloatArray]
"""A vector for each example; neighbours are close."""

_MEASURED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """One batch of all processes together.

    Args:
        dataset: which one.
        rows: examples in it; process r of W takes the r-th of W equal parts.
        bucket: the range of lengths.
    """

    dataset: int
    rows: Rows
    bucket: int


class Deck:
    """All datasets, and how one epoch draws from them.

    Args:
        sources: the datasets.
        tables: their entries in the recipe.
        batching: the recipe's table.
        seed: the recipe's.
        teacher: whether teacher scores are wanted.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tables: Sequence[DataTable],
        batching: BatchingTable,
        seed: int,
        *,
        teacher: bool = False,
    ) -> None:
        self.sources = sources
        self.tables = tables
        self.batching = batching
        self.seed = seed
        self.teacher = teacher

    def drawn(self, epoch: int, dataset: int, row: int) -> Drawn:
        """What an epoch draws from one example."""
        example = self.sources[dataset][row]
        found = draw(
            example,
            generator(self.seed, epoch, dataset, row),
            negatives=self.batching.negatives,
            shuffle_segments=self.batching.shuffle_segments,
            teacher=self.teacher,
        )
        return found.with_instruction(self.tables[dataset].instruction)

    def rows(self, epoch: int, dataset: int) -> Rows:
        """The examples that an epoch takes of a dataset, in random order.

        With a limit, languages take turns; with ``per_passage``, an example whose positive was
        taken often enough is passed over.
        """
        table, count = self.tables[dataset], len(self.sources[dataset])
        order = generator(self.seed, epoch, dataset).permutation(count)
        if table.examples is None and table.per_passage is None:
            return order
        wanted = table.examples or count
        uses: Counter[int] = Counter()
        taken: list[int] = []
        for row in self._in_turns(dataset, order) if wanted < count else order.tolist():
            positive = text_key(self.drawn(epoch, dataset, row).passages[0])
            if table.per_passage and uses[positive] >= table.per_passage:
                continue
            uses[positive] += 1
            taken.append(row)
            if len(taken) == wanted:
                break
        return np.array(taken, np.int64)

    def _in_turns(self, dataset: int, order: Rows) -> Iterator[int]:
        """One of each language, and again."""
        by_language: dict[str, list[int]] = {}
        for row in order.tolist():
            by_language.setdefault(self.sources[dataset][row].language, []).append(row)
        turns = chain.from_iterable(zip_longest(*by_language.values()))
        return (row for row in turns if row is not None)


def plan_epoch(
    deck: Deck, epoch: int, processes: int, measure: Measure, place: Place | None = None
) -> list[PlannedBatch]:
    """The batches of an epoch.

    Args:
        deck: what is drawn from.
        epoch: 0 for the first.
        processes: how many share a batch; its size is a multiple of them.
        measure: gives lengths.
        place: gives positions, needed for ``batching.neighbours``.

    Raises:
        InputError: a dataset does not fill a batch.
    """
    batches: list[PlannedBatch] = []
    for dataset in range(len(deck.sources)):
        rows = deck.rows(epoch, dataset)
        _check_enough(deck, dataset, len(rows), processes)
        buckets, vectors = _measured(deck, epoch, dataset, rows, measure, place)
        for bucket in np.unique(buckets).tolist():
            members = np.flatnonzero(buckets == bucket)
            if vectors is not None:
                rng = generator(deck.seed, epoch, dataset, bucket)
                members = members[grouped(vectors[members], deck.batching.neighbours, rng)]
            size, smallest = deck.batching.size(bucket), deck.batching.smallest
            parts = cut(rows[members], size, smallest, processes)
            batches += [PlannedBatch(dataset, part, bucket) for part in parts]
    order = generator(deck.seed, epoch).permutation(len(batches))
    return [batches[at] for at in order]


def cut(rows: Rows, size: int, smallest: int, processes: int) -> list[Rows]:
    """Parts that every process gets as much of; what is too small at the end is left out.

    >>> [part.tolist() for part in cut(np.arange(7), 2, 1, 2)]
    [[0, 1, 2, 3], [4, 5]]
    """
    parts = [
        rows[start : start + size * processes] for start in range(0, len(rows), size * processes)
    ]
    even = [part[: len(part) - len(part) % processes] for part in parts]
    return [part for part in even if len(part) >= smallest * processes]


def _check_enough(deck: Deck, dataset: int, examples: int, processes: int) -> None:
    table = deck.batching
    smallest = min(table.size(bucket) for bucket in range(len(table.edges))) * processes
    if examples < smallest:
        raise InputError(
            f"{deck.sources[dataset].name}: {examples} examples do not fill a batch of {smallest} "
            f"({processes} processes): lower batching.sizes, or leave the dataset out"
        )


def _measured(
    deck: Deck, epoch: int, dataset: int, rows: Rows, measure: Measure, place: Place | None
) -> tuple[Rows, FloatArray | None]:
    """Every row's range of lengths and, where asked for, its vector."""
    lengths: list[Rows] = []
    vectors: list[FloatArray] = []
    for start in range(0, len(rows), _MEASURED_AT_ONCE):
        part = rows[start : start + _MEASURED_AT_ONCE].tolist()
        drawn = [deck.drawn(epoch, dataset, row) for row in part]
        lengths.append(measure(drawn))
        if place is not None:
            vectors.append(place(drawn))
    buckets = np.searchsorted(deck.batching.edges, np.concatenate(lengths)) if lengths else rows
    return buckets, np.concatenate(vectors) if vectors else None


def grouped(vectors: FloatArray, size: int, rng: np.random.Generator) -> Rows:
    """An order in which neighbours follow each other in groups of ``size``; groups in random order.

    Each group is an example taken at random and the nearest ones still free.

    Args:
        vectors: ``[N, D]``; nearness is the inner product.
        size: of a group.
        rng: decides where groups start and how they are ordered.
    """
    free = np.ones(len(vectors), bool)
    groups = []
    for start in rng.permutation(len(vectors)):
        if not free[start]:
            continue
        candidates = np.flatnonzero(free)
        nearest = np.argsort(-(vectors[candidates] @ vectors[start]), kind="stable")[:size]
        groups.append(candidates[nearest])
        free[groups[-1]] = False
    order = rng.permutation(len(groups))
    return np.concatenate([groups[at] for at in order]) if groups else np.empty(0, np.int64)
