"""Searches give the oracle's ids, order and scores, whoever fuses: the engine or the client."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from m3connect.contract import CollectionSchema, Connector
from m3connect.filters import And, Exists, F, Filter, Not
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import check_hits, decided, oracle, sorted_ids
from m3connect.types import (
    LEGS,
    Embeddings,
    Fusion,
    Hit,
    Leg,
    MultiVectors,
    Query,
    RecordBatch,
    Rrf,
    SparseVector,
    SparseVectors,
    Weighted,
)

Path = Callable[[Connector, Sequence[Query]], Sequence[Sequence[Hit]]]
PLANNED: Path = planner.run
COMPOSED: Path = partial(planner.run, native=False)

FUSIONS: list[Fusion] = [
    Rrf(),
    Rrf(k=1),
    Rrf(k=10, dense=1.0, sparse=0.3, multivector=2.5),
    Rrf(dense=0.0),
    Weighted(),
    Weighted(dense=2.5, sparse=1.5, multivector=0.4),
    Weighted(sparse=0.0),
    Weighted(rescore=False),
    Weighted(dense=0.2, sparse=0.7, multivector=3.0, rescore=False),
]
FUSED: list[tuple[Leg, ...]] = [
    ("dense", "sparse"),
    ("dense", "multivector"),
    ("sparse", "multivector"),
    LEGS,
]
DEPTHS = [(100, 100), (3, 3), (1, 2), (500, 7)]
FILTERS: list[Filter | None] = [
    None,
    F("lang").exists(),
    And((Exists("year"), Not(Exists("author")))),
    F("no.such") == "thing",
]


def forms(seed: int) -> list[Query]:
    """Queries of every form: legs, fusions, depths, reranking, limits, filters, what to return."""
    rng = random.Random(seed)
    queries = [corpus.query(seed, leg, limit=limit) for leg in LEGS for limit in (1, 3, 10, 1000)]
    for legs in FUSED:
        for fusion in FUSIONS:
            dense_depth, sparse_depth = rng.choice(DEPTHS)
            query = corpus.query(
                rng.randrange(10**6),
                *legs,
                fusion=fusion,
                dense_depth=dense_depth,
                sparse_depth=sparse_depth,
                limit=rng.choice((1, 5, 10, 300)),
            )
            queries.append(query)
            if "multivector" in legs:
                queries.append(replace(query, rerank=rng.choice((1, 4, 30, 1000))))
    weights = (4, 2, 2, 1)
    return [
        replace(
            query,
            filter=rng.choices(FILTERS, weights)[0],
            payload=rng.random() < 0.5,
            leg_scores=rng.random() < 0.5,
        )
        for query in queries
    ]


def filled(connector: Connector, batch: RecordBatch) -> MemoryConnector:
    """Write a batch to the connector; the oracle that holds the same."""
    connector.ensure(corpus.SCHEMA)
    connector.upsert(batch)
    connector.flush()
    return oracle(batch, corpus.SCHEMA)


def check_path(connector: Connector, path: Path, memory: MemoryConnector, seed: int) -> None:
    """Assert that one way of answering gives the oracle's answers to every form of query."""
    queries = [query for query in forms(seed) if decided(memory, query)]
    assert len(queries) > 0.8 * len(forms(seed)), "too many queries have undecided ties"
    for query, hits in zip(queries, path(connector, queries), strict=True):
        check_hits(memory, query, hits, about(seed, query))


def about(seed: int, query: Query) -> str:
    """A query in words, to find it again."""
    return (
        f"seed {seed}: {' + '.join(query.legs)}, {query.fusion}, rerank {query.rerank}, depths "
        f"{query.dense_depth} and {query.sparse_depth}, limit {query.limit}, {query.filter}"
    )


class SearchTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    @pytest.mark.parametrize("path", [PLANNED, COMPOSED], ids=["planned", "composed"])
    def test_scores_are_the_papers(self, connector: Connector, path: Path) -> None:
        """Three records, worked out by hand: every leg, fusion, depth and rerank."""
        schema, batch, query = _by_hand()
        connector.ensure(schema)
        connector.upsert(batch)
        connector.flush()
        legs = {leg: Query(**{leg: getattr(query, leg)}) for leg in LEGS}
        hybrid = replace(query, multivector=None)
        shallow = replace(query, dense_depth=1, sparse_depth=1)
        expected: list[tuple[Query, dict[str, float]]] = [
            (legs["dense"], {"b": 1.0, "a": 0.6, "c": -1.0}),
            (legs["sparse"], {"a": 0.5, "b": 0.25}),
            (legs["multivector"], {"b": 0.8, "a": 0.5, "c": -0.5}),
            (
                replace(hybrid, fusion=Rrf()),
                {"a": 1 / 61 + 1 / 62, "b": 1 / 61 + 1 / 62, "c": 1 / 63},
            ),
            (replace(hybrid, fusion=Rrf(k=1, dense=2)), {"b": 4 / 3, "a": 7 / 6, "c": 0.5}),
            (replace(hybrid, fusion=Weighted()), {"b": 1.075, "a": 0.75, "c": -1.0}),
            (replace(query, fusion=Rrf(k=1)), {"b": 4 / 3, "a": 7 / 6, "c": 0.5}),
            (replace(query, fusion=Weighted()), {"b": 1.875, "a": 1.25, "c": -1.5}),
            (replace(shallow, fusion=Weighted()), {"b": 1.875, "a": 1.25}),
            (replace(shallow, fusion=Weighted(rescore=False)), {"b": 1.8, "a": 0.65}),
            (replace(query, fusion=Weighted(), rerank=1), {"b": 0.8}),
            (replace(query, sparse=None, rerank=2), {"b": 0.8, "a": 0.5}),
            (replace(query, dense=None, rerank=9), {"b": 0.8, "a": 0.5}),
        ]
        answers = path(connector, [query for query, _ in expected])
        for (query, scores), hits in zip(expected, answers, strict=True):
            got = {hit.id: hit.score for hit in hits}
            assert got == pytest.approx(scores, abs=1e-6), about(0, query)
            assert list(got) == list(scores), about(0, query)

    @pytest.mark.parametrize("seed", [61, 62])
    def test_planned_answers_equal_the_oracles(self, connector: Connector, seed: int) -> None:
        """Each form of query, answered natively where the planner finds it native."""
        memory = filled(connector, corpus.records(seed, 90))
        check_path(connector, PLANNED, memory, seed)

    @pytest.mark.parametrize("seed", [61, 63])
    def test_composed_answers_equal_the_oracles(self, connector: Connector, seed: int) -> None:
        """Each form of query, put together on the client from single legs."""
        memory = filled(connector, corpus.records(seed, 90))
        check_path(connector, COMPOSED, memory, seed)

    def test_a_batch_gives_what_its_queries_give_alone(self, connector: Connector) -> None:
        """Queries do not influence each other, repeated ones included, in batches of hundreds."""
        memory = filled(connector, corpus.records(64, 60))
        queries = [query for query in forms(64) if decided(memory, query)][::3] * 2
        answers = planner.run(connector, queries)
        for query, hits in zip(queries, answers, strict=True):
            check_hits(memory, query, hits, f"in a batch, {about(64, query)}")
            check_hits(
                memory, query, planner.run(connector, [query])[0], f"alone, {about(64, query)}"
            )
        many = [corpus.query(seed, "dense", limit=3) for seed in range(150)] * 2
        assert [len(hits) for hits in planner.run(connector, many)] == [3] * 300

    def test_ties_are_ordered_by_id(self, connector: Connector) -> None:
        """Records with the same vectors score the same and come in the order of their ids."""
        vectors = corpus.records(65, 1).embeddings
        ids = [f"{i % 7}-{i}" for i in range(30)]
        ids[10:14] = ["Z", "a", "\u00e4", "\N{SLIGHTLY SMILING FACE}"]
        payloads = corpus.records(65, 30).payloads
        batch = RecordBatch(ids, payloads, vectors.take(np.zeros(30, np.intp)))
        terms = vectors.sparse
        assert terms is not None
        memory = filled(connector, batch)
        base = replace(corpus.query(65), sparse=replace(terms[0], values=terms[0].values))
        for limit in (30, 8):
            queries = [Query(**{leg: getattr(base, leg)}, limit=limit) for leg in LEGS] + [
                replace(base, fusion=Weighted(), limit=limit)
            ]
            for path in (PLANNED, COMPOSED):
                for query, hits in zip(queries, path(connector, queries), strict=True):
                    check_hits(memory, query, hits, about(65, query))
                    if limit == 30:
                        assert [hit.id for hit in hits] == sorted(ids), about(65, query)

    def test_sparse_finds_only_shared_terms(self, connector: Connector) -> None:
        """Without a common term there is no sparse hit: foreign queries, empty ones, empty records."""
        batch = corpus.records(66, 60)
        memory = filled(connector, batch)
        foreign = SparseVector(
            np.array([900_001, 900_002], np.uint32), np.array([1, 0.5], np.float32)
        )
        empty = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
        everything = SparseVector(corpus.VOCABULARY, np.ones(len(corpus.VOCABULARY), np.float32))
        queries = [Query(sparse=vector, limit=100) for vector in (foreign, empty, everything)]
        answers = planner.run(connector, queries)
        assert answers[:2] == [[], []]
        terms = batch.embeddings.sparse
        assert terms is not None
        assert len(answers[2]) == sum(len(terms[row]) > 0 for row in range(60)) < 60
        check_hits(memory, queries[2], answers[2], "all terms")

    def test_a_leg_that_finds_nothing_leaves_the_others(self, connector: Connector) -> None:
        """With no sparse hit, fusions still rank what the dense leg found."""
        memory = filled(connector, corpus.records(67, 40))
        foreign = SparseVector(np.array([900_001], np.uint32), np.array([1], np.float32))
        empty = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
        queries = [
            replace(corpus.query(seed, *legs, fusion=fusion), sparse=sparse)
            for legs in (("dense", "sparse"), LEGS)
            for seed, fusion in enumerate(FUSIONS)
            for sparse in (foreign, empty)
        ]
        worthless = Weighted(dense=0.0, sparse=1.0, rescore=False)  # its candidates, which tie
        queries.append(replace(queries[1], fusion=worthless, limit=5, dense_depth=10))
        for path in (PLANNED, COMPOSED):
            for query, hits in zip(queries, path(connector, queries), strict=True):
                check_hits(memory, query, hits, about(67, query))

    def test_a_filter_that_matches_nothing_finds_nothing(self, connector: Connector) -> None:
        """No form of query finds a record that its filter excludes, even when nothing is left."""
        filled(connector, corpus.records(68, 30))
        queries = [replace(query, filter=F("lang") == "no such value") for query in forms(68)]
        assert planner.run(connector, queries) == [[] for _ in queries]

    @pytest.mark.parametrize("path", [PLANNED, COMPOSED], ids=["planned", "composed"])
    def test_named_records_alone_are_found(self, connector: Connector, path: Path) -> None:
        """``within`` keeps every form of query to the named records, each with its true score."""
        batch = corpus.records(73, 80)
        memory = filled(connector, batch)
        some = (*batch.ids[40:10:-2], batch.ids[12], "no such record")
        for named in (some, tuple(batch.ids), ("no such record",), ()):
            queries = [replace(query, within=named) for query in forms(73)[:: 1 + len(named) % 7]]
            queries = [query for query in queries if decided(memory, query)]
            for query, hits in zip(queries, path(connector, queries), strict=True):
                check_hits(memory, query, hits, f"{about(73, query)}, within {len(named)}")

    def test_negative_scores_are_scores(self, connector: Connector) -> None:
        """Records whose inner products are negative are found, in order, and fused."""
        batch = corpus.records(69, 30)
        dense, multi = batch.embeddings.dense, batch.embeddings.multivector
        assert dense is not None
        assert multi is not None
        opposite = replace(
            batch.embeddings,
            dense=-np.abs(dense),
            multivector=MultiVectors(multi.offsets, -np.abs(multi.vectors)),
        )
        memory = filled(connector, replace(batch, embeddings=opposite))
        base = corpus.query(69)
        assert base.dense is not None
        assert base.multivector is not None
        base = replace(base, dense=np.abs(base.dense), multivector=np.abs(base.multivector))
        queries = [
            Query(dense=base.dense, limit=30),
            Query(multivector=base.multivector, limit=30),
            *(replace(base, fusion=fusion, limit=30) for fusion in FUSIONS),
            replace(base, fusion=Weighted(), rerank=20),
        ]
        for path in (PLANNED, COMPOSED):
            for query, hits in zip(queries, path(connector, queries), strict=True):
                check_hits(memory, query, hits, about(69, query))
                assert hits[-1].score < 0 or isinstance(query.fusion, Rrf)

    def test_sparse_scores_of_any_weight(self, connector: Connector) -> None:
        """Weights of full precision score exactly, however few bits an engine searches by."""
        batch = corpus.records(70, 60)
        rng = np.random.default_rng(70)
        rows = [
            SparseVector(
                rng.choice(np.arange(40, dtype=np.uint32), 12, replace=False),
                rng.uniform(0.01, 3, 12).astype(np.float32),
            )
            for _ in range(60)
        ]
        sparse = SparseVectors.from_rows(rows)
        memory = filled(
            connector, replace(batch, embeddings=replace(batch.embeddings, sparse=sparse))
        )
        query = replace(corpus.query(70, "sparse"), limit=60)
        truth = {hit.id: hit.score for hit in memory.search([query])[0]}
        (hits,) = planner.run(connector, [query])
        assert [hit.id for hit in hits] == sorted_ids(hits)
        assert {hit.id for hit in hits} == set(truth)
        for hit in hits:
            assert hit.score == pytest.approx(truth[hit.id], rel=1e-4), hit.id

    def test_long_sparse_vectors(self, connector: Connector) -> None:
        """Thousands of terms, in a record and in a query, all count."""
        batch = corpus.records(71, 3)
        terms = np.arange(3000, dtype=np.uint32)
        long = SparseVector(terms, np.full(3000, 0.5, np.float32))
        sparse = SparseVectors.from_rows([long, {2500: 1.0}, {}])
        filled(connector, replace(batch, embeddings=replace(batch.embeddings, sparse=sparse)))
        query = Query(sparse=SparseVector(terms[1000:], np.ones(2000, np.float32)))
        (hits,) = planner.run(connector, [query])
        assert [hit.id for hit in hits] == list(batch.ids[:2])
        assert [hit.score for hit in hits] == pytest.approx([1000.0, 1.0])

    def test_token_queries_of_any_precision(self, connector: Connector) -> None:
        """Float16 and float32 token queries score alike, to half precision."""
        memory = filled(connector, corpus.records(72, 40))
        tokens = np.random.default_rng(72).normal(size=(5, 8))
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        for dtype in (np.float16, np.float32):
            query = Query(multivector=tokens.astype(dtype), limit=40)
            truth = {hit.id: hit.score for hit in memory.search([query])[0]}
            (hits,) = planner.run(connector, [query])
            scores = {hit.id: hit.score for hit in hits}
            assert scores == pytest.approx(truth, abs=5e-3)  # 2**-11 times the norms, 4 at most


def _by_hand() -> tuple[CollectionSchema, RecordBatch, Query]:
    """Three records and a query that one can work out on paper."""
    schema = CollectionSchema(
        dense_width=2, sparse=True, multivector_width=2, multivector_dtype="float32"
    )
    embeddings = Embeddings(
        np.array([[0.6, 0.8], [1, 0], [-1, 0]], np.float32),
        SparseVectors.from_rows([{1: 0.5}, {2: 1.0, 3: 0.125}, {}]),
        MultiVectors.from_rows(
            [
                np.array([[1, 0]], np.float32),
                np.array([[0, 1], [0.6, 0.8]], np.float32),
                np.array([[0, -1]], np.float32),
            ]
        ),
        np.ones(3, np.int32),
        np.zeros(3, np.bool_),
    )
    query = Query(
        dense=np.array([1, 0], np.float32),
        sparse=SparseVector(np.array([1, 3], np.uint32), np.array([1, 2], np.float32)),
        multivector=np.array([[1, 0], [0, 1]], np.float32),
    )
    return schema, RecordBatch(["a", "b", "c"], [{}, {}, {}], embeddings), query
