"""The planner's choices; that both ways give the oracle's result is the conformance suite's."""

from dataclasses import replace

import numpy as np
import pytest

from m3connect.contract import Capabilities, CollectionSchema, Limits
from m3connect.errors import InputError
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Query, RecordBatch, Rrf, SparseVector, Weighted

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


@pytest.mark.parametrize("query", [replace(HYBRID, limit=11), replace(HYBRID, dense_depth=11)])
def test_more_results_than_the_backend_returns_are_refused(query):
    """Nothing is truncated silently."""
    small = replace(FULL, limits=Limits(results=10))
    with pytest.raises(InputError, match="at most 10 results"):
        planner.plan(replace(query, sparse_depth=5, dense_depth=min(query.dense_depth, 11)), small)


class Vanishing(MemoryConnector):
    """Records disappear between the search and the fetch."""

    capabilities = replace(FULL, fusions=frozenset(), maxsim=False)

    def search(self, queries):
        """Search, then delete the best hit."""
        found = super().search(queries)
        self.delete([found[0][0].id])
        return found


@pytest.mark.parametrize("query", [HYBRID, ALL])
def test_a_record_deleted_in_between_is_no_candidate(query):
    """A composed query survives a concurrent deletion."""
    encoder = HashEncoder()
    connector = Vanishing(collection="c")
    connector.ensure(CollectionSchema(16, True, 16))
    texts = ["one", "two", "three"]
    connector.upsert(RecordBatch(texts, [{}] * 3, encoder.encode(texts)))
    (hits,) = planner.run(connector, [query])
    assert len(hits) in {2, 3}
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


class Reads(MemoryConnector):
    """Notes which vectors are read."""

    capabilities = replace(FULL, fusions=frozenset(), maxsim=False)

    def __init__(self, *, collection):
        super().__init__(collection=collection)
        self.read = []

    def fetch(self, ids, *, vectors=True):
        """Fetch, and note the legs."""
        self.read.append(vectors)
        return super().fetch(ids, vectors=vectors)

    def search(self, queries):
        """Search; how this engine itself gets at vectors does not matter."""
        hits = super().search(queries)
        self.read.clear()
        return hits


@pytest.mark.parametrize(
    ("query", "legs", "for_leg_scores"),
    [
        (Query(dense=dense), [], []),
        (Query(sparse=sparse), [], []),
        (HYBRID, [], [["sparse"]]),
        (replace(HYBRID, fusion=Weighted()), [("dense", "sparse")], []),
        (replace(ALL, fusion=Rrf()), [("multivector",)], [["sparse"]]),
        (ALL, [("dense", "sparse", "multivector")], []),
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
    read = [vectors for vectors in connector.read if vectors is not False]
    assert read == [*legs, *(for_leg_scores if leg_scores else [])]
    assert all((hit.scores is not None) == leg_scores for hit in hits)
