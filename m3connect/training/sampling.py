"""Which examples meet in which step of an epoch, and what one step sees of each.

    draw -> measure lengths -> (group neighbours) -> cut into batches of one dataset and one range
    of lengths -> shuffle

Stateless: what is drawn depends on the seed, the epoch and the example's row alone, so that whoever
asks again gets the same, on every process and after a restart. A plan holds rows, not texts.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import ConfigError, InputError
from m3connect.training.examples import Example, Source
from m3connect.training.recipe import BatchingTable, DataTable
from m3connect.types import FloatArray

Rows = NDArray[np.int64]
MeasureLengths = Callable[[Sequence["Sample"]], Rows]
"""The length of each sample's longest text, in tokens."""
EmbedTopics = Callable[[Sequence["Sample"]], FloatArray]
"""A vector for each sample; neighbours are close."""

log = logging.getLogger(__name__)

_MEASURED_AT_ONCE = 256
_SHORTEST_SHUFFLED = 100
"""Characters; shorter texts keep their order."""
_SEGMENTS = 3
_LEFT_OUT_ALARM = 0.05
"""Share of a dataset that an epoch may leave out without a warning."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One query with its group of passages, for one step.

    Args:
        query: the query.
        passages: the positive first, then the negatives.
        positives: all texts known to answer the query: none of them is its negative.
        teacher: a teacher's score of each passage, or None.
        language: of the query.
    """

    query: str
    passages: tuple[str, ...]
    positives: tuple[str, ...]
    teacher: tuple[float, ...] | None
    language: str

    def with_instruction(self, instruction: str) -> Sample:
        """With an instruction before the query; an empty one changes nothing."""
        return replace(self, query=instruction + self.query)


def text_key(text: str) -> int:
    """A number that stands for a text: equal texts have equal keys, in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on the key alone, such as (seed, epoch, dataset, row)."""
    return np.random.default_rng(key)


def draw(
    example: Example,
    rng: np.random.Generator,
    *,
    negatives: int = 0,
    shuffle_segments: float = 0.0,
    teacher: bool = False,
) -> Sample:
    """One positive and so many negatives of an example.

    Too few negatives are drawn again until there are enough.

    Args:
        example: to draw from.
        rng: see :func:`generator`.
        negatives: how many.
        shuffle_segments: probability that the positive's segments change places.
        teacher: whether the teacher's scores are wanted.

    Raises:
        InputError: negatives or scores are wanted and the example has none.
    """
    if negatives and not example.negatives:
        raise InputError(
            f"the example {example.query[:60]!r} has no negatives: mine some (m3connect mine), or "
            "set negatives = 0"
        )
    positive_row = int(rng.integers(len(example.positives)))
    negative_rows = _choose(rng, len(example.negatives), negatives)
    positive = example.positives[positive_row]
    if rng.random() < shuffle_segments:
        positive = segments_shuffled(positive, rng)
    return Sample(
        example.query,
        (positive, *(example.negatives[number] for number in negative_rows)),
        example.positives,
        _scores(example, positive_row, negative_rows) if teacher else None,
        example.language,
    )


def _choose(rng: np.random.Generator, count: int, size: int) -> list[int]:
    """``size`` of ``count``, each once if that suffices."""
    chosen: list[int] = []
    while len(chosen) < size:
        chosen += rng.permutation(count)[: size - len(chosen)].tolist()
    return chosen


def _scores(example: Example, positive_row: int, negative_rows: list[int]) -> tuple[float, ...]:
    if not example.positive_scores or (negative_rows and not example.negative_scores):
        raise InputError(
            f"the example {example.query[:60]!r} has no teacher scores: add them (m3connect score), "
            'or set teacher = "none"'
        )
    negative_scores = example.negative_scores or ()
    return (
        example.positive_scores[positive_row],
        *(negative_scores[number] for number in negative_rows),
    )


def segments_shuffled(text: str, rng: np.random.Generator) -> str:
    """The text's three segments in another order, so that no lead paragraph gives it away.

    (M3 paper, appendix A.1. Short texts stay as they are.)
    """
    if len(text) <= _SHORTEST_SHUFFLED:
        return text
    size = -(-len(text) // _SEGMENTS)
    segments = [text[start : start + size] for start in range(0, len(text), size)]
    return " ".join(segments[index] for index in rng.permutation(len(segments)))


# --------------------------------------------------------------------------- the plan of an epoch


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


class Sampler:
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

    def sample(self, epoch: int, dataset: int, row: int) -> Sample:
        """What an epoch draws from one example."""
        example = self.sources[dataset][row]
        sample = draw(
            example,
            generator(self.seed, epoch, dataset, row),
            negatives=self.batching.negatives,
            shuffle_segments=self.batching.shuffle_segments,
            teacher=self.teacher,
        )
        return sample.with_instruction(self.tables[dataset].instruction)

    def rows(self, epoch: int, dataset: int) -> Rows:
        """The examples that an epoch takes of a dataset, in random order.

        With a limit, languages take turns; with ``per_passage``, an example whose positive was
        taken often enough is passed over.
        """
        table, count = self.tables[dataset], len(self.sources[dataset])
        order = generator(self.seed, epoch, dataset).permutation(count)
        if table.examples is None and table.per_passage is None:
            return order
        size = table.examples or count
        uses: Counter[int] = Counter()
        taken: list[int] = []
        for row in self._in_turns(dataset, order) if size < count else order.tolist():
            positive = text_key(self.sample(epoch, dataset, row).passages[0])
            if table.per_passage and uses[positive] >= table.per_passage:
                continue
            uses[positive] += 1
            taken.append(row)
            if len(taken) == size:
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
    sampler: Sampler,
    epoch: int,
    processes: int,
    measure: MeasureLengths,
    embed: EmbedTopics | None = None,
) -> list[PlannedBatch]:
    """The batches of an epoch.

    Args:
        sampler: what is drawn from.
        epoch: 0 for the first.
        processes: how many share a batch; its size is a multiple of them.
        measure: gives lengths.
        embed: gives vectors, needed for ``batching.neighbours``.

    Raises:
        InputError: a dataset does not fill a batch.
        ConfigError: a batch may be one query that has nothing to tell its passage from.
    """
    smallest = sampler.batching.smallest
    if _alone(sampler.batching, processes):
        _check_company(sampler.batching)
        smallest = max(2, smallest)
    batches: list[PlannedBatch] = []
    for dataset in range(len(sampler.sources)):
        rows = sampler.rows(epoch, dataset)
        _check_enough(sampler, dataset, len(rows), processes)
        buckets, vectors = _measured(sampler, epoch, dataset, rows, measure, embed)
        found: list[PlannedBatch] = []
        for bucket in np.unique(buckets).tolist():
            members = np.flatnonzero(buckets == bucket)
            if vectors is not None:
                rng = generator(sampler.seed, epoch, dataset, bucket)
                members = members[grouped(vectors[members], sampler.batching.neighbours, rng)]
            cuts = cut(rows[members], sampler.batching.size(bucket), smallest, processes)
            found += [PlannedBatch(dataset, batch, bucket) for batch in cuts]
        tell_left_out(sampler.sources[dataset].name, epoch, len(rows), found)
        batches += found
    order = generator(sampler.seed, epoch).permutation(len(batches))
    return [batches[index] for index in order]


def cut(rows: Rows, size: int, smallest: int, processes: int) -> list[Rows]:
    """Parts that every process gets as much of; what is too small at the end is left out.

    A whole part is never too small.

    >>> [part.tolist() for part in cut(np.arange(7), 2, 1, 2)]
    [[0, 1, 2, 3], [4, 5]]
    >>> [part.tolist() for part in cut(np.arange(2), 1, 8, 1)]
    [[0], [1]]
    """
    parts = [
        rows[start : start + size * processes] for start in range(0, len(rows), size * processes)
    ]
    even = [group[: len(group) - len(group) % processes] for group in parts]
    return [group for group in even if len(group) >= min(smallest, size) * processes]


def tell_left_out(name: str, epoch: int, examples: int, batches: Sequence[PlannedBatch]) -> None:
    """Log how many of a dataset's examples an epoch has in no batch; many of them are a warning.

    Args:
        name: of the dataset.
        epoch: 0 for the first.
        examples: that the epoch takes of it.
        batches: what became of them.
    """
    left = examples - sum(len(batch.rows) for batch in batches)
    if left:
        log.log(
            logging.WARNING if left > _LEFT_OUT_ALARM * examples else logging.INFO,
            "%s: epoch %d leaves out %d of %d examples: too few of like length for a batch",
            name,
            epoch,
            left,
            examples,
        )


def _alone(table: BatchingTable, processes: int) -> bool:
    """Whether a query that is alone in its process's batch has no loss: nothing to tell its passage from."""
    return not table.negatives and not (processes > 1 and table.across_processes)


def _check_company(table: BatchingTable) -> None:
    longest = bisect_left(table.edges, max(table.query_length, table.passage_length))
    for bucket in range(longest + 1):
        if table.size(bucket) == 1:
            raise ConfigError(
                f"texts of up to {table.edges[bucket]} tokens make batches of one query, which with "
                "negatives = 0 has nothing to tell its passage from: raise batching.tokens (or "
                "sizes), lower passage_length, or mine negatives (m3connect mine)"
            )


def _check_enough(sampler: Sampler, dataset: int, examples: int, processes: int) -> None:
    table = sampler.batching
    smallest = min(table.size(bucket) for bucket in range(len(table.edges))) * processes
    if examples < smallest:
        raise InputError(
            f"{sampler.sources[dataset].name}: {examples} examples do not fill a batch of {smallest} "
            f"({processes} processes): lower batching.sizes, or leave the dataset out"
        )


def _measured(
    sampler: Sampler,
    epoch: int,
    dataset: int,
    rows: Rows,
    measure: MeasureLengths,
    embed: EmbedTopics | None,
) -> tuple[Rows, FloatArray | None]:
    """Every row's range of lengths and, where asked for, its vector."""
    lengths: list[Rows] = []
    vectors: list[FloatArray] = []
    for start in range(0, len(rows), _MEASURED_AT_ONCE):
        chunk = rows[start : start + _MEASURED_AT_ONCE].tolist()
        samples = [sampler.sample(epoch, dataset, row) for row in chunk]
        lengths.append(measure(samples))
        if embed is not None:
            vectors.append(embed(samples))
    buckets = np.searchsorted(sampler.batching.edges, np.concatenate(lengths)) if lengths else rows
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
    return np.concatenate([groups[index] for index in order]) if groups else np.empty(0, np.int64)
