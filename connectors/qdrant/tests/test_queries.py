"""Queries as one request each, and answers as hits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from m3connect.errors import InputError
from m3connect.filters import F
from m3connect.types import Fusion, Query, Rrf, SparseVector, Weighted
from m3connect_qdrant.engine.edge_requests import payload as edge_payload
from m3connect_qdrant.engine.edge_requests import query as edge_query
from m3connect_qdrant.filters import compile_filter
from m3connect_qdrant.queries import MULTIVECTOR_FLOATS, check_size, hits, request

DENSE = np.array([1, 0], np.float32)
SPARSE = SparseVector(np.array([7, 3], np.uint32), np.array([0.5, 1], np.float32))
EMPTY = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
TOKENS = np.array([[1, 0], [0, 1]], np.float32)

D = {"query": {"nearest": [1.0, 0.0]}, "using": "dense"}
S = {"query": {"nearest": {"indices": [7, 3], "values": [0.5, 1.0]}}, "using": "sparse"}
M = {"query": {"nearest": [[1.0, 0.0], [0.0, 1.0]]}, "using": "multivector"}
BOTH = [{**D, "limit": 100}, {**S, "limit": 50}]


def sent(query: Query, limit: int = 11, **options: Any) -> Any:
    made = request(query, limit, **options)
    assert made is not None
    edge_query(made)  # the embedded engine has the same
    asked = models.QueryRequest.model_validate(made)  # and a server
    assert asked.model_dump(mode="json", exclude_unset=True) == made
    assert made.pop("with_payload") in ({"exclude": ["_m3.facts"]}, {"include": ["_m3.id"]})
    return made


def ask(fusion: Fusion | None = None, **options: Any) -> Query:
    given = {"dense": DENSE, "sparse": SPARSE, "multivector": TOKENS, "sparse_depth": 50}
    return Query(fusion=fusion, **{**given, **options})


def formula(*terms: Any) -> Any:
    defaults = {f"$score[{position}]": 0.0 for position in range(len(terms))}
    return {"formula": {"sum": [*terms]}, "defaults": defaults}


def ranks(stage: Any) -> Any:
    return {"prefetch": [stage], "query": {"rrf": {"k": 1}}, "limit": stage["limit"]}


def reciprocal(weight: float, k: float, position: int) -> Any:
    score = f"$score[{position}]"
    return {
        "div": {
            "left": {"mult": [weight, score]},
            "right": {"sum": [1.0, {"mult": [k, score]}]},
        }
    }


@pytest.mark.parametrize(
    ("query", "expected"), [(Query(dense=DENSE), D), (Query(sparse=SPARSE), S), (Query(multivector=TOKENS), M)]
)  # fmt: skip
def test_one_leg_is_a_search(query: Query, expected: Any) -> None:
    """A query of one leg asks that leg for as many as are wanted."""
    assert sent(query) == {**expected, "limit": 11}


def test_rank_fusion_is_a_formula_over_reciprocal_ranks() -> None:
    """weight / (k + rank), with any k and weights, from each leg's 1 / rank."""
    query = ask(Rrf(k=60, dense=1, sparse=0.3), multivector=None)
    assert sent(query) == {
        "prefetch": [ranks(stage) for stage in BOTH],
        "query": formula(reciprocal(1, 60, 0), reciprocal(0.3, 60, 1)),
        "limit": 11,
    }


def test_equally_weighted_ranks_are_fused_by_the_engine() -> None:
    """It counts ranks from 0; a k that is no whole number is left to the formula."""
    query = ask(Rrf(k=60), multivector=None)
    assert sent(query) == {"prefetch": BOTH, "query": {"rrf": {"k": 61}}, "limit": 11}
    assert "formula" in sent(ask(Rrf(k=2.5), multivector=None))["query"]


def test_the_embedded_engine_is_given_no_empty_filter() -> None:
    """Whom a filter without conditions lets pass is looked at one by one: double the time of a search."""
    request_ = request(Query(sparse=SPARSE), 11)
    assert request_ is not None
    assert edge_query(request_).filter is None


def test_rank_fusion_ranks_the_union_by_maxsim() -> None:
    """A multi-vector beside other legs ranks all their candidates."""
    query = ask(Rrf(k=2.5, multivector=2))
    multi = {"prefetch": BOTH, **M, "limit": 150}
    assert sent(query)["prefetch"][2] == ranks(multi)
    assert sent(query)["query"]["formula"]["sum"][2] == reciprocal(2, 2.5, 2)


def test_a_weighted_sum_scores_every_candidate_in_every_leg() -> None:
    """Each leg scores the union; MaxSim, which Qdrant sums, is divided by the query's tokens."""
    assert sent(ask(Weighted(dense=1, sparse=0.3, multivector=1))) == {
        "prefetch": [{"prefetch": BOTH, **leg, "limit": 150} for leg in (D, S, M)],
        "query": formula(
            {"mult": [1, "$score[0]"]}, {"mult": [0.3, "$score[1]"]}, {"mult": [0.5, "$score[2]"]}
        ),
        "limit": 11,
    }


def test_a_weighted_sum_without_rescoring_takes_what_each_leg_found() -> None:
    """A candidate that a leg did not find counts 0 there."""
    query = ask(Weighted(rescore=False), multivector=None)
    assert sent(query)["prefetch"] == BOTH


def test_reranking_orders_the_best_by_maxsim_alone() -> None:
    """The other legs, fused, give the candidates; one leg needs no fusion."""
    fused = sent(ask(Rrf(), rerank=20))
    assert {name: fused[name] for name in ("query", "using", "limit")} == {**M, "limit": 11}
    (first,) = fused["prefetch"]
    assert first["limit"] == 20
    assert len(first["prefetch"]) == 2
    single = sent(ask(sparse=None, rerank=20))
    assert single["prefetch"] == [{**D, "limit": 20}]
    shallow = sent(ask(sparse=None, rerank=20, dense_depth=5))
    assert shallow["prefetch"] == [{**D, "limit": 5}]


def test_every_search_obeys_the_filter() -> None:
    """The filter stands in each first stage; later stages only see what passed it."""
    where = F("lang") == "de"
    compiled = compile_filter(where)
    for query in (ask(Rrf(), filter=where), ask(Weighted(), filter=where, rerank=3)):
        searches = [*_searches(sent(query))]
        assert len(searches) >= 2
        assert all(stage["filter"] == compiled for stage in searches)
    assert sent(Query(dense=DENSE, filter=where))["filter"] == compiled


def test_exact_searches_say_so() -> None:
    """On demand, candidates are searched without the graph."""
    for query in (Query(dense=DENSE), ask(Rrf())):
        assert all(s["params"]["exact"] for s in _searches(sent(query, exact=True)))


def _searches(stage: Any) -> Any:
    if not stage.get("prefetch"):
        yield stage
    for inner in stage.get("prefetch", []):
        yield from _searches(inner)


def test_a_sparse_leg_without_terms_finds_nothing() -> None:
    """It is left out; where it was the only source of candidates, nothing is asked."""
    assert request(Query(sparse=EMPTY), 5) is None
    assert request(ask(Rrf(), dense=None, sparse=EMPTY), 5) is None
    assert request(ask(dense=None, sparse=EMPTY, rerank=5), 5) is None
    assert sent(ask(Weighted(rescore=False), sparse=EMPTY, multivector=None))["prefetch"] == [
        {**D, "limit": 100}
    ]


def test_payloads_are_left_out_on_demand() -> None:
    """Without payload only the id travels; facts never do."""
    bare = request(Query(dense=DENSE, payload=False), 5)
    assert bare is not None
    assert bare["with_payload"] == {"include": ["_m3.id"]}


def answer(*scored: tuple[str, float]) -> list[tuple[float, dict[str, Any]]]:
    return [(score, {"_m3": {"id": id_}, "text": id_.upper()}) for id_, score in scored]


def test_answers_become_hits() -> None:
    """The best answers keep their order, are ranked from 1 and carry the payload if asked for."""
    found = hits(Query(dense=DENSE, limit=3), answer(("b", 2), ("a", 1), ("c", 1)))
    assert [(hit.id, hit.score, hit.rank) for hit in found] == [
        ("b", 2, 1),
        ("a", 1, 2),
        ("c", 1, 3),
    ]
    assert found[0].payload == {"text": "B"}
    assert hits(Query(dense=DENSE, payload=False), answer(("a", 1)))[0].payload == {}


def test_maxsim_is_the_mean_over_the_querys_tokens() -> None:
    """Qdrant sums; alone and as a reranker the sum is divided, in a formula it was already."""
    for query, score in [
        (Query(multivector=TOKENS), 0.5),
        (ask(sparse=None, rerank=5), 0.5),
        (ask(Weighted()), 1.0),
    ]:
        assert hits(query, answer(("a", 1.0)))[0].score == score


def test_a_query_beyond_the_servers_limit_is_refused() -> None:
    """As many token values as a server refuses are refused on every engine."""
    check_size(Query(multivector=np.zeros((1023, 1024), np.float16)))
    with pytest.raises(InputError, match=str(MULTIVECTOR_FLOATS)):
        check_size(Query(multivector=np.zeros((1024, 1024), np.float16)))


@pytest.mark.parametrize("foreign", ["random", {"fusion": "dbsf"}])
def test_the_embedded_engine_is_asked_only_what_is_translated(foreign: Any) -> None:
    """A request that this connector does not make is not half translated."""
    made = request(Query(dense=DENSE), 5)
    assert made is not None
    with pytest.raises(TypeError):
        edge_query({**made, "query": foreign})
    with pytest.raises(TypeError):
        edge_payload(foreign)
