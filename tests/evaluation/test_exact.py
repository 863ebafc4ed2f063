"""Exact search in blocks equals sorting all scores."""

from typing import Any

import numpy as np
import pytest

from m3connect.evaluation import exact
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.searching import fusion, scoring
from m3connect.testing import corpus
from m3connect.types import LEGS, Embeddings, MultiVectors, Query, SparseVectors
from tests.evaluation.coarse import coarse

N, QUERIES, DEPTH = 97, 11, 7


@pytest.fixture
def collection():
    """97 records of which 30 repeat others, so that many scores are equal, in uneven shards."""
    batch = corpus.records(3, N)
    rows = np.random.default_rng(4).integers(0, N - 30, 30)
    made = coarse(batch.embeddings)
    embeddings = Embeddings.concat([made[: N - 30], made.take(rows)])
    shards = [embeddings[start : start + 20] for start in range(0, N, 20)]
    return tuple(batch.ids), embeddings, EmbeddingStore.of(shards)


@pytest.fixture
def queries(collection):
    """Eleven queries, one of which has no term and one only terms that nothing has."""
    return embeddings_of([corpus.query(seed) for seed in range(QUERIES)])


def embeddings_of(queries: list[Query]) -> Embeddings:
    """Queries as a batch; the first two get unusual lexical weights."""
    sparse: list[Any] = [{}, {36 * 1000: 1.0}, *(query.sparse for query in queries[2:])]
    made = Embeddings(
        np.stack([query.dense for query in queries]),
        SparseVectors.from_rows(sparse),
        MultiVectors.from_rows([query.multivector for query in queries]),
        np.ones(len(queries), np.int32),
        np.zeros(len(queries), np.bool_),
    )
    return coarse(made)


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("query_block", [3, 2048])
def test_equals_sorting_everything(collection, queries, leg, query_block, monkeypatch):
    """Ids, order with ties by id, and scores are those of the plain formulas, whatever the blocks."""
    monkeypatch.setattr(exact, "QUERY_BLOCK", query_block)
    monkeypatch.setattr(exact, "_MAXSIM_BLOCK", 9)
    monkeypatch.setattr(exact, "_MAXSIM_TOKENS", query_block)
    ids, documents, store = collection
    ranking = exact.search(leg, queries, store, DEPTH, by_id=exact.order_by_id(ids))
    assert len(ranking) == QUERIES
    for row in range(QUERIES):
        one = queries[row]
        query = Query(dense=one.dense[0], sparse=one.sparse[0], multivector=one.multivector[0])
        scores = scoring.leg_scores(query, ids, documents)[leg]
        if leg == "sparse":
            scores = {id_: score for id_, score in scores.items() if score > 0}
        # float32 sums differ in their last digit between one query and a block of them
        rounded = {id_: round(score, 5) for id_, score in scores.items()}
        rows, found = ranking[row]
        assert [ids[at] for at in rows] == fusion.top(rounded, DEPTH)
        np.testing.assert_allclose(found, [scores[ids[at]] for at in rows], atol=1e-5)


def test_a_query_without_shared_terms_finds_nothing(collection, queries):
    """Sparse search lists only documents that share a term."""
    ids, _, store = collection
    ranking = exact.search("sparse", queries, store, DEPTH, by_id=exact.order_by_id(ids))
    assert [len(ranking[row][0]) for row in (0, 1)] == [0, 0]
    assert all(len(ranking[row][0]) == DEPTH for row in range(2, QUERIES))


def test_asking_for_more_than_there_is_gives_all(collection, queries):
    """A depth beyond the corpus lists every document once."""
    ids, _, store = collection
    ranking = exact.search("dense", queries, store, 1000, by_id=exact.order_by_id(ids))
    assert all(sorted(ranking[row][0]) == list(range(N)) for row in range(QUERIES))


def test_progress_ends_at_its_total(collection, queries):
    """Progress rises to the number of pairs."""
    ids, _, store = collection
    seen = []
    exact.search(
        "dense",
        queries,
        store,
        DEPTH,
        by_id=exact.order_by_id(ids),
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == ("dense search", N * QUERIES, N * QUERIES)


def test_reranking_equals_maxsim_of_every_query_alone(collection, queries):
    """Each query's own candidates, in their order; none for a query without candidates."""
    _, embeddings, store = collection
    rng = np.random.default_rng(5)
    wanted = [rng.permutation(N)[:size] for size in (0, 1, 5, N, 40, 0, 7, 7, 7, 2, 3)]
    found = exact.rerank(queries.multivector, wanted, store)
    for row, rows in enumerate(wanted):
        alone = scoring.maxsim_scores(queries.multivector[row], embeddings.multivector.take(rows))
        np.testing.assert_allclose(found[row], alone, atol=1e-6)
    assert exact.rerank(queries.multivector[:1], wanted[:1], store)[0].shape == (0,)
