"""Exact search over a store in blocks: every query meets every document, in bounded memory.

Shapes: Q queries, B documents of a block, D dense width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3connect.evaluation.shards import EmbeddingStore
from m3connect.progress import Progress, silent
from m3connect.types import Embeddings, FloatArray, Leg, MultiVectors, SparseVectors

QUERY_BLOCK = 2048
"""Queries scored together; with a store's shard this bounds the score matrix to 16 MB."""
RERANK_BLOCK = 512
"""Queries reranked together: their tokens are in memory in float32."""
_MAXSIM_BLOCK = 256
_MAXSIM_TOKENS = 128
"""Query tokens in one product with a block's: few at a time take twice as long."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best documents of Q queries, by falling score and rising id.

    Args:
        indptr: ``int64 [Q + 1]``; query i owns ``rows[indptr[i]:indptr[i + 1]]``.
        rows: ``int64`` document rows.
        scores: ``float32``.
    """

    indptr: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, query: int) -> tuple[NDArray[np.int64], FloatArray]:
        """Rows and scores of one query, best first."""
        own = slice(self.indptr[query], self.indptr[query + 1])
        return self.rows[own], self.scores[own]


def search(
    leg: Leg,
    queries: Embeddings,
    store: EmbeddingStore,
    depth: int,
    *,
    by_id: NDArray[np.int64],
    progress: Progress = silent,
) -> Ranking:
    """The best ``depth`` documents of every query in one representation, exactly.

    A sparse search finds only documents that share a term with the query, a multi-vector search
    is exhaustive.

    Args:
        leg: the representation.
        queries: with that representation.
        store: with that representation.
        depth: how many documents a query.
        by_id: ``int64 [N]``, each row's place in the order of ids: equal scores rank by it.
        progress: told of every block.
    """
    rankings: list[Ranking] = []
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        best = _Best(len(block), depth, by_id)
        for first, scores in _scores(leg, block, store):
            best.add(first, scores)
            progress(
                f"{leg} search", start * len(store) + first * len(block), _pairs(queries, store)
            )
        rankings.append(best.ranking())
    progress(f"{leg} search", _pairs(queries, store), _pairs(queries, store))
    return _joined(rankings)


def order_by_id(ids: tuple[str, ...]) -> NDArray[np.int64]:
    """Each row's place in the order of ids.

    >>> order_by_id(("b", "c", "a")).tolist()
    [1, 2, 0]
    """
    places = np.empty(len(ids), np.int64)
    places[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return places


def quantised(vectors: SparseVectors) -> SparseVectors:
    """Weights as ``ceil(100 w) / 100``, as the paper's published index of whole numbers has them.

    >>> quantised(SparseVectors.from_rows([{7: 0.101, 8: 0.5}])).values.tolist()
    [0.10999999940395355, 0.5]
    """
    values = (np.ceil(vectors.values * 100) / 100).astype(np.float32)
    return SparseVectors(vectors.indptr, vectors.indices, values)


def rerank(
    queries: MultiVectors, candidates: Sequence[NDArray[np.int64]], store: EmbeddingStore
) -> list[FloatArray]:
    """MaxSim of every query with its own candidates.

    A document is read and widened once for all queries that it is a candidate of.

        candidates [[4, 9], [9]]  ->  pairs   query 0 0 1, row 4 9 9
        by document               ->  row 4: pair 0; row 9: pairs 1 2, one product of both queries'
                                      tokens with its own, best of each token, mean by query

    Args:
        queries: token vectors of Q queries.
        candidates: of each query, rows of the store.
        store: with multi-vectors.

    Returns:
        of each query the ``float32`` scores of its candidates, in their order.
    """
    counts = [len(rows) for rows in candidates]
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    askers = np.repeat(np.arange(len(counts)), counts)
    rows = np.concatenate([np.empty(0, np.int64), *candidates])
    scores = np.empty(len(rows), np.float32)
    tokens = queries.vectors.astype(np.float32, copy=False)
    per_query = [tokens[start:stop] for start, stop in pairwise(queries.offsets)]
    lengths = np.diff(queries.offsets)
    order = np.argsort(rows, kind="stable")
    starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        if len(group):
            document = store.tokens(int(rows[group[0]])).astype(np.float32, copy=False)
            asking = askers[group]
            best = (np.concatenate([per_query[query] for query in asking]) @ document.T).max(axis=1)
            scores[group] = _means(best, lengths[asking])
    return [scores[start:stop] for start, stop in pairwise(bounds)]


class _Best:
    """The best documents so far of a block of queries."""

    def __init__(self, queries: int, depth: int, by_id: NDArray[np.int64]) -> None:
        self.depth = depth
        self.by_id = by_id
        self.bar = np.full(queries, -np.inf, np.float32)  # a new score must reach it
        self.owners = [np.empty(0, np.int64)]
        self.rows = [np.empty(0, np.int64)]
        self.scores = [np.empty(0, np.float32)]
        self.waiting = 0

    def add(self, first: int, scores: FloatArray) -> None:
        """Take in a block's ``[Q, B]`` scores; minus infinity is never a result."""
        promising = (scores >= self.bar[:, None]) & np.isfinite(scores)
        owners, columns = np.nonzero(promising)
        self.owners.append(owners)
        self.rows.append(columns + first)
        self.scores.append(scores[promising])
        self.waiting += len(owners)
        if self.waiting >= len(self.bar) * self.depth:  # sorting is dear: only when it pays
            self._cut()

    def ranking(self) -> Ranking:
        """What was best in the end."""
        self._cut()
        indptr = np.searchsorted(self.owners[0], np.arange(len(self.bar) + 1)).astype(np.int64)
        return Ranking(indptr, self.rows[0], self.scores[0])

    def _cut(self) -> None:
        """Keep the best of what came in, sorted, and raise the bar."""
        # By query, best first, ties by id; with a depth of 2:
        #
        #   owners  0   0   0   1        place  0 1 2 0   ->  the third of query 0 goes, and 0.7,
        #   scores  0.9 0.7 0.4 0.8                          the score of its second, is its bar
        owners, rows = np.concatenate(self.owners), np.concatenate(self.rows)
        scores = np.concatenate(self.scores)
        order = np.lexsort((self.by_id[rows], -scores, owners))
        owners = owners[order]
        place = np.arange(len(owners)) - np.searchsorted(owners, owners)
        kept, last = place < self.depth, place == self.depth - 1
        self.bar[owners[last]] = scores[order[last]]
        self.owners, self.rows = [owners[kept]], [rows[order[kept]]]
        self.scores = [scores[order[kept]]]
        self.waiting = 0


def _joined(rankings: list[Ranking]) -> Ranking:
    counts = [np.diff(ranking.indptr) for ranking in rankings]
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([[], *counts]))]).astype(np.int64)
    rows = np.concatenate([np.empty(0, np.int64), *(ranking.rows for ranking in rankings)])
    scores = np.concatenate([np.empty(0, np.float32), *(ranking.scores for ranking in rankings)])
    return Ranking(indptr, rows, scores)


def _pairs(queries: Embeddings, store: EmbeddingStore) -> int:
    return len(queries) * len(store)


# --------------------------------------------------------------------------------- block scores


def _scores(
    leg: Leg, queries: Embeddings, store: EmbeddingStore
) -> Iterator[tuple[int, FloatArray]]:
    """First row and ``float32 [Q, B]`` scores of every block; minus infinity where not found."""
    for first, block in store.blocks():
        if leg == "dense":
            assert queries.dense is not None
            assert block.dense is not None
            yield first, queries.dense @ block.dense.T
        elif leg == "sparse":
            assert queries.sparse is not None
            assert block.sparse is not None
            yield first, _sparse_scores(queries.sparse, block.sparse)
        else:
            assert queries.multivector is not None
            assert block.multivector is not None
            for start in range(0, len(block), _MAXSIM_BLOCK):
                documents = block.multivector[start : start + _MAXSIM_BLOCK]
                yield first + start, _maxsim_scores(queries.multivector, documents)


def _sparse_scores(queries: SparseVectors, documents: SparseVectors) -> FloatArray:
    terms = np.unique(queries.indices)
    if not len(terms):
        return np.full((len(queries), len(documents)), -np.inf, np.float32)
    product = _matrix(queries, terms) @ _matrix(documents, terms).T
    scores: FloatArray = product.toarray()
    scores[scores <= 0] = -np.inf
    return scores


def _matrix(vectors: SparseVectors, terms: NDArray[np.uint32]) -> Any:
    """As a scipy matrix with one column a term, other terms left out."""
    from scipy.sparse import csr_matrix

    columns = np.minimum(np.searchsorted(terms, vectors.indices), len(terms) - 1)
    known = terms[columns] == vectors.indices
    indptr = np.concatenate([[0], np.cumsum(known)])[vectors.indptr]
    return csr_matrix((vectors.values[known], columns[known], indptr), (len(vectors), len(terms)))


def _maxsim_scores(queries: MultiVectors, documents: MultiVectors) -> FloatArray:
    """:func:`m3connect.searching.scoring.maxsim_scores` of each query, some queries in one product."""
    columns = documents.vectors.astype(np.float32).T
    scores = []
    for some in _few(queries):
        similarities = some.vectors.astype(np.float32, copy=False) @ columns
        best = np.maximum.reduceat(similarities, documents.offsets[:-1], axis=1)
        scores.append(_means(best, np.diff(some.offsets)))
    return np.concatenate(scores)


def _few(queries: MultiVectors) -> Iterator[MultiVectors]:
    """Queries one after the other, at least one and not many tokens at a time."""
    start = 0
    while start < len(queries):
        end = queries.offsets[start] + _MAXSIM_TOKENS
        stop = max(start + 1, int(np.searchsorted(queries.offsets, end, side="right")) - 1)
        yield queries[start:stop]
        start = stop


def _means(best: FloatArray, lengths: NDArray[np.int64]) -> FloatArray:
    """Means over the tokens of each query, ``float32 [Q, ...]``, of ``[tokens, ...]``."""
    firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    totals = np.add.reduceat(best, firsts, axis=0)
    return np.asarray((totals.T / lengths).T, np.float32)
