"""Fusions of the three scores: settings chosen on development sets, then all measured once on held-out sets.

    python benchmarks/fusion.py --dev DIR --dev DIR ... --held-out DIR ... [--passages DIR ...]
        [--model m3-mini] [--dtype auto] [--cache DIR]

Every fusion scores the same candidates, the union of the best 100 of the dense and of the sparse leg, as
``search`` does in the mode ``all``. Folders given with --passages, too, are cut as ``eval --passages`` does.

A setting is as good as its mean nDCG@10 over the sets, less what its worst set lacks to within 0.005 of the
best single mode there: a fusion that does not lose. "Left out" is the mean over sets of what the winner of
all other sets scores on each. Prints two tables of Markdown: the development sets, the held-out sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from m3connect import M3Encoder
from m3connect.contract import Encoder
from m3connect.datasets import beir
from m3connect.evaluation import metrics, run
from m3connect.evaluation.offline import Candidates, OfflineSearch, by_document
from m3connect.evaluation.passages import cut
from m3connect.evaluation.significance import compare_means
from m3connect.ingestion.chunking import Chunker
from m3connect.searching import fusion
from m3connect.searching.modes import preset_for, to_queries
from m3connect.searching.scoring import sparse_scores
from m3connect.types import LEGS, SparseVectors

METRIC, ALLOWED = "ndcg@10", 0.005
DENSE, SPARSE, MAXSIM = 0, 1, 2
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """A query's candidates, in the order of their ids.

    Args:
        ids: of the candidates.
        scores: ``[N, 3]`` dense, sparse, MaxSim.
        places: ``[N, 3]`` ranks from 1; infinity where the leg did not bring the candidate.
        share: ``[N]`` how much of the query's lexical mass the candidate has the terms of.
        tokens: of the query.
        latin: whether the query is mostly in Latin letters.
        relevant: ``[N]`` whether it, or its document, is judged relevant.
    """

    ids: list[str]
    scores: Scores
    places: Scores
    share: Scores
    tokens: int
    latin: bool
    relevant: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Collection:
    """A test collection with the candidates of every query."""

    dataset: beir.Dataset
    search: OfflineSearch
    cases: list[Case]

    def figures(self, fuse: Callable[..., Scores], setting: Sequence[float]) -> Scores:
        """nDCG@10 of every query under a fusion."""
        answers = (
            (query.id, by_document(self._best(case, fuse(case, *setting)), self.search.document_of))
            for query, case in zip(self.dataset.queries, self.cases, strict=True)
        )
        return metrics.evaluate(answers, self.dataset.qrels, [METRIC])[METRIC]

    def _best(self, case: Case, scores: Scores) -> dict[str, float]:
        order = np.argsort(-scores, kind="stable")[: self.search.limit]
        return {case.ids[row]: float(scores[row]) for row in order}


# ------------------------------------------------------------------------------------ candidates


def collect(folder: Path, encoder: Encoder, cache: Path, *, passages: bool) -> Collection:
    """Encode a collection, or take it from the cache, and score every query's candidates."""
    dataset = beir.load(folder)
    made = cut(dataset, Chunker(encoder)) if passages else None
    search = run.exact_search(
        dataset, encoder, LEGS, preset_for(encoder.info), cache, documents=10, passages=made
    )
    return Collection(dataset, search, list(_cases(dataset, search)))


def _cases(dataset: beir.Dataset, search: OfflineSearch) -> Iterator[Case]:
    row_of = {id_: row for row, id_ in enumerate(search.ids)}
    asked = to_queries("all", search.preset, search.queries, limit=search.limit)
    for row, found in enumerate(search.candidates("all", asked)):
        text = dataset.queries[row]
        ids = sorted(found.scores["dense"])
        sparse = found.query.sparse
        store = search.store.take(np.array([row_of[id_] for id_ in ids]), ("sparse",)).sparse
        assert sparse is not None
        assert store is not None
        ones = SparseVectors(store.indptr, store.indices, np.ones_like(store.values))
        scores = np.array([[found.scores[leg][id_] for leg in LEGS] for id_ in ids])
        judged = dataset.qrels[text.id]
        documents = [search.document_of.get(id_, id_) for id_ in ids]
        yield Case(
            ids,
            scores,
            _places(ids, found),
            sparse_scores(sparse, ones) / max(float(sparse.values.sum()), 1e-9),
            int(search.queries.n_tokens[row]),
            np.mean([ord(letter) < 0x250 for letter in text.text if letter.isalpha()] or [1]) > 0.5,
            np.array([judged.get(id_, 0) > 0 for id_ in documents]),
        )


def _places(ids: Sequence[str], found: Candidates) -> Scores:
    late = found.scores["multivector"]
    rankings = [*found.rankings.values(), fusion.top(late, len(late))]
    by_id = [{id_: place for place, id_ in enumerate(ranking, 1)} for ranking in rankings]
    return np.array([[place.get(id_, np.inf) for place in by_id] for id_ in ids])


# --------------------------------------------------------------------------------------- fusions


def one(case: Case, leg: int) -> Scores:
    """A single mode over the same candidates."""
    return case.scores[:, leg]


def weighted(case: Case, sparse: float, maxsim: float) -> Scores:
    """The paper's: ``dense + sparse weight * sparse + MaxSim weight * MaxSim``."""
    return case.scores @ np.array([1.0, sparse, maxsim])


def min_max(case: Case, sparse: float, maxsim: float) -> Scores:
    """Each leg's scores between its worst (0) and best (1) candidate, then summed."""
    low, high = case.scores.min(axis=0), case.scores.max(axis=0)
    return ((case.scores - low) / np.maximum(high - low, 1e-9)) @ np.array([1.0, sparse, maxsim])


def standard(case: Case, sparse: float, maxsim: float) -> Scores:
    """Each leg's scores less their mean, by their deviation, then summed."""
    spread = np.maximum(case.scores.std(axis=0), 1e-9)
    return ((case.scores - case.scores.mean(axis=0)) / spread) @ np.array([1.0, sparse, maxsim])


def distribution(case: Case, sparse: float, maxsim: float) -> Scores:
    """Distribution-based: mean +- 3 deviations become 0 and 1, what is outside is cut off."""
    spread = 3 * np.maximum(case.scores.std(axis=0), 1e-9)
    scaled = (case.scores - case.scores.mean(axis=0) + spread) / (2 * spread)
    return np.clip(scaled, 0, 1) @ np.array([1.0, sparse, maxsim])


def rank(case: Case, k: float, sparse: float, maxsim: float) -> Scores:
    """Reciprocal rank fusion."""
    return (1 / (k + case.places)) @ np.array([1.0, sparse, maxsim])


def _top_share(case: Case) -> float:
    """What the ten best of dense and MaxSim have of the query's lexical mass, on the mean."""
    best = np.argsort(-(case.scores[:, DENSE] + case.scores[:, MAXSIM]), kind="stable")[:10]
    return float(case.share[best].mean())


def by_top_share(case: Case, sparse: float, maxsim: float, power: float) -> Scores:
    """The sparse weight falls where the candidates of meaning do not have the query's terms."""
    return weighted(case, sparse * _top_share(case) ** power, maxsim)


def by_most_share(case: Case, sparse: float, maxsim: float, power: float) -> Scores:
    """The sparse weight falls where no candidate has the query's terms."""
    return weighted(case, sparse * float(case.share.max()) ** power, maxsim)


def by_length(case: Case, sparse: float, maxsim: float, power: float) -> Scores:
    """The sparse weight falls, or rises, with the length of the query; 12 tokens are usual."""
    return weighted(case, sparse * (case.tokens / 12) ** power, maxsim)


def by_script(case: Case, latin: float, others: float, maxsim: float) -> Scores:
    """A sparse weight for queries in Latin letters, and one for all others."""
    return weighted(case, latin if case.latin else others, maxsim)


def imputed(case: Case, sparse: float, maxsim: float, least: float) -> Scores:
    """A candidate that has too few of the query's terms gets what others of its MaxSim have.

    Its missing terms are then no evidence against it: the line through the query's candidates that
    have them says what lexical score would be usual.
    """
    known = case.share >= least
    scores = case.scores.copy()
    if 3 <= known.sum() < len(known) and np.ptp(scores[known, MAXSIM]) > 1e-6:
        slope, start = np.polyfit(scores[known, MAXSIM], scores[known, SPARSE], 1)
        usual = start + max(slope, 0.0) * scores[~known, MAXSIM]
        scores[~known, SPARSE] = np.maximum(scores[~known, SPARSE], usual)
    return scores @ np.array([1.0, sparse, maxsim])


def features(case: Case) -> Scores:
    """What the logistic model sees: the three scores, standardised too, and both with the top share."""
    spread = np.maximum(case.scores.std(axis=0), 1e-9)
    z = (case.scores - case.scores.mean(axis=0)) / spread
    share = _top_share(case)
    return np.concatenate([case.scores, z / 10, share * case.scores, share * z / 10], axis=1)


def logistic(case: Case, *weights: float) -> Scores:
    """A linear model of :func:`features`, or of the three scores alone."""
    seen = case.scores if len(weights) == 3 else features(case)
    return seen @ np.array(weights)


def fit(sets: Sequence[Collection], wide: bool) -> tuple[float, ...]:
    """The logistic model over each query's candidates (softmax), every set counting alike."""
    groups = []
    for each in sets:
        cases = [case for case in each.cases if case.relevant.any()]
        groups += [
            (features(c) if wide else c.scores, c.relevant / c.relevant.sum(), 1 / len(cases))
            for c in cases
        ]

    def loss(weights: Scores) -> tuple[float, Scores]:
        total, slope = 0.0005 * float(weights @ weights), 0.001 * weights
        for seen, target, weight in groups:
            logits = seen @ weights
            logits = logits - logits.max()
            odds = np.exp(logits)
            odds /= odds.sum()
            total -= weight * float(target @ np.log(odds + 1e-30))
            slope = slope + weight * (seen.T @ (odds - target))
        return total, slope

    width = 12 if wide else 3
    start = np.array([10.0, 3.0, 10.0] + [0.0] * (width - 3))
    return tuple(minimize(loss, start, jac=True, method="L-BFGS-B").x.tolist())


SPARSE_WEIGHTS, MAXSIM_WEIGHTS = (0.1, 0.3, 0.5, 1.0), (1.0, 2.0, 4.0)
PAIR = (SPARSE_WEIGHTS, MAXSIM_WEIGHTS)
FAMILIES: dict[str, tuple[Callable[..., Scores], list[tuple[float, ...]]]] = {
    "the paper's sum, tuned": (weighted, list(product(*PAIR))),
    "min-max": (min_max, list(product(*PAIR))),
    "z": (standard, list(product(*PAIR))),
    "distribution-based": (distribution, list(product(*PAIR))),
    "reciprocal ranks": (rank, list(product((10, 60), *PAIR))),
    "weight by share, top ten": (by_top_share, list(product(*PAIR, (1, 2)))),
    "weight by share, best": (by_most_share, list(product(*PAIR, (1, 4)))),
    "weight by length": (by_length, list(product(*PAIR, (-0.5, 0.5)))),
    "weight by script": (by_script, list(product((0.1, 0.3, 1), (0.1, 0.3, 1), MAXSIM_WEIGHTS))),
    "missing terms imputed": (imputed, list(product(*PAIR, (0.3, 0.6)))),
}  # fmt: skip


# --------------------------------------------------------------------------- choosing, reporting


@dataclass(frozen=True, slots=True)
class Chosen:
    """A fusion, its setting, its figures on every set, and what it scores on sets left out."""

    name: str
    fuse: Callable[..., Scores]
    setting: tuple[float, ...]
    figures: list[Scores]
    left_out: float | None

    def on(self, sets: Sequence[Collection]) -> list[Scores]:
        """Its figures on other sets."""
        return [each.figures(self.fuse, self.setting) for each in sets]


def goodness(means: Scores, single: Scores) -> Scores:
    """Mean over sets, less what the worst lacks to within ``ALLOWED`` of the best single mode.

    Args:
        means: ``[settings, sets]``.
        single: ``[sets]`` of the best single mode.
    """
    worst = (means - single).min(axis=1)
    return means.mean(axis=1) - np.maximum(0.0, -ALLOWED - worst)


def choose(sets: Sequence[Collection], single: Scores) -> Iterator[Chosen]:
    """The best setting of every family on some sets."""
    everything = np.arange(len(sets))
    for name, (fuse, settings) in FAMILIES.items():
        figures = [[each.figures(fuse, setting) for each in sets] for setting in settings]
        means = np.array([[row.mean() for row in rows] for rows in figures])
        unseen = []
        for out in everything:
            others = everything != out
            winner = goodness(means[:, others], single[others]).argmax()
            unseen.append(means[winner, out])
        best = int(goodness(means, single).argmax())
        yield Chosen(name, fuse, settings[best], figures[best], float(np.mean(unseen)))
    for name, wide in (("logistic, three scores", False), ("logistic, with z and share", True)):
        unseen = []
        for out, each in enumerate(sets):
            weights = fit([other for at, other in enumerate(sets) if at != out], wide)
            unseen.append(each.figures(logistic, weights).mean())
        weights = fit(sets, wide)
        on_all = [each.figures(logistic, weights) for each in sets]
        yield Chosen(name, logistic, weights, on_all, float(np.mean(unseen)))


def table(
    sets: Sequence[Collection], rows: Sequence[tuple[Chosen, list[Scores]]], single: Scores
) -> Iterator[str]:
    """One line a fusion; differences are to the paper's sum, the row that has no setting to choose."""
    names = [each.dataset.name for each in sets]
    paper = next(figures for chosen, figures in rows if chosen.name == "the paper's sum")
    yield "| nDCG@10 | " + " | ".join(names) + " | mean | to the paper's sum | worst | left out |"
    yield "|---" * (len(names) + 5) + "|"
    for chosen, figures in rows:
        means = np.array([values.mean() for values in figures])
        gain = compare_means(figures, paper).difference
        place = int((means - single).argmin())
        setting = ", ".join(f"{value:g}" for value in np.round(chosen.setting, 2))
        cells = [f"{value:.3f}" for value in means]
        yield (
            f"| {chosen.name}{f' ({setting})' if 0 < len(chosen.setting) < 6 else ''} | "
            + " | ".join(cells)
            + f" | {means.mean():.4f} | {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
            + f" | {means[place] - single[place]:+.3f} {names[place]}"
            + f" | {'' if chosen.left_out is None else f'{chosen.left_out:.4f}'} |"
        )


def fixed(encoder: Encoder, sets: Sequence[Collection]) -> list[Chosen]:
    """The single modes and the paper's sum: nothing to choose."""
    rows = [(leg, one, (at,)) for at, leg in enumerate(LEGS)]
    _, sparse, maxsim = (weight / encoder.info.weights[0] for weight in encoder.info.weights)
    made = [
        Chosen(name, fuse, setting, [], None)
        for name, fuse, setting in [*rows, ("the paper's sum", weighted, (sparse, maxsim))]
    ]
    return [Chosen(c.name, c.fuse, c.setting, c.on(sets), None) for c in made]


def main() -> None:
    """Choose on the development sets, print; measure what was chosen on the held-out sets, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    for option in ("--dev", "--held-out", "--passages"):
        parser.add_argument(option, type=Path, action="append", default=[])
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    encoder = M3Encoder.load(options.model, dtype=options.dtype)

    def load(folders: Sequence[Path]) -> list[Collection]:
        return [
            collect(folder, encoder, options.cache, passages=folder in options.passages)
            for folder in folders
        ]

    dev = load(options.dev)
    known = fixed(encoder, dev)
    single = np.array([[values.mean() for values in each.figures] for each in known[:3]]).max(
        axis=0
    )
    tried = [*known, *choose(dev, single)]
    print("\n".join(table(dev, [(each, each.figures) for each in tried], single)), flush=True)
    if options.held_out:
        held_out = load(options.held_out)
        rows = [(each, each.on(held_out)) for each in tried]
        best = np.array([[values.mean() for values in figures] for _, figures in rows[:3]]).max(
            axis=0
        )
        print("\n" + "\n".join(table(held_out, rows, best)))


if __name__ == "__main__":
    main()
