"""Every mode's answers, exactly, from embeddings on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from m3connect.evaluation import exact
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.progress import Progress, silent
from m3connect.searching import fusion
from m3connect.searching.modes import Preset, to_queries
from m3connect.searching.names import FusedMode, Mode
from m3connect.searching.scoring import leg_scores
from m3connect.types import Compression, Embeddings, FloatArray, Leg, MultiVectors, Query

Answer = dict[str, float]
"""A query's documents by id, with scores."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a query with several legs fuses.

    Args:
        query: its fusion, depths and limit.
        rankings: of the dense and sparse legs, best first.
        scores: each leg's scores of all candidates.
    """

    query: Query
    rankings: Mapping[Leg, Sequence[str]]
    scores: Mapping[Leg, Mapping[str, float]]

    def fused(self) -> Answer:
        """The best of them by the query's fusion."""
        final = fusion.combine(self.query, self.rankings, self.scores)
        return {id_: final[id_] for id_ in fusion.top(final, self.query.limit)}


def by_document(answer: Mapping[str, float], document_of: Mapping[str, str]) -> Answer:
    """Each document with the score of its best passage; a record of no document stands for itself.

    Args:
        answer: records with scores, best first.
        document_of: the document of each record that is a passage.

    >>> by_document({"a#1": 0.9, "a#0": 0.8, "b": 0.7}, {"a#0": "a", "a#1": "a"})
    {'a': 0.9, 'b': 0.7}
    """
    best: Answer = {}
    for id_, score in answer.items():
        best.setdefault(document_of.get(id_, id_), score)
    return best


def passages_for(documents: int, *, records: int, corpus: int) -> int:
    """How many of ``records`` passages to ask for, to find so many documents of a corpus.

    >>> passages_for(10, records=30, corpus=12)
    30
    """
    return documents * max(1, ceil(records / corpus))


def cut_off(what: str, parts: Sequence[Embeddings]) -> list[str]:
    """A warning where texts are longer than the model reads.

    Args:
        what: the texts are, such as ``queries``.
        parts: what became of them.
    """
    cut = sum(int(np.sum(part.truncated)) for part in parts)
    total = sum(map(len, parts))
    return [f"{cut} of {total} {what} are longer than the model reads and were cut"] if cut else []


@dataclass(eq=False)
class OfflineSearch:
    """Answers queries in any mode, as :class:`m3connect.types.Query` defines it.

    Rankings, and MaxSim of the same candidates, are made once and shared by the modes.

    Args:
        ids: the records', in the order of the store.
        store: the records' embeddings.
        queries: the queries' embeddings.
        preset: depths, weights and candidates.
        limit: records a query.
        document_of: the document of each record, where records are passages.
        progress: told of every block of a search.
    """

    ids: tuple[str, ...]
    store: EmbeddingStore
    queries: Embeddings
    preset: Preset
    _: KW_ONLY
    limit: int = 100
    document_of: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = silent
    _rankings: dict[Leg, exact.Ranking] = field(init=False, default_factory=dict)
    _maxsim: dict[int, _Reranked] = field(init=False, default_factory=dict)

    def compressed(self, compression: Compression, store: EmbeddingStore) -> OfflineSearch:
        """The same search with other vectors of the same records.

        Args:
            compression: of the records; queries are made as narrow.
            store: the records as they are kept.
        """
        queries = compression.of(self.queries, "query")
        other: OfflineSearch = replace(self, store=store, queries=queries)
        for leg in self.queries.legs:
            if leg != "multivector" and leg not in compression.legs:  # whose ranking stays
                other._rankings[leg] = self.ranking(leg)
        return other

    def cut_off(self, records: str) -> list[str]:
        """Warnings of texts that are longer than the model reads; ``records`` is what the records are."""
        return [*cut_off(records, self.store.shards), *cut_off("queries", [self.queries])]

    def with_queries(self, queries: Embeddings, preset: Preset) -> OfflineSearch:
        """The same records searched with other queries and another preset, silently."""
        other = replace(self, queries=queries, preset=preset, progress=silent)
        other.__dict__["_by_id"] = self._by_id  # the order of the ids is made once
        return other

    def run(self, mode: Mode) -> Iterator[Answer]:
        """The mode's answers, one a query and in their order."""
        if self.preset.quantised and mode in {"sparse", "hybrid"}:
            yield from self._quantised.run(mode)
            return
        queries = to_queries(mode, self.preset, self.queries, limit=self.limit)
        for row, answer in enumerate(self._answers(mode, queries)):
            yield answer
            self.progress(f"{mode} answers", row + 1, len(queries))

    def run_by_document(self, mode: Mode) -> Iterator[Answer]:
        """The mode's answers with each document once, by its best passage."""
        return (by_document(answer, self.document_of) for answer in self.run(mode))

    def ranking(self, leg: Leg) -> exact.Ranking:
        """One leg's best records of every query, as many as any mode may ask for."""
        if leg not in self._rankings:
            depth = max(self.limit, self.preset.depth)
            self._rankings[leg] = exact.search(
                leg, self.queries, self.store, depth, by_id=self._by_id, progress=self.progress
            )
        return self._rankings[leg]

    @cached_property
    def _by_id(self) -> NDArray[np.int64]:
        return exact.order_by_id(self.ids)

    @cached_property
    def _quantised(self) -> OfflineSearch:
        """The same search with whole-number lexical weights."""
        return replace(
            self,
            store=EmbeddingStore.of([_quantised(shard) for shard in self.store.shards]),
            queries=_quantised(self.queries),
            preset=replace(self.preset, quantised=False),
        )

    def candidates(self, mode: FusedMode, queries: Sequence[Query]) -> Iterator[Candidates]:
        """What every query fuses.

        Args:
            mode: of several legs; its setting in the preset says who brings candidates.
            queries: one for each of the texts, by :func:`m3connect.searching.modes.to_query`.
        """
        dense_alone = self.preset.setting(mode).pool == "dense"
        for start in range(0, len(queries), exact.RERANK_BLOCK):
            places = range(start, min(start + exact.RERANK_BLOCK, len(queries)))
            pools = [self._pool(row, queries[row], dense_alone=dense_alone) for row in places]
            rows = [np.unique(np.concatenate(list(pool.values()))) for pool in pools]
            tokens = self.queries[start : places.stop].multivector
            maxsim: Sequence[FloatArray | None] = [None] * len(places)
            if tokens is not None and "multivector" in queries[start].legs:
                maxsim = self._reranked(start, tokens, rows)
            for place, pool, block, best in zip(places, pools, rows, maxsim, strict=True):
                yield self._scored(queries[place], pool, block, best)

    def _reranked(
        self, start: int, tokens: MultiVectors, rows: list[NDArray[np.int64]]
    ) -> list[FloatArray]:
        """MaxSim of a block's candidates, computed once for all modes that have the same."""
        known = self._maxsim.get(start)
        if known is None or not all(map(np.array_equal, known.rows, rows)):
            known = _Reranked(rows, exact.rerank(tokens, rows, self.store))
            self._maxsim[start] = known
        return known.scores

    def _pool(self, row: int, query: Query, *, dense_alone: bool) -> dict[Leg, NDArray[np.int64]]:
        """The candidates of the legs that bring any, as rows of the store."""
        pool: dict[Leg, NDArray[np.int64]] = {}
        if query.dense is not None:
            pool["dense"] = self._rows(row, "dense", query.dense_depth)
        if query.sparse is not None and not dense_alone:
            pool["sparse"] = self._rows(row, "sparse", query.sparse_depth)
        return pool

    def _scored(
        self,
        query: Query,
        pool: Mapping[Leg, NDArray[np.int64]],
        rows: NDArray[np.int64],
        maxsim: FloatArray | None,
    ) -> Candidates:
        """Candidates with the scores of all legs."""
        names = self._names(rows)
        others = [leg for leg in query.legs if leg != "multivector"]
        scores = leg_scores(query, names, self.store.take(rows, others))
        if maxsim is not None:
            scores["multivector"] = dict(zip(names, maxsim.tolist(), strict=True))
        rankings: dict[Leg, list[str]] = {
            leg: self._names(pool[leg]) for leg in query.legs if leg in pool
        }
        if query.sparse is not None and "sparse" not in pool:
            matched = {id_: score for id_, score in scores["sparse"].items() if score > 0}
            rankings["sparse"] = fusion.top(matched, len(matched))
        return Candidates(query, rankings, scores)

    def _answers(self, mode: Mode, queries: Sequence[Query]) -> Iterator[Answer]:
        if not queries:
            return
        if mode == "dense" or mode == "sparse" or len(queries[0].legs) == 1:  # noqa: PLR1714
            for row, query in enumerate(queries):
                yield self._best(row, query.legs[0], query.limit)
        else:
            for candidates in self.candidates(mode, queries):
                yield candidates.fused()

    def _best(self, row: int, leg: Leg, limit: int) -> Answer:
        rows, scores = self.ranking(leg)[row]
        return dict(zip(self._names(rows[:limit]), scores[:limit].tolist(), strict=True))

    def _rows(self, row: int, leg: Leg, depth: int) -> NDArray[np.int64]:
        return self.ranking(leg)[row][0][:depth]

    def _names(self, rows: NDArray[np.int64]) -> list[str]:
        return [self.ids[row] for row in rows.tolist()]


@dataclass(frozen=True, slots=True)
class _Reranked:
    """Candidates of a block of queries and their MaxSim scores."""

    rows: list[NDArray[np.int64]]
    scores: list[FloatArray]


def _quantised(embeddings: Embeddings) -> Embeddings:
    assert embeddings.sparse is not None
    return replace(embeddings, sparse=exact.quantised(embeddings.sparse))
