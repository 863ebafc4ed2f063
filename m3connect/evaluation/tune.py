"""Choose fusion, weights, k and depth on some queries, and say on others what it brought.

The queries are split in two. On the tuning part every setting is tried and the best mean wins, if
cross-validation agrees: the setting that is best on the other folds must beat the default on the
fold that it has not seen. Only the held-out part is reported, with an interval.

With several test collections each counts the same, whatever its number of queries: every query's
figure is weighted so that the mean over all queries is the mean over the collections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3connect.contract import Connector, Encoder
from m3connect.datasets.beir import Dataset
from m3connect.errors import InputError
from m3connect.evaluation import live, measure, metrics, run
from m3connect.evaluation.offline import (
    Answer,
    Candidates,
    OfflineSearch,
    by_document,
    passages_for,
)
from m3connect.evaluation.significance import (
    Comparison,
    Interval,
    compare_means,
    interval_of_means,
)
from m3connect.filters import AnyFilter
from m3connect.progress import Progress, silent
from m3connect.searching.modes import (
    DEPTH,
    Preset,
    Setting,
    for_database,
    needed,
    note_of,
    preset_for,
    to_queries,
)
from m3connect.searching.names import TunedMode
from m3connect.searching.search import encode_as_stored
from m3connect.types import Fusion, Rrf, Weighted

SPARSE_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
MULTIVECTOR_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
RRF_K = (10.0, 60.0)
RRF_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
DEPTHS = (50, 100, 200)
MINIMUM = 10
"""Fewer queries than that, in either part, tell nothing."""


@dataclass(frozen=True, slots=True)
class TuningSet:
    """One test collection to tune on.

    Args:
        dataset: queries and judgements.
        search: over its corpus, or over a collection's vectors; its preset must allow the depths.
    """

    dataset: Dataset
    search: OfflineSearch


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting and its mean on the tuning part."""

    setting: Setting
    mean: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning chose, and what it brings on queries that it has not seen.

    Args:
        mode: whose setting it is.
        metric: that was maximised.
        default: the setting to beat.
        chosen: the setting that won; the default where cross-validation saw no gain.
        cross_validated: mean of what each fold's winner of the other folds scores on it.
        trials: all settings, best first.
        before, after: the default and the chosen one on the held-out part.
        gain: the difference there.
        tuned_on, held_out: query ids.
    """

    mode: TunedMode
    metric: str
    default: Setting
    chosen: Setting
    cross_validated: float
    trials: tuple[Trial, ...]
    before: Interval
    after: Interval
    gain: Comparison
    tuned_on: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def default_stays(self) -> bool:
        """Whether no setting won, or the one that did was worse on the queries held out."""
        return self.chosen == self.default or self.gain.difference.mean < 0


def encode_set(
    dataset: Dataset,
    encoder: Encoder,
    mode: TunedMode,
    *,
    cache: Path,
    metric: str = "ndcg@10",
    depths: Sequence[int] = DEPTHS,
    progress: Progress = silent,
) -> TuningSet:
    """A test collection to tune on, encoded.

    Args:
        dataset: corpus, queries and judgements.
        encoder: the model.
        mode: whose fusion is to be tuned.
        cache: folder that keeps embeddings between runs.
        metric: to maximise.
        depths: candidates to try.
        progress: told what goes on.
    """
    preset = for_database(preset_for(encoder.info), max(*depths, DEPTH))
    search = run.exact_search(
        dataset,
        encoder,
        needed([mode]),
        preset,
        cache,
        documents=measure.cutoff([metric]),
        progress=progress,
    )
    return TuningSet(dataset, search)


def read_set(
    dataset: Dataset,
    encoder: Encoder,
    mode: TunedMode,
    connector: Connector,
    folder: Path,
    *,
    metric: str = "ndcg@10",
    depths: Sequence[int] = DEPTHS,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    progress: Progress = silent,
) -> TuningSet:
    """A test collection to tune on, over the vectors that a database holds.

    Args:
        dataset: queries and judgements; its corpus is what the database should hold.
        encoder: the model that made it.
        mode: whose fusion is to be tuned.
        connector: the collection in the database; it is only read.
        folder: for the vectors, needed until tuning ends.
        metric: to maximise.
        depths: candidates to try.
        filter: which records are searched.
        progress: told what goes on.

    Raises:
        FingerprintMismatch: the collection was made by another model.
        InputError: the collection holds none of the dataset's documents.
        ConnectorError: the database failed.
    """
    live.require(connector, encoder)
    preset = for_database(preset_for(encoder.info), max(*depths, DEPTH))
    legs = needed([mode])
    contents = live.read(connector, legs, folder, filter=filter, progress=progress)
    live.differences(dataset, contents)
    texts = [query.text for query in dataset.queries]
    queries = encode_as_stored(connector.describe(), encoder, texts, kind="query", legs=legs)
    search = OfflineSearch(
        contents.ids,
        contents.store,
        queries,
        preset,
        limit=passages_for(
            measure.cutoff([metric]), records=len(contents.ids), corpus=len(contents.documents)
        ),
        document_of=contents.document_of,
        progress=progress,
    )
    return TuningSet(dataset, search)


def notes(tuned: Tuned) -> dict[str, Any]:
    """What a collection is told, by ``annotate``, so that search takes the choice from it.

    Only the tuned mode's note; where the default stayed, None removes an earlier choice.
    """
    return {note_of(tuned.mode): None if tuned.default_stays else tuned.chosen.to_json()}


def split(dataset: Dataset, *, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """The places of the queries to tune on, and of those to report on.

    Raises:
        InputError: a part is too small: what was tuned on is never reported on.
    """
    n = len(dataset.queries)
    order = np.random.default_rng(seed).permutation(n)
    kept = round(n * held_out)
    if kept < MINIMUM or n - kept < MINIMUM:
        raise InputError(
            f"{n} queries with {held_out:.0%} held out leave {n - kept} to tune on and {kept} to "
            f"report on; each part needs {MINIMUM}, since what was tuned on is not reported on"
        )
    return sorted(order[kept:].tolist()), sorted(order[:kept].tolist())


def tune(
    sets: Sequence[TuningSet],
    mode: TunedMode,
    *,
    default: Preset,
    metric: str = "ndcg@10",
    depths: Sequence[int] = DEPTHS,
    held_out: float = 0.3,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> Tuned:
    """Tune one mode's fusion.

    Args:
        sets: test collections to tune on, which count alike.
        mode: whose fusion.
        default: the fusion to beat, at the preset's depth.
        metric: to maximise.
        depths: candidates to try.
        held_out: share of the queries to report on.
        folds: of the cross-validation.
        seed: of the split.
        progress: told of every query and setting.

    Raises:
        InputError: too few queries.
    """
    splits = [split(each.dataset, held_out=held_out, seed=seed) for each in sets]
    tuned_on, reported_on = [on for on, _ in splits], [kept for _, kept in splits]
    start = default.setting(mode)
    tried = list(dict.fromkeys([start, *settings(mode, depths)]))
    deepest = max(setting.depth for setting in tried)
    scorers = [Scorer(each, gather(each.search, mode, deepest, progress), metric) for each in sets]
    figures = np.empty((len(tried), sum(map(len, tuned_on))))
    for row, setting in enumerate(tried):
        figures[row] = _scores(scorers, setting, tuned_on)
        progress("trying settings", row + 1, len(tried))
    unseen = cross_validate(figures, folds=folds, seed=seed)
    best = int(figures.mean(axis=1).argmax())
    chosen = tried[best] if unseen > figures[0].mean() else start
    before = _by_set(scorers, start, reported_on)
    after = _by_set(scorers, chosen, reported_on)
    ranked = np.argsort(-figures.mean(axis=1), kind="stable")
    return Tuned(
        mode,
        metric,
        start,
        chosen,
        unseen,
        tuple(Trial(tried[row], float(figures[row].mean())) for row in ranked),
        interval_of_means(before, seed=seed),
        interval_of_means(after, seed=seed),
        compare_means(after, before, seed=seed),
        _ids(sets, tuned_on),
        _ids(sets, reported_on),
    )


def settings(mode: TunedMode, depths: Sequence[int] = DEPTHS) -> list[Setting]:
    """The settings to try: weighted sums and reciprocal rank fusions, at every depth.

    The dense weight is 1; only its ratio to the others matters.
    """
    multis = MULTIVECTOR_WEIGHTS if mode == "all" else (0.0,)
    fusions: list[Fusion] = [Weighted(1.0, s, m) for s in SPARSE_WEIGHTS for m in multis]
    rrf_multis = RRF_WEIGHTS if mode == "all" else (0.0,)
    fusions += [Rrf(k, 1.0, s, m) for k in RRF_K for s in RRF_WEIGHTS for m in rrf_multis]
    return [Setting(fusion, depth) for depth in depths for fusion in fusions]


def cross_validate(figures: NDArray[np.float64], *, folds: int, seed: int) -> float:
    """What the best setting of the other folds scores on each fold, as a mean over queries.

    Args:
        figures: ``float64 [settings, queries]``.
        folds: how many.
        seed: of the assignment of queries to folds.
    """
    fold = np.random.default_rng(seed).permutation(figures.shape[1]) % folds
    scores = np.empty(figures.shape[1])
    for number in range(folds):
        unseen = fold == number
        best = figures[:, ~unseen].mean(axis=1).argmax()
        scores[unseen] = figures[best, unseen]
    return float(scores.mean())


def _ids(sets: Sequence[TuningSet], places: Sequence[Sequence[int]]) -> tuple[str, ...]:
    return tuple(
        each.dataset.queries[place].id
        for each, chosen in zip(sets, places, strict=True)
        for place in chosen
    )


def _scores(
    scorers: Sequence[Scorer], setting: Setting, places: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """A setting's figures of all queries; their mean is the mean of the collections' means."""
    figures = _by_set(scorers, setting, places)
    total = sum(map(len, figures))
    return np.concatenate([each * (total / (len(figures) * len(each))) for each in figures])


def _by_set(
    scorers: Sequence[Scorer], setting: Setting, places: Sequence[Sequence[int]]
) -> list[NDArray[np.float64]]:
    return [scorer(setting, chosen) for scorer, chosen in zip(scorers, places, strict=True)]


class Scorer:
    """A setting's figure on each of some queries.

    Args:
        tuning_set: judges the answers.
        cases: what each query fuses, gathered at a depth that no setting exceeds.
        metric: such as ``ndcg@10``.
    """

    def __init__(self, tuning_set: TuningSet, cases: Sequence[Candidates], metric: str) -> None:
        self.dataset = tuning_set.dataset
        self.document_of = tuning_set.search.document_of
        self.cases = cases
        self.metric = metric

    def __call__(self, setting: Setting, places: Sequence[int]) -> NDArray[np.float64]:
        answers = [
            (self.dataset.queries[place].id, self._answer(self.cases[place], setting))
            for place in places
        ]
        return metrics.evaluate(answers, self.dataset.qrels, [self.metric])[self.metric]

    def _answer(self, case: Candidates, setting: Setting) -> Answer:
        cut = {leg: ids[: setting.depth] for leg, ids in case.rankings.items()}
        query = replace(case.query, fusion=setting.fusion)
        return by_document(Candidates(query, cut, case.scores).fused(), self.document_of)


def gather(
    search: OfflineSearch, mode: TunedMode, depth: int, progress: Progress
) -> list[Candidates]:
    """What every query of a search fuses in a mode, with candidates to this depth."""
    deep = search.preset.with_setting(mode, replace(search.preset.setting(mode), depth=depth))
    queries = to_queries(mode, deep, search.queries, limit=search.limit)
    cases = []
    for row, case in enumerate(search.candidates(mode, queries)):
        cases.append(case)
        progress("gathering candidates", row + 1, len(search.queries))
    return cases
