"""Hard negatives: passages that a mode ranks high for a query and that do not answer it.

A passage near the top is often a positive that nobody has judged. So the thresholds look at the
positive (NV-Retriever, arXiv 2407.15831): a negative must score clearly less than the worst positive.
Reciprocal rank fusion leaves no scores to compare: there, only ranks bound the negatives.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from m3connect.contract import Connector, Encoder
from m3connect.datasets.beir import Dataset
from m3connect.errors import ConfigError
from m3connect.evaluation.offline import Answer, OfflineSearch
from m3connect.filters import AnyFilter, as_filter
from m3connect.progress import Progress, silent
from m3connect.searching import fusion, planner
from m3connect.searching.modes import Preset, scored_legs, to_queries, to_query
from m3connect.searching.names import Mode
from m3connect.searching.scoring import leg_scores
from m3connect.searching.search import encode_as_stored
from m3connect.types import Embeddings, Leg, Query, Rrf

Weights = Mapping[Leg, float]
"""What each leg counts in a mode's score."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which candidates may be negatives.

    Args:
        negatives: how many a query.
        first, last: ranks to take them from, 1 for the best.
        pick: drawn at random from these ranks, or the best of them.
        max_score: none scores more than this.
        max_share: none scores more than this share of the worst positive's score.
        margin: each scores at least so much less than the worst positive.
        percentile: none scores more than this percentile of all positives' scores in the dataset:
            5 drops what outscores the weakest 5 % of them, whatever the query's own positives score.
        seed: of what is drawn.

    Raises:
        ConfigError: ranks, counts or a percentile that make no sense.
    """

    negatives: int = 15
    first: int = 10
    last: int = 210
    pick: Literal["random", "best"] = "random"
    max_score: float | None = None
    max_share: float | None = 0.95
    margin: float | None = None
    percentile: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.negatives < 1 or not 1 <= self.first <= self.last:
            raise ConfigError(
                f"{self.negatives} negatives from ranks {self.first} to {self.last}: at least one "
                "negative, ranks from 1, the first not after the last"
            )
        if self.percentile is not None and not 0 <= self.percentile <= 100:
            raise ConfigError(f"a percentile lies between 0 and 100, got {self.percentile}")

    def highest(self, worst_positive: float) -> float:
        """The score that a negative must not exceed.

        >>> Rules(max_share=0.9, margin=0.2, max_score=0.75).highest(1.0)
        0.75
        >>> Rules(max_share=0.9, margin=0.2).highest(0.5)
        0.3
        """
        bounds = [float("inf")]
        if self.max_score is not None:
            bounds.append(self.max_score)
        if self.max_share is not None:
            bounds.append(worst_positive - (1 - self.max_share) * abs(worst_positive))
        if self.margin is not None:
            bounds.append(worst_positive - self.margin)
        return min(bounds)


@dataclass(frozen=True, slots=True)
class Mined:
    """One query with its positives and negatives.

    Args:
        query_id: of the query.
        query: its text.
        positives, negatives: document ids with the mode's scores, best first. Where ranks are
            fused, a positive that is not among the candidates has 0.
    """

    query_id: str
    query: str
    positives: Answer
    negatives: Answer


@dataclass(slots=True)
class Tally:
    """What mining kept and why it dropped the rest; filled while mining.

    Args:
        max_score: what :attr:`Rules.percentile` came to.
    """

    queries: int = 0
    negatives: int = 0
    short: int = 0
    left_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    max_score: float = float("inf")


class Source(Protocol):
    """Where candidates come from.

    Args:
        weights: of the legs in a score; None where ranks are fused.
    """

    weights: Weights | None

    def answers(self) -> Iterator[Answer]:
        """Every query's candidates, best first."""

    def score(self, row: int, ids: Sequence[str]) -> Answer:
        """What the mode gives these documents for a query; not asked where ranks are fused."""


def mine(
    dataset: Dataset,
    texts: Mapping[str, str],
    source: Source,
    rules: Rules,
    tally: Tally,
    *,
    sample_of: Dataset | None = None,
    progress: Progress = silent,
) -> Iterator[Mined]:
    """Negatives for every query that gets any, in the dataset's order.

    No negative is a positive or equals one, or the query, or another negative, up to case and white
    space; the positives of a query that is asked twice are those of both. The same seed gives the same
    negatives, whatever queries of other texts there are.

    Args:
        dataset: queries and judgements.
        texts: of all documents.
        source: of candidates.
        rules: for them.
        tally: counts what was kept and dropped.
        sample_of: the dataset that these queries were drawn from; its judgements tell what answers
            a query that is asked twice.
        progress: told of every query.

    Raises:
        ConfigError: the rules compare scores and the source fuses ranks.
    """
    check(rules, source.weights)
    relevant = [_relevant(dataset.qrels[query.id], texts) for query in dataset.queries]
    answering: dict[str, set[str]] = {}
    for query in (sample_of or dataset).queries:
        ids = _relevant((sample_of or dataset).qrels[query.id], texts)
        answering.setdefault(_plain(query.text), set()).update(ids)
    known: dict[int, Answer] = {}
    if rules.percentile is not None:
        known = {row: source.score(row, ids) for row, ids in enumerate(relevant) if ids}
        tally.max_score = _percentile(rules.percentile, known.values())
    for row, (query, answer) in enumerate(zip(dataset.queries, source.answers(), strict=True)):
        progress("mining", row + 1, len(dataset.queries))
        if not relevant[row]:
            tally.left_out += 1
            continue
        positives = known.get(row) or _scores(row, relevant[row], answer, source)
        positives = {id_: positives[id_] for id_ in fusion.top(positives, len(positives))}
        highest = min(rules.highest(min(positives.values())), tally.max_score)
        asked = _plain(query.text)
        taken = {asked, *(_plain(texts[id_]) for id_ in answering[asked])}
        allowed: Answer = {}
        for rank, (id_, score) in enumerate(answer.items(), start=1):
            plain = _plain(texts.get(id_, ""))
            reason = _why_not(id_, score, rank, rules, highest, answering[asked])
            if not reason and id_ not in texts:
                reason = "not among the dataset's documents"
            elif not reason and plain in taken:
                reason = "same text as the query, a positive or another negative"
            if reason:
                tally.dropped[reason] += 1
            else:
                taken.add(plain)
                allowed[id_] = score
        negatives = _pick(allowed, query.id, rules)
        if not negatives:
            tally.left_out += 1
            continue
        tally.queries += 1
        tally.negatives += len(negatives)
        tally.short += len(negatives) < rules.negatives
        yield Mined(query.id, query.text, positives, negatives)


def as_examples(mined: Iterable[Mined], texts: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Training examples, as training and FlagEmbedding read them: query, pos, neg.

    Args:
        mined: what :func:`mine` gave.
        texts: of all documents.
    """
    for each in mined:
        yield {
            "query": each.query,
            "pos": [texts[id_] for id_ in each.positives],
            "neg": [texts[id_] for id_ in each.negatives],
        }


def check(rules: Rules, by_leg: Weights | None) -> None:
    """See that thresholds have scores to compare.

    Raises:
        ConfigError: they compare scores and ranks are fused.
    """
    bounds = (rules.max_score, rules.max_share, rules.margin, rules.percentile)
    if by_leg is None and any(bound is not None for bound in bounds):
        raise ConfigError(
            "reciprocal rank fusion has no scores that a threshold could compare: bound its ranks "
            "with --first and --last, or take --fusion weighted"
        )


def _relevant(judged: Mapping[str, int], texts: Mapping[str, str]) -> list[str]:
    return [id_ for id_, relevance in judged.items() if relevance > 0 and id_ in texts]


def _scores(row: int, ids: Sequence[str], answer: Answer, source: Source) -> Answer:
    """A query's positives with what ranks the candidates."""
    if source.weights is None:
        return {id_: answer.get(id_, 0.0) for id_ in ids}
    return source.score(row, ids)


def _percentile(percentile: float, positives: Iterable[Answer]) -> float:
    """Of the scores of all queries' positives."""
    scores = [score for answer in positives for score in answer.values()]
    return float(np.percentile(scores, percentile)) if scores else float("inf")


def _why_not(
    id_: str, score: float, rank: int, rules: Rules, highest: float, positives: Container[str]
) -> str:
    if id_ in positives:
        return "positive"
    if not rules.first <= rank <= rules.last:
        return "outside the ranks"
    return "scores too high" if score > highest else ""


def _pick(allowed: Answer, query_id: str, rules: Rules) -> Answer:
    ids = list(allowed)
    if rules.pick == "random" and len(ids) > rules.negatives:
        rng = np.random.default_rng([rules.seed, zlib.crc32(query_id.encode(errors="replace"))])
        ids = [ids[row] for row in np.sort(rng.choice(len(ids), rules.negatives, replace=False))]
    return {id_: allowed[id_] for id_ in ids[: rules.negatives]}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


# --------------------------------------------------------------------------------------- sources


class OfflineSource:
    """Candidates by exact search.

    Args:
        search: over the corpus.
        mode: that ranks.
    """

    def __init__(self, search: OfflineSearch, mode: Mode) -> None:
        self.search = search
        self.mode = mode
        self.weights = weights(mode, search.preset)
        self.rows = {id_: row for row, id_ in enumerate(search.ids)}

    def answers(self) -> Iterator[Answer]:
        """Every query's candidates, best first."""
        return self.search.run(self.mode)

    def score(self, row: int, ids: Sequence[str]) -> Answer:
        """What the mode gives these documents for a query.

        Raises:
            ConfigError: the mode fuses ranks.
        """
        query = to_query(self.mode, self.search.preset, self.search.queries[row], limit=1)
        rows = np.array([self.rows[id_] for id_ in ids])
        return combined(query, ids, self.search.store.take(rows, query.legs), self.weights)


class LiveSource:
    """Candidates from a collection; the positives are encoded here.

    Args:
        connector: the collection.
        encoder: its model.
        queries: their embeddings.
        texts: of all documents.
        mode: that ranks.
        preset: depths and weights.
        limit: candidates a query.
        filter: which records they may be.
    """

    def __init__(
        self,
        connector: Connector,
        encoder: Encoder,
        queries: Embeddings,
        texts: Mapping[str, str],
        mode: Mode,
        preset: Preset,
        *,
        limit: int,
        filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    ) -> None:
        self.connector = connector
        self.encoder = encoder
        self.texts = texts
        where = as_filter(filter)
        searches = to_queries(mode, preset, queries, limit=limit)
        self.searches = [replace(query, filter=where) for query in searches]
        self.legs = scored_legs(mode)
        self.weights = weights(mode, preset)

    def answers(self) -> Iterator[Answer]:
        """Every query's candidates, best first; a document by its best record."""
        for query in self.searches:
            (hits,) = planner.run(self.connector, [query])
            answer: Answer = {}
            for hit in hits:
                answer.setdefault(hit.document_id, hit.score)
            yield answer

    def score(self, row: int, ids: Sequence[str]) -> Answer:
        """What the mode gives these documents for a query.

        Raises:
            ConfigError: the mode fuses ranks.
        """
        texts = [self.texts[id_] for id_ in ids]
        stored = encode_as_stored(
            self.connector.describe(), self.encoder, texts, kind="passage", legs=self.legs
        )
        return combined(self.searches[row], ids, stored, self.weights)


def weights(mode: Mode, preset: Preset) -> Weights | None:
    """What each leg counts in a mode's score; None where the mode fuses ranks."""
    if mode != "hybrid" and mode != "all":  # noqa: PLR1714 - mypy narrows no set
        return dict.fromkeys(scored_legs(mode), 1.0)
    fusion = preset.setting(mode).fusion
    if isinstance(fusion, Rrf):
        return None
    return {leg: getattr(fusion, leg) for leg in scored_legs(mode)}


def combined(
    query: Query, ids: Sequence[str], passages: Embeddings, by_leg: Weights | None
) -> Answer:
    """The weighted sum of the legs' true scores of some documents.

    Raises:
        ConfigError: no weights, as where ranks are fused.
    """
    if by_leg is None:
        raise ConfigError("reciprocal rank fusion has no scores of single documents: use weighted")
    scores = leg_scores(query, ids, passages)
    return fusion.weighted_sum({leg: scores[leg] for leg in by_leg}, by_leg)
