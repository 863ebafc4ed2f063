"""Searches as they are sent, and answers as they are read."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from m3connect.errors import Unsupported
from m3connect.filters import F
from m3connect.types import Query, Rrf, SparseVector
from m3connect_elasticsearch.mapping import key
from m3connect_elasticsearch.queries import Dialect, read_hits, search_body, wider

DENSE = np.array([0.5, -1.0], np.float32)
SPARSE = SparseVector(np.array([7, 4_000_000_000], np.uint32), np.array([0.5, 2.0], np.float32))
BOTH = Query(dense=DENSE, sparse=SPARSE, fusion=Rrf(), payload=False)
FILTER = {"term": {"facts": "4:lang=sde"}}
ORDER = [{"_score": "desc"}, {"id": "asc"}]
KNN = {
    "field": "dense",
    "query_vector": [0.5, -1.0],
    "k": 300,
    "num_candidates": 1000,
    "rescore_vector": {"oversample": 1.0},
}
TERMS = {
    "sparse_vector": {
        "field": "sparse",
        "query_vector": {"7": 0.5, "4000000000": 2.0},
        "prune": False,
    }
}


def body(query, *, candidates=1000, coarse=False, packed=False, weighs_rrf=True):
    return search_body(query, Dialect(candidates, coarse, packed, weighs_rrf))


def test_a_dense_search():
    """The best candidates are scored by their full vectors, and sorted by score and id."""
    assert body(Query(dense=DENSE, filter=F("lang") == "de")) == {
        "query": {"knn": {**KNN, "filter": [FILTER]}},
        "sort": ORDER,
        "size": 11,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["id", "payload"],
        "track_total_hits": False,
    }


@pytest.mark.parametrize(
    ("limit", "candidates", "considered", "scored"),
    [
        (10, 1000, 1000, 300),
        (10, 50, 50, 50),
        (200, 1000, 1000, 600),
        (800, 1000, 1600, 1600),
        (9000, 1000, 10_000, 10_000),
    ],
)
def test_a_dense_search_considers_more_than_it_returns(limit, candidates, considered, scored):
    """At least the option's candidates, at least twice the limit, at most what a server takes."""
    query = Query(dense=DENSE, limit=limit)
    knn = body(query, candidates=candidates)["query"]["knn"]
    assert (knn["num_candidates"], knn["k"]) == (considered, scored)
    coarse = body(query, candidates=candidates, coarse=True)["query"]["knn"]
    assert (coarse["num_candidates"], coarse["k"]) == (considered, considered)


def test_a_query_vector_is_packed_for_servers_that_take_it():
    """As base64 of big-endian float32."""
    knn = body(Query(dense=DENSE), packed=True)["query"]["knn"]
    assert base64.b64decode(knn["query_vector"]) == DENSE.astype(">f4").tobytes()


def test_a_sparse_search():
    """Pruning is off, the filter does not score, the exact weights come along; the server does not sort."""
    assert body(Query(sparse=SPARSE, filter=F("lang") == "de", payload=False)) == {
        "query": {"bool": {"must": [TERMS], "filter": [FILTER]}},
        "size": 26,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["id", "exact.sparse"],
        "track_total_hits": False,
    }
    widest = body(Query(sparse=SPARSE, limit=10_000))
    assert (widest["size"], widest["sort"]) == (10_000, ORDER)


@pytest.mark.parametrize(
    ("sent", "scores", "more"),
    [
        ((3, 10), [2.0, 1.5, 1.4], None),
        ((3, 10), [2.0, 1.5], None),  # there are no more records
        ((3, 10), [2.0, 1.5, 1.5], (10, 10)),  # how far the tie goes is to be seen
        ((10, 10), [2.0, 1.5, 1.5, *[1.4] * 7], None),
        ((10, 10), [2.0] * 10, (80, 80)),
        ((10, 10), [2.0] * 9, None),
        ((80, 80), [2.0] * 80, (640, 640)),
        ((9000, 9000), [2.0] * 9000, (10_000, 10_000)),
        ((10_000, 10_000), [2.0] * 10_000, None),  # no server scores more
    ],
)
def test_more_are_scored_where_a_tie_may_go_on(sent, scores, more):
    """Those that tie at the limit are all seen, for the first by id is wanted."""
    query = Query(dense=DENSE, limit=2)

    def asking(size, k):
        knn = KNN | {"k": k, "num_candidates": max(k, 1000)}
        return body(query) | {"query": {"knn": knn}, "size": size}

    found = [hit(f"{row:05}", score) for row, score in enumerate(scores)]
    again = wider(query, asking(*sent), found, read_hits(query, found))
    assert again == (None if more is None else asking(*more))


@pytest.mark.parametrize(("limit", "found"), [(1001, 1000), (1000, 999), (1001, 1001)])
def test_all_are_compared_where_the_index_gives_fewer_than_many(limit, found):
    """A graph need not lead to every record; what was compared so is not asked for again."""
    query = Query(dense=DENSE, limit=limit, filter=F("lang") == "de")
    returned = [hit(f"{row:05}", 2.0 - row / 4096) for row in range(found)]
    again = wider(query, body(query), returned, read_hits(query, returned))
    assert (again is not None) == (limit > 1000 and found < limit)
    if again is not None:
        parts = [part["knn"] for part in again["query"]["bool"]["should"]]
        seen = {"ids": {"values": [key(f"{row:05}") for row in range(found)]}}
        assert parts[0]["filter"] == [FILTER, seen]
        assert parts[1]["filter"] == [FILTER, {"bool": {"must_not": [seen]}}]
        assert (again["size"], again["sort"]) == (limit + 1, ORDER)
        assert wider(query, again, returned, read_hits(query, returned)) is None


@pytest.mark.parametrize(
    ("limit", "scores", "size"),
    [
        (2, [9.0, 8.0, 7.9], None),  # 7.9 may stand for up to 7.93
        (2, [9.0, 8.0, 7.98], 24),  # another record with 7.98 may score 8.01
        (2, [9.0, 8.0], None),  # there are no more records
        (3, [9.0, 8.0, 7.0], 24),
        (10_000, [9.0] * 10_000, None),
    ],
)
def test_more_are_asked_for_where_the_best_may_be_missing(limit, scores, size):
    """A record that was not found scores at most what the last one's rounded weights may stand for."""
    query = Query(
        sparse=SparseVector(np.array([7], np.uint32), np.array([1.0], np.float32)), limit=limit
    )
    found = [hit(f"{row:05}", score, sparse={7: score}) for row, score in enumerate(scores)]
    sent = body(query) | {"size": 3 if limit < 10 else limit}
    again = wider(query, sent, found, read_hits(query, found))
    assert again == (None if size is None else {**sent, "size": size})


def test_more_are_asked_for_of_the_lexical_leg_alone():
    """The dense leg's ties are settled by the server."""
    query = Query(dense=DENSE, limit=1)
    found = [hit("a", 1.5)]
    assert wider(query, body(query), found, read_hits(query, found)) is None


def test_a_multivector_search_is_the_mean_made_positive():
    """With rank_vectors the server scores MaxSim by script, which must not be negative."""
    tokens = np.array([[0.5, 1.0], [1.0, 0.0]], np.float32)
    scored = body(Query(multivector=tokens))["query"]["script_score"]
    assert scored["query"] == {"bool": {"filter": []}}
    assert scored["script"]["params"] == {"query": [[0.5, 1.0], [1.0, 0.0]], "n": 2}
    assert "maxSimDotProduct(params.query, 'tokens') / params.n" in scored["script"]["source"]
    filtered = body(Query(multivector=tokens, filter=F("lang") == "de"))
    assert filtered["query"]["script_score"]["query"] == {"bool": {"filter": [FILTER]}}


def test_a_search_within_named_records():
    """Every leg keeps to the keys of the ids, beside the filter."""
    named = {"ids": {"values": [key("a"), key("b")]}}
    tokens = np.array([[1.0, 0.0]], np.float32)
    asked = Query(within=("a", "b"), filter=F("lang") == "de")
    knn = body(replace(asked, dense=DENSE))["query"]["knn"]
    assert (knn["filter"], knn["k"]) == ([FILTER, named], 2)
    assert body(replace(asked, sparse=SPARSE))["query"]["bool"]["filter"] == [FILTER, named]
    script = body(replace(asked, multivector=tokens))["query"]["script_score"]
    assert script["query"]["bool"]["filter"] == [FILTER, named]


def test_rank_fusion_by_the_server():
    """Both legs as they are sent alone, to the same depth; as many hits as the window holds."""
    assert body(BOTH) == {
        "retriever": {
            "rrf": {
                "retrievers": [
                    {"standard": {"query": {"knn": KNN}, "sort": ORDER}},
                    {"standard": {"query": TERMS, "sort": ORDER}},
                ],
                "rank_constant": 60,
                "rank_window_size": 100,
            }
        },
        "size": 100,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["id"],
        "track_total_hits": False,
    }


def test_weighted_rank_fusion_by_the_server():
    """Weights stand beside the retrievers, from version 9.2 on."""
    weighted = replace(BOTH, fusion=Rrf(k=10, dense=2.0, sparse=0.0))
    rrf = body(weighted)["retriever"]["rrf"]
    assert rrf["rank_constant"] == 10
    assert [one["weight"] for one in rrf["retrievers"]] == [2.0, 0.0]
    assert all("standard" in one["retriever"] for one in rrf["retrievers"])
    with pytest.raises(Unsupported, match=r"9\.2"):
        body(weighted, weighs_rrf=False)


@pytest.mark.parametrize(
    "query",
    [
        replace(BOTH, dense_depth=50),
        replace(BOTH, limit=101),
        replace(BOTH, fusion=Rrf(k=1.5)),
    ],
)
def test_what_the_servers_rank_fusion_cannot_mean_is_refused(query):
    """Unequal depths, more hits than the window and a broken k are not quietly changed."""
    with pytest.raises(Unsupported, match="without server_fusion"):
        body(query)


def hit(id_, score, *, sparse=None, payload="{}"):
    fields = {"id": [id_]}
    if sparse is not None:
        raw = (
            np.array(list(sparse), "<u4").tobytes() + np.array([*sparse.values()], "<f4").tobytes()
        )
        fields["exact.sparse"] = [base64.b64encode(raw).decode()]
    if payload is not None:
        fields["payload"] = [base64.b64encode(payload.encode()).decode()]
    return {"_score": score, "fields": fields}


def test_inner_products_come_back():
    """1 + s and 1 / (1 - s) are undone, and the payload is read."""
    found = [hit("b", 1.75, payload='{"n": 1}'), hit("a", 1.0), hit("c", 0.2)]
    hits = read_hits(Query(dense=DENSE), found)
    assert [(h.id, h.score, h.rank, h.payload) for h in hits] == [
        ("b", 0.75, 1, {"n": 1}),
        ("a", 0.0, 2, {}),
        ("c", -4.0, 3, {}),
    ]


def test_sparse_hits_are_scored_by_their_exact_weights():
    """The engine's order of nearly equal scores is put right, and the limit holds."""
    found = [
        hit("a", 9.0, sparse={7: 1.0}),
        hit("b", 8.9, sparse={7: 1.002}),
        hit("c", 8.8, sparse={4_000_000_000: 0.2503, 9: 5.0}),
    ]
    hits = read_hits(Query(sparse=SPARSE, limit=2), found)
    assert [(h.id, h.rank) for h in hits] == [("b", 1), ("c", 2)]
    assert [h.score for h in hits] == pytest.approx([0.501, 0.5006], rel=1e-6)


def test_fused_ties_are_ordered_by_id_and_cut():
    """The server settles ties in its own order; hits come by score and id, to the limit."""
    found = [hit("b", 0.5), hit("a", 0.5), hit("c", 0.25)]
    hits = read_hits(replace(BOTH, limit=2), found)
    assert [(h.id, h.score, h.rank) for h in hits] == [("a", 0.5, 1), ("b", 0.5, 2)]
