"""What a collection should be like for some data: how to cut, which mode, which fusion, how deep, at what cost.

    cuts x modes x fusions x depths  ->  trials with figures and costs  ->  the frontier: what nothing cheaper beats

Every trial is what ``m3connect eval --passages`` measures with these options. Its costs are bytes a document,
seconds to encode the corpus, and milliseconds a query: encoding it and searching exactly, alone, on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m3connect.contract import Encoder
from m3connect.datasets.beir import Dataset
from m3connect.errors import InputError
from m3connect.evaluation import compression, metrics, run
from m3connect.evaluation.passages import cut
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.evaluation.significance import Interval, compare, interval
from m3connect.evaluation.tune import MINIMUM, Scorer, TuningSet, cross_validate, gather
from m3connect.ingestion.chunking import Chunker
from m3connect.ingestion.planning import SAMPLE, cost_of
from m3connect.progress import Progress, silent
from m3connect.reporting import charts, pages
from m3connect.reporting.pages import Table
from m3connect.searching.modes import (
    Preset,
    for_database,
    legs_of,
    needed,
    preset_for,
    with_fusion,
)
from m3connect.searching.names import Mode, TunedMode
from m3connect.types import Embeddings, Leg

FusionKind = Literal["weighted", "rrf"]
TIMED = 20
"""Queries that are timed, one by one, for each cut, mode, fusion and depth."""
NOISE = 1.2
"""A time counts as higher when it is so many times the other."""
_LEAD = (
    "The frontier: settings that no other beats at no higher cost. = marks what a paired test cannot tell from "
    "the best (p \u2265 0.05): take the cheapest of those. The best was chosen among many on the very queries it is "
    "reported on, {best.mean:.3f} ({best.low:.3f} to {best.high:.3f}); chosen on some and measured on others, such a "
    "choice scores {unseen:.3f} {metric}. Queries are encoded and searched exactly, one at a time, on this machine: an "
    "index of a database is faster where there are many documents."
)


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no one answer to ==
class Trial:
    """One way to cut and to search, what it finds and what it costs.

    Args:
        cut_as: how documents were cut; ``whole`` when they were not.
        mode: of search.
        fusion: of the modes of several legs' scores; empty elsewhere.
        depth: candidates a leg; 0 where one leg searches.
        figures: ``float64 [Q]`` of the metric.
        size: bytes a document.
        encoding: seconds for the whole corpus.
        query: milliseconds.
    """

    cut_as: str
    mode: Mode
    fusion: str
    depth: int
    figures: NDArray[np.float64]
    size: float
    encoding: float
    query: float

    @property
    def mean(self) -> float:
        """Of the figures."""
        return float(self.figures.mean())

    def to_json(self) -> dict[str, Any]:
        """As JSON values: the mean instead of all figures."""
        values = asdict(self)
        del values["figures"]
        return {"mean": self.mean, **values}


@dataclass(frozen=True, slots=True)
class Sweep:
    """All trials on one dataset.

    Args:
        dataset: its name.
        metric: that was measured.
        trials: in the order they were made.
        unseen: mean of what each fold's winner of the other folds scores on it.
        best: interval of the winner's mean over all queries, on which it was chosen.
        warnings: what was odd.
    """

    dataset: str
    metric: str
    trials: tuple[Trial, ...]
    unseen: float
    best: Interval
    warnings: tuple[str, ...] = ()

    def frontier(self) -> list[Trial]:
        """The trials that no other beats at no higher cost, best first.

        Times are compared with a tolerance, or noise would keep what is no better.
        """
        kept: list[Trial] = []
        for trial in sorted(self.trials, key=lambda each: (-each.mean, each.size, each.query)):
            if not any(_costs_no_more(better, trial) for better in kept):
                kept.append(trial)
        return kept

    def table(self, trials: Sequence[Trial]) -> Table:
        """One line a trial; ``=`` marks what a paired test cannot tell from the best of them."""
        best = max(trials, key=lambda each: each.mean)
        return Table.of(
            [
                "cut",
                "mode",
                "fusion",
                "depth",
                self.metric,
                "bytes per document",
                "encoding s",
                "query ms",
            ],
            [_row(trial, best) for trial in trials],
        )

    def page(self) -> str:
        """Frontier, charts and all trials as one HTML document."""
        front = self.frontier()
        title = f"{self.dataset}: {self.metric}"
        costs: dict[str, Literal["size", "encoding", "query"]] = {
            "bytes per document": "size",
            "seconds to encode": "encoding",
            "milliseconds a query": "query",
        }
        return pages.page(
            f"Sweep over {self.dataset}",
            _LEAD.format(unseen=self.unseen, best=self.best, metric=self.metric),
            tables=[self.table(front)],
            charts=[
                charts.scatter(
                    f"{title} against {name}", name, self.metric, _points(self.trials, front, cost)
                )
                for name, cost in costs.items()
            ],
            details={
                "all trials": self.table(self.trials).markdown(),
                **({"warnings": "\n".join(self.warnings)} if self.warnings else {}),
            },
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        front = self.frontier()
        return {
            "dataset": self.dataset,
            "metric": self.metric,
            "cross_validated": self.unseen,
            "best": asdict(self.best),
            "warnings": list(self.warnings),
            "trials": [{**trial.to_json(), "frontier": trial in front} for trial in self.trials],
        }


def sweep(
    dataset: Dataset,
    encoder: Encoder,
    cuts: Sequence[Chunker | None],
    *,
    modes: Sequence[Mode],
    fusions: Sequence[FusionKind] = ("weighted", "rrf"),
    depths: Sequence[int] = (50, 100, 200),
    metric: str = "ndcg@10",
    cache: Path,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> Sweep:
    """Try every combination.

    Args:
        dataset: corpus, queries and judgements.
        encoder: the model.
        cuts: what cuts the documents; None leaves them whole.
        modes, fusions, depths: to try.
        metric: to compare by.
        cache: folder that keeps embeddings between runs.
        folds: of the cross-validation.
        seed: of the folds.
        progress: told what goes on.

    Raises:
        InputError: too few queries to cross-validate.
    """
    if len(dataset.queries) < 2 * MINIMUM:
        raise InputError(
            f"{dataset.name} has {len(dataset.queries)} queries; a choice among many settings needs "
            f"{2 * MINIMUM} at least, and is worth little under 100"
        )
    trials: list[Trial] = []
    warnings = list(dataset.warnings)
    for number, chunker in enumerate(cuts):
        progress("cuts", number, len(cuts))
        prepared = _Cut(dataset, encoder, chunker, modes, max(depths), metric, cache, progress)
        trials += prepared.trials(modes, fusions, depths)
        warnings += prepared.warnings
    progress("cuts", len(cuts), len(cuts))
    figures = np.stack([trial.figures for trial in trials])
    best = trials[int(figures.mean(axis=1).argmax())]
    unseen = cross_validate(figures, folds=folds, seed=seed)
    spread = interval(best.figures, seed=seed)
    told = tuple(dict.fromkeys(warnings))
    return Sweep(dataset.name, metric, tuple(trials), unseen, spread, told)


class _Cut:
    """The corpus cut in one way, encoded, and all that is searched in it."""

    def __init__(
        self,
        dataset: Dataset,
        encoder: Encoder,
        chunker: Chunker | None,
        modes: Sequence[Mode],
        depth: int,
        metric: str,
        cache: Path,
        progress: Progress,
    ) -> None:
        self.dataset, self.encoder, self.metric, self.progress = dataset, encoder, metric, progress
        made = None if chunker is None else cut(dataset, chunker)
        self.cut_as = "whole" if made is None else made.cut_as.partition(", ")[2]
        legs = needed(modes, available=encoder.info.fingerprint.legs)
        self.search = run.exact_search(
            dataset,
            encoder,
            legs,
            for_database(preset_for(encoder.info), depth),
            cache,
            documents=metrics.cut(metric),
            passages=made,
            progress=progress,
        )
        records = "documents" if made is None else f"passages ({self.cut_as})"
        self.warnings = self.search.cut_off(records)
        store = self.search.store
        self.sizes = compression.bytes_per_document(store.shards, len(dataset.ids))
        texts = made.encoded() if made else (each.text for each in dataset.documents())
        sample = [text for text, _ in zip(texts, range(SAMPLE), strict=False)]
        cost = cost_of(encoder, sample, legs)
        self.encoding = _tokens(store) * cost.seconds / cost.tokens

    def trials(
        self, modes: Sequence[Mode], fusions: Sequence[FusionKind], depths: Sequence[int]
    ) -> Iterator[Trial]:
        """Every mode, fusion and depth; a depth below the limit is the limit, as search has it."""
        fused = [mode for mode in modes if mode not in ("dense", "sparse")]
        score = None
        if fused:
            widest: TunedMode = "hybrid" if fused == ["hybrid"] else "all"
            deepest = max(self.search.preset.depth, self.search.limit)
            cases = gather(self.search, widest, deepest, self.progress)
            score = Scorer(TuningSet(self.dataset, self.search), cases, self.metric)
        places = range(len(self.dataset.queries))
        for mode in modes:
            if mode == "dense" or mode == "sparse":  # noqa: PLR1714 - mypy narrows no set
                answers = zip(self.dataset.queries, self.search.run_by_document(mode), strict=True)
                ranked = ((query.id, answer) for query, answer in answers)
                figures = metrics.evaluate(ranked, self.dataset.qrels, [self.metric])
                yield self._trial(mode, "", 0, figures[self.metric], self.search.preset)
                continue
            assert score is not None
            for depth in dict.fromkeys(max(depth, self.search.limit) for depth in depths):
                for kind in fusions if mode != "multivector" else fusions[:1]:
                    preset = for_database(
                        with_fusion(preset_for(self.encoder.info), kind=kind), depth
                    )
                    setting = preset.setting(mode)
                    name = "" if mode == "multivector" else kind
                    yield self._trial(mode, name, depth, score(setting, places), preset)

    def _trial(
        self, mode: Mode, fusion: str, depth: int, figures: NDArray[np.float64], preset: Preset
    ) -> Trial:
        size = sum(self.sizes[leg] for leg in legs_of(mode, preset) if leg in self.sizes)
        query = self._milliseconds(mode, preset)
        return Trial(self.cut_as, mode, fusion, depth, figures, size, self.encoding, query)

    def _milliseconds(self, mode: Mode, preset: Preset) -> float:
        """The median query: encoded, then searched exactly in all passages."""
        legs: tuple[Leg, ...] = needed([mode], preset, available=self.encoder.info.fingerprint.legs)
        seconds = []
        for query in self.dataset.queries[:TIMED]:
            start = time.perf_counter()
            embedded: Embeddings = self.encoder.encode([query.text], kind="query", legs=legs)
            list(self.search.with_queries(embedded, preset).run_by_document(mode))
            seconds.append(time.perf_counter() - start)
        return float(np.median(seconds)) * 1000


def _costs_no_more(trial: Trial, other: Trial) -> bool:
    return (
        trial.size <= other.size
        and trial.encoding <= NOISE * other.encoding
        and trial.query <= NOISE * other.query
    )


def _row(trial: Trial, best: Trial) -> list[str]:
    same = trial is not best and compare(trial.figures, best.figures).p_value >= 0.05
    return [
        trial.cut_as,
        trial.mode,
        trial.fusion,
        str(trial.depth or ""),
        f"{trial.mean:.3f}" + " =" * same,
        f"{trial.size:,.0f}",
        f"{trial.encoding:.1f}",
        f"{trial.query:.1f}",
    ]


def _points(
    trials: Sequence[Trial], labelled: Sequence[Trial], cost: Literal["size", "encoding", "query"]
) -> list[charts.Point]:
    return [
        charts.Point(
            f"{each.mode} {each.fusion}".strip() if each in labelled else "",
            getattr(each, cost),
            each.mean,
            each.cut_as,
        )
        for each in trials
    ]


def _tokens(store: EmbeddingStore) -> int:
    return sum(int(shard.n_tokens.sum()) for shard in store.shards)
