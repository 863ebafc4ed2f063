"""The planner's choices; that both ways give the oracle's result is the conformance suite's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.contract import Capabilities, CollectionSchema, Limits
from m3connect.errors import InputError
from m3connect.filters import F
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import (
    LEGS,
    Embeddings,
    MultiVectors,
    Query,
    RecordBatch,
    Rrf,
    SparseVector,
    SparseVectors,
    Weighted,
)

FULL = MemoryConnector.capabilities
BASIC = Capabilities("basic", embedded=False, legs=frozenset({"dense", "sparse"}))
dense = np.ones(16, np.float32)
sparse = SparseVector(np.array([1], np.uint32), np.ones(1, np.float32))
late = np.ones((2, 16), np.float32)
HYBRID = Query(dense=dense, sparse=sparse, fusion=Rrf())
ALL = Query(dense=dense, sparse=sparse, multivector=late, fusion=Weighted())


@pytest.mark.parametrize(
    ("query", "capabilities", "native", "exhaustive", "reason"),
    [
        (Query(dense=dense), BASIC, True, False, ""),
        (HYBRID, FULL, True, False, ""),
        (HYBRID, BASIC, False, False, "no rrf fusion"),
        (
            replace(HYBRID, fusion=Weighted()),
            replace(BASIC, fusions=frozenset({"rrf", "weighted"})),
            False,
            False,
            "no weighted_rescored",
        ),
        (ALL, FULL, True, False, ""),
        (ALL, BASIC, False, False, "no MaxSim"),
        (
            Query(dense=dense, multivector=late, rerank=5),
            replace(BASIC, maxsim=True),
            True,
            False,
            "",
        ),
        (Query(multivector=late), BASIC, False, True, "cannot search"),
    ],
)
def test_plans(query, capabilities, native, exhaustive, reason):
    """What the engine can do is native; otherwise the reason is given."""
    chosen = planner.plan(query, capabilities)
    assert (chosen.native, chosen.exhaustive) == (native, exhaustive)
    assert reason in chosen.reason
    assert bool(reason) == bool(chosen.reason)
    assert chosen.steps


def test_native_fusion_can_be_switched_off():
    """For comparison, a query that could be native is composed; a single leg stays native."""
    assert not planner.plan(HYBRID, FULL, native=False).native
    assert planner.plan(Query(dense=dense), FULL, native=False).native


SMALL = replace(FULL, limits=Limits(results=10))


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (Query(dense=dense, limit=11), "limit is 11"),
        (replace(HYBRID, dense_depth=11, sparse_depth=10), "dense_depth is 11"),
        (replace(HYBRID, dense_depth=10, sparse_depth=1_000), "sparse_depth is 1,000"),
    ],
)
def test_more_results_than_the_backend_returns_are_refused(query, named):
    """Nothing is truncated silently, and the message names what is too large."""
    with pytest.raises(InputError, match=f"{named}, and a search .* at most 10"):
        planner.plan(query, SMALL)


def test_more_hits_than_the_backend_returns_are_composed():
    """Two legs that it returns whole may make more hits together; a scan has no such limit."""
    chosen = planner.plan(replace(HYBRID, dense_depth=10, sparse_depth=10, limit=15), SMALL)
    assert (chosen.native, chosen.reason) == (False, "the engine returns at most 10 hits, not 15")
    blind = replace(SMALL, legs=frozenset())
    assert planner.plan(Query(multivector=late, limit=15), blind).exhaustive


class Vanishing(MemoryConnector):
    """Records disappear between a search and what follows it."""

    capabilities = replace(FULL, fusions=frozenset(), maxsim=False)

    def search(self, queries):
        """Search, then delete the best hit."""
        found = super().search(queries)
        self.delete([hits[0].id for hits in found if hits][:1])
        return found


@pytest.mark.parametrize(
    "query", [HYBRID, replace(HYBRID, fusion=Weighted()), ALL, replace(ALL, rerank=2)]
)
@pytest.mark.parametrize("by_engine", [frozenset(), frozenset(LEGS)])
def test_a_record_deleted_in_between_is_no_candidate(query, by_engine):
    """A composed query survives concurrent deletions, whoever scores the candidates, and shows no husk."""
    encoder = HashEncoder()
    connector = Vanishing(collection="c")
    connector.capabilities = replace(connector.capabilities, scores_within=by_engine)
    connector.ensure(CollectionSchema(16, True, 16))
    texts = ["one", "two", "three"]
    connector.upsert(RecordBatch(texts, [{"n": 1}] * 3, encoder.encode(texts)))
    (hits,) = planner.run(connector, [query])
    assert len(hits) <= 3
    assert all(hit.payload for hit in hits)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


class Reads(MemoryConnector):
    """Notes which vectors are read, and which searches name their records."""

    capabilities = replace(FULL, fusions=frozenset(), maxsim=False, scores_within=frozenset())

    def __init__(self, *, collection):
        super().__init__(collection=collection)
        self.read = []
        self.named = []

    def fetch(self, ids, *, vectors=True):
        """Fetch, and note the legs."""
        self.read.append(vectors)
        return super().fetch(ids, vectors=vectors)

    def search(self, queries):
        """Search; how this engine itself gets at vectors does not matter."""
        hits = super().search(queries)
        self.read.clear()
        self.named += [(query.legs, query.within) for query in queries if query.within is not None]
        return hits


def _vectors_read(connector):
    return [vectors for vectors in connector.read if vectors is not False]


@pytest.mark.parametrize(
    ("query", "legs", "for_leg_scores"),
    [
        (Query(dense=dense), [], []),
        (Query(sparse=sparse), [], []),
        (HYBRID, [], [["sparse"]]),
        (replace(HYBRID, fusion=Weighted()), [], []),  # whom the lexical leg lacks shares no term
        (replace(ALL, fusion=Rrf()), [("multivector",)], [["sparse"]]),
        (ALL, [("multivector",)], []),
        (replace(ALL, sparse=None), [("multivector",)], []),
        (Query(dense=dense, multivector=late, rerank=5), [("multivector",)], []),
    ],
)
@pytest.mark.parametrize("leg_scores", [True, False])
def test_only_what_is_needed_is_read(query, legs, for_leg_scores, leg_scores):
    """A single leg reads no vectors, a hybrid no multi-vectors, late interaction nothing else."""
    encoder = HashEncoder()
    connector = Reads(collection="c")
    connector.ensure(CollectionSchema(16, True, 16))
    texts = ["one", "two", "three"]
    connector.upsert(RecordBatch(texts, [{}] * 3, encoder.encode(texts)))
    asked = encoder.encode(["two"])
    query = replace(query, leg_scores=leg_scores)
    if query.sparse is not None:
        query = replace(query, sparse=asked.sparse[0])
    (hits,) = planner.run(connector, [query])
    assert hits
    assert _vectors_read(connector) == [*legs, *(for_leg_scores if leg_scores else [])]
    assert all((hit.scores is not None) == leg_scores for hit in hits)


@pytest.mark.parametrize(
    ("query", "by_engine", "named", "read"),
    [
        # Of "dense" the sparse leg's finds are unknown, of "sparse" those of the dense one. The probable
        # hits are named for their payloads, in the same search.
        (
            replace(HYBRID, fusion=Weighted()),
            {"dense", "sparse"},
            [("sparse", "a"), ("dense", "b a")],
            [],
        ),
        (
            replace(HYBRID, fusion=Weighted(), payload=False),
            {"dense", "sparse"},
            [("dense", "b"), ("sparse", "a")],
            [],
        ),
        (replace(HYBRID, fusion=Weighted(rescore=False)), {"dense", "sparse"}, [], []),
        (
            replace(HYBRID, fusion=Weighted()),
            {"dense"},
            [("dense", "b a")],
            [("sparse",)],
        ),
        (ALL, {"dense", "sparse"}, [("dense", "b"), ("sparse", "a")], [("multivector",)]),
        (
            ALL,
            set(LEGS),
            [("dense", "b"), ("sparse", "a"), ("multivector", "a b")],
            [],
        ),
        (replace(HYBRID, multivector=late, rerank=1), {"multivector"}, [("multivector", "a")], []),
    ],
)
def test_candidates_are_scored_by_the_engine_where_it_can(query, by_engine, named, read):
    """Only unknown scores are asked for, by id; of other legs the vectors are read."""
    connector = Reads(collection="c")
    connector.capabilities = replace(connector.capabilities, scores_within=frozenset(by_engine))
    encoder = HashEncoder()
    connector.ensure(CollectionSchema(16, True, 16))
    batch = RecordBatch(["a", "b"], [{}] * 2, encoder.encode(["one", "two"]))
    connector.upsert(batch)
    oracle = MemoryConnector(collection="c")
    oracle.ensure(CollectionSchema(16, True, 16))
    oracle.upsert(batch)
    asked = encoder.encode(["one", "two"])
    query = replace(
        query,
        dense=asked.dense[0],
        sparse=asked.sparse[1],
        **({} if query.multivector is None else {"multivector": asked.multivector[0]}),
        dense_depth=1,
        sparse_depth=1,
    )
    (hits,) = planner.run(connector, [query])
    assert [(" ".join(legs), " ".join(within)) for legs, within in connector.named] == named
    assert _vectors_read(connector) == read
    (right,) = oracle.search([query])
    assert [hit.id for hit in hits] == [hit.id for hit in right]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in right], rel=1e-6)


def test_the_payloads_of_a_batch_are_read_at_once():
    """However many queries are composed; each hit has its own, and none where none is asked for."""
    encoder = HashEncoder()
    connector = Reads(collection="c")
    connector.ensure(CollectionSchema(16, True, 16))
    texts = ["one", "two", "three"]
    payloads = [{"text": text} for text in texts]
    connector.upsert(RecordBatch(texts, payloads, encoder.encode(texts)))
    found = planner.run(connector, [HYBRID, replace(HYBRID, payload=False), HYBRID])
    assert [[hit.text for hit in hits] for hits in found] == [
        [hit.id for hit in found[0]],
        [""] * 3,
        [hit.id for hit in found[2]],
    ]
    assert connector.read == [False]


@pytest.mark.parametrize(("limit", "reads"), [(2, 0), (1, 1)])
def test_the_payloads_of_probable_hits_come_with_the_scores(limit, reads):
    """Twice as many as are returned; who comes up from further below is read at last."""
    connector = Reads(collection="c")
    connector.capabilities = replace(connector.capabilities, scores_within=frozenset(LEGS))
    # The dense leg finds a alone; c and d might be as near, and are not.
    dense_vectors = np.array([[0.9, 0], [0.5, 0], [0.0, 0], [0.0, 0]], np.float32)
    weights = [{2: 1.0}, {1: 0.2}, {1: 1.5}, {1: 1.4}]
    embeddings = Embeddings(
        dense_vectors,
        SparseVectors.from_rows(weights),
        MultiVectors.from_rows([row[None] for row in dense_vectors]),
        np.ones(4, np.int32),
        np.zeros(4, np.bool_),
    )
    connector.ensure(CollectionSchema(2, True, 2, "float32"))
    payloads = [{"text": id_} for id_ in "abcd"]
    connector.upsert(RecordBatch(list("abcd"), payloads, embeddings))
    query = Query(
        dense=np.array([1.0, 0.0], np.float32),
        sparse=sparse,
        fusion=Weighted(dense=1.0, sparse=0.5),
        dense_depth=1,
        sparse_depth=3,
        limit=limit,
    )
    (hits,) = planner.run(connector, [query])
    assert [hit.text for hit in hits] == [hit.id for hit in hits]
    assert len(connector.read) == reads


@pytest.mark.parametrize(("text", "again"), [("short", []), ("long " * 1000, [False])])
@pytest.mark.parametrize("fusion", [Rrf(), Weighted()])
def test_small_payloads_come_with_the_candidates(text, again, fusion):
    """Once a collection's are known to be small; until then, and large ones, those of the hits are read."""
    encoder = HashEncoder()
    connector = Reads(collection="c")
    connector.capabilities = replace(connector.capabilities, scores_within=frozenset(LEGS))
    connector.ensure(CollectionSchema(16, True, 16))
    texts = ["one", "two", "three"]
    payloads = [{"text": f"{each} {text}"} for each in texts]
    connector.upsert(RecordBatch(texts, payloads, encoder.encode(texts)))
    query = replace(HYBRID, fusion=fusion)
    for reads in ([False], again, again):
        (hits,) = planner.run(connector, [query])
        assert [hit.text for hit in hits] == [f"{hit.id} {text}" for hit in hits]
        assert connector.read == reads
    (hits,) = planner.run(connector, [replace(query, payload=False)])
    assert [hit.payload for hit in hits] == [{}] * 3


class Unhashable(Reads):
    """Equal to any other, as one that is a dataclass may be, and so not hashable."""

    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, Unhashable)


class Slots:
    """Forwards to another, and no weak reference can be made to it."""

    __slots__ = ("inner",)

    def __init__(self, *, collection):
        self.inner = Reads(collection=collection)

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize(("cls", "reads"), [(Unhashable, []), (Slots, [False])])
def test_a_connector_need_not_be_hashable(cls, reads):
    """Two that are equal are still two; one that cannot be remembered is asked each time."""
    encoder = HashEncoder()
    other, connector = cls(collection="c"), cls(collection="c")
    for each, text in ((other, "one"), (connector, "two")):
        each.ensure(CollectionSchema(16, True, 16))
        each.upsert(RecordBatch([text], [{"text": text}], encoder.encode([text])))
        (hits,) = planner.run(each, [HYBRID])
        assert each.read == [False]
    (hits,) = planner.run(connector, [HYBRID])
    assert [hit.text for hit in hits] == ["two"]
    assert connector.read == reads


@pytest.mark.parametrize(
    ("rerank", "named", "lexical_alone"),
    [
        (None, "", False),  # b and c are read with the payloads
        (1, "", False),
        (2, "b c", False),
        (4, "b c d", True),
        (9, "b c d", True),
    ],
)
def test_who_cannot_come_among_the_best_is_not_asked_about(rerank, named, lexical_alone):
    """Whom a ranking lacks that is cut scores no more there than its last; others are named."""
    connector = Reads(collection="c")
    connector.capabilities = replace(connector.capabilities, scores_within=frozenset(LEGS))
    similar = np.array(
        [[1.0, 0], [0.9, 0], [0.8, 0], [0.7, 0], [0.0, 0]], np.float32
    )  # to the query
    weights = [{1: 0.4}, {1: 0.1}, {1: 0.4}, {1: 0.4}, {1: 0.5}]
    batch = RecordBatch(
        list("abcde"),
        [{}] * 5,
        Embeddings(
            similar,
            SparseVectors.from_rows(weights),
            MultiVectors.from_rows([row[None] for row in similar]),
            np.ones(5, np.int32),
            np.zeros(5, np.bool_),
        ),
    )
    schema = CollectionSchema(2, True, 2, "float32")
    oracle = MemoryConnector(collection="c")
    for each in (connector, oracle):
        each.ensure(schema)
        each.upsert(batch)
    query = Query(
        dense=np.array([1.0, 0.0], np.float32),
        sparse=sparse,
        multivector=None if rerank is None else np.array([[1.0, 0.0]], np.float32),
        fusion=Weighted(dense=1.0, sparse=0.3),
        rerank=rerank,
        sparse_depth=2,  # e and a; the others score 0.4 at most, weighted 0.12
        dense_depth=4,  # all but e, which scores 0.7 + 0.15 at most
        limit=2,
    )
    (hits,) = planner.run(connector, [query])
    asked = [" ".join(within) for legs, within in connector.named if legs == ("sparse",)]
    assert asked == ([named] if named else [])
    assert (("sparse",) in connector.read) == (rerank is None)
    assert lexical_alone == any("e" in ids for legs, ids in connector.named if legs == ("dense",))
    (right,) = oracle.search([query])
    assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in right]


@given(st.integers(0, 2**32 - 1))
def test_fewer_questions_give_the_same_answer(seed):
    """Composed from legs that are cut anywhere, a weighted search is the oracle's, ties included."""
    rng = np.random.default_rng(seed)
    n = 8
    batch = RecordBatch(
        [f"{row}" for row in range(n)],
        [{"row": row} for row in range(n)],
        Embeddings(
            rng.integers(-2, 3, (n, 2)).astype(np.float32),
            SparseVectors.from_rows([_few_terms(rng) for _ in range(n)]),
            MultiVectors.from_rows([rng.integers(-2, 3, (1, 2)).astype(np.float32)] * n),
            np.ones(n, np.int32),
            np.zeros(n, np.bool_),
        ),
    )
    composing, oracle = Reads(collection="c"), MemoryConnector(collection="c")
    composing.capabilities = replace(composing.capabilities, scores_within=frozenset({"dense"}))
    for each in (composing, oracle):
        each.ensure(CollectionSchema(2, True, 2, "float32"))
        each.upsert(batch)
    dense_weight, sparse_weight, late_weight = map(float, rng.integers(0, 3, 3))
    query = Query(
        dense=rng.integers(-2, 3, 2).astype(np.float32),
        sparse=SparseVectors.from_rows([_few_terms(rng)])[0],
        multivector=np.array([[1, 0]], np.float32) if rng.random() < 0.5 else None,
        rerank=int(rng.integers(1, 6)),
        fusion=Weighted(dense_weight, sparse_weight, late_weight),
        dense_depth=int(rng.integers(1, 9)),
        sparse_depth=int(rng.integers(1, 5)),
        limit=int(rng.integers(1, 4)),
    )
    if query.multivector is None or rng.random() < 0.5:
        query = replace(query, rerank=None)
    (right,) = oracle.search([query])
    for _ in range(2):  # the second time payloads come with the candidates
        (hits,) = planner.run(composing, [query])
        found = [(hit.id, hit.score, hit.payload) for hit in hits]
        assert found == [(hit.id, hit.score, hit.payload) for hit in right]


def _few_terms(rng):
    terms = rng.permutation(4)[: rng.integers(1, 4)]
    return {int(term): float(rng.integers(1, 4)) for term in terms}


class Forgetful(MemoryConnector):
    """An approximate engine: of named records it finds all but one."""

    capabilities = replace(FULL, fusions=frozenset(), maxsim=False)

    def search(self, queries):
        """Search, and lose the last of the named records."""
        return [
            hits[:-1] if query.within is not None else hits
            for query, hits in zip(queries, super().search(queries), strict=True)
        ]


def test_a_candidate_that_the_engine_did_not_score_is_scored_on_the_client():
    """Nothing is lost where an engine does not find all that it was asked for."""
    encoder = HashEncoder()
    connector = Forgetful(collection="c")
    connector.ensure(CollectionSchema(16, True, 16))
    texts = ["one", "two", "three", "four"]
    connector.upsert(RecordBatch(texts, [{}] * 4, encoder.encode(texts)))
    asked = encoder.encode(["one two", "three four"])
    query = replace(
        ALL,
        dense=asked.dense[0],
        sparse=asked.sparse[1],
        multivector=asked.multivector[0],
        sparse_depth=2,
        dense_depth=2,
    )
    (hits,) = planner.run(connector, [query])
    (right,) = connector.search([query])
    assert [hit.id for hit in hits] == [hit.id for hit in right]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in right], rel=1e-6)


@pytest.mark.parametrize("filter_", [None, F("lang") == "de", 'lang == "de"'])
def test_a_query_scored_on_the_client_keeps_to_named_records(filter_):
    """Where every record would be read, only the named ones are, and the filter holds."""
    connector = Reads(collection="c")
    connector.capabilities = replace(connector.capabilities, legs=frozenset())
    encoder = HashEncoder()
    connector.ensure(CollectionSchema(16, True, 16))
    payloads = [{"lang": "de"}, {"lang": "en"}, {"lang": "de"}]
    connector.upsert(RecordBatch(["a", "b", "c"], payloads, encoder.encode(["one", "two", "six"])))
    query = Query(dense=dense, within=("a", "b", "a", "no such"), filter=filter_)
    (hits,) = planner.run(connector, [query])
    assert {hit.id for hit in hits} == ({"a", "b"} if filter_ is None else {"a"})
