"""The searches that are sent, and ties."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pymilvus import AnnSearchRequest, MilvusClient, RRFRanker
from pymilvus.grpc_gen import common_pb2

from connectors.milvus.tests.masquerade import STRUCT, STRUCT_VECTOR, masquerade
from m3connect.contract import CollectionSchema
from m3connect.errors import InputError, Unsupported
from m3connect.filters import F
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.types import (
    Embeddings,
    Query,
    RecordBatch,
    Rrf,
    SparseVector,
    SparseVectors,
    Weighted,
)
from m3connect_milvus import connect
from m3connect_milvus.engine.database import Database
from m3connect_milvus.mapping import NO_TERM, sparse_field

RAW = Weighted(rescore=False)


def parameters(pairs):
    """A request's parameters by name."""
    return {pair.key: pair.value for pair in pairs}


def filled(connector, batch, schema=corpus.SCHEMA):
    """Write a batch; the oracle with the same."""
    memory = MemoryConnector(collection="oracle")
    for one in (connector, memory):
        one.ensure(schema)
        one.upsert(batch)
    return memory


def equal_hits(one, other):
    """Whether hits have the same ids and, nearly, scores."""
    return [hit.id for hit in one] == [hit.id for hit in other] and np.allclose(
        [hit.score for hit in one], [hit.score for hit in other], atol=1e-4
    )


def test_queries_alike_share_a_request(server):
    """Queries that differ in their vectors only are sent together, others are not."""
    connector, sent = server
    memory = filled(connector, corpus.records(1, 30))
    queries = [
        replace(corpus.query(seed, "dense", limit=5), filter=condition)
        for seed in range(20)
        for condition in (None, F("lang").exists())
    ]
    sent.searches.clear()
    answers = connector.search(queries)
    assert [request.nq for request in sent.searches] == [16, 4, 16, 4]
    assert all(map(equal_hits, answers, memory.search(queries)))


def test_a_raw_weighted_sum_is_one_request(server):
    """Dense plus sparse goes in one request, without normalisation and with weights up to 1."""
    connector, sent = server
    memory = filled(connector, corpus.records(2, 60))
    fusion = Weighted(dense=2.0, sparse=0.5, rescore=False)
    query = corpus.query(2, "dense", "sparse", fusion=fusion, dense_depth=20, sparse_depth=7)
    (hits,) = connector.search([query])
    assert equal_hits(hits, memory.search([query])[0])
    (request,) = sent.fusions
    rank = parameters(request.rank_params)
    assert rank["strategy"] == "weighted"
    assert json.loads(rank["params"]) == {"weights": [1.0, 0.25], "norm_score": False}
    depths = [parameters(leg.search_params)["topk"] for leg in request.requests]
    assert depths == ["20", "7"]
    assert request.consistency_level == common_pb2.ConsistencyLevel.Strong


def test_every_read_is_strongly_consistent_unless_told(tmp_path):
    """The chosen consistency level goes with every search."""
    with masquerade(tmp_path) as (url, sent):
        for level in ("Strong", "Bounded"):
            with connect(collection="test", url=url, consistency_level=level) as connector:
                filled(connector, corpus.records(3, 3))
                connector.search([corpus.query(3, "dense")])
        levels = [request.consistency_level for request in sent.searches]
        assert levels == [common_pb2.ConsistencyLevel.Strong, common_pb2.ConsistencyLevel.Bounded]


@pytest.mark.parametrize("empty", [{}, {NO_TERM: 1.0}])
@pytest.mark.parametrize("weight", [1.0, 0.25, 3.0])
def test_a_query_without_terms_finds_by_the_other_leg(lite, empty, weight):
    """An empty sparse query finds nothing, and leaves the weighted dense leg its candidates."""
    memory = filled(lite, corpus.records(4, 30))
    (terms,) = [SparseVectors.from_rows([empty])[0]]
    dense = corpus.query(4, "dense").dense
    fusion = Weighted(dense=weight, rescore=False)
    queries = [
        Query(sparse=terms),
        Query(dense=dense, sparse=terms, fusion=fusion, dense_depth=3, limit=9),
    ]
    found = lite.search(queries)
    assert found[0] == []
    assert len(found[1]) == 3
    assert equal_hits(found[1], memory.search(queries)[1])


@pytest.mark.parametrize(
    "query",
    [
        corpus.query(5, "multivector"),
        corpus.query(5, "dense", "sparse", fusion=Rrf()),
        corpus.query(5, "dense", "sparse", fusion=Weighted()),
        corpus.query(5, "dense", "multivector", fusion=RAW),
        corpus.query(5, "dense", "multivector", rerank=5),
    ],
    ids=["multivector", "rrf", "rescored", "three legs", "rerank"],
)
def test_what_milvus_does_not_answer_is_left_to_the_planner(lite, query):
    """Fusions that mean something else here, and MaxSim, are refused; the planner does them."""
    memory = filled(lite, corpus.records(5, 40))
    with pytest.raises(Unsupported):
        lite.search([query])
    assert equal_hits(planner.run(lite, [query])[0], memory.search([query])[0])


@pytest.mark.parametrize(
    ("version", "native"), [("v2.6.0", True), ("v2.5.4", False), ("v2.4.0", False), ("", False)]
)
def test_scores_are_never_normalised_behind_our_back(tmp_path, version, native):
    """Versions that may ignore norm_score=False are not asked for weighted sums."""
    with (
        masquerade(tmp_path, version) as (url, sent),
        connect(collection="test", url=url) as connector,
    ):
        memory = filled(connector, corpus.records(6, 40))
        query = corpus.query(6, "dense", "sparse", fusion=RAW)
        assert ("weighted" in connector.capabilities.fusions) == native
        assert equal_hits(planner.run(connector, [query])[0], memory.search([query])[0])
        assert bool(sent.fusions) == native


def test_ties_at_the_limit_are_decided_by_id(lite, monkeypatch):
    """Where equal scores are cut, more is asked for until the least ids are known."""
    n = 300
    dense = np.ones((n, 2), np.float32)
    dense[:50] += 1
    sparse = SparseVectors.from_rows([{1: 0.5}] * n)
    embeddings = Embeddings(dense, sparse, None, np.ones(n, np.int32), np.zeros(n, bool))
    ids = [f"{at:03}" for at in reversed(range(n))]
    schema = CollectionSchema(2, True, None)
    memory = filled(lite, RecordBatch(ids, [{}] * n, embeddings), schema)
    asked = []
    original = Database.call

    def call(database, operation, method, *arguments, **options):
        if "limit" in options:
            asked.append(options["limit"])
        return original(database, operation, method, *arguments, **options)

    monkeypatch.setattr(Database, "call", call)
    terms = SparseVector(np.array([1], np.uint32), np.array([1], np.float32))
    both = Query(
        dense=np.array([1, 0], np.float32), sparse=terms, fusion=RAW, sparse_depth=n, limit=60
    )
    for query in (
        Query(dense=np.array([1, 0], np.float32), limit=60),
        Query(sparse=terms, limit=7),
        replace(both, dense_depth=n),
    ):
        assert equal_hits(lite.search([query])[0], memory.search([query])[0])
    assert asked[:3] == [61, 76, 316]


def test_the_engines_own_rank_fusion_is_another(lite):
    """Why ranks are fused on the client: equal scores get ranks that are not the definition's.

    What comes back is the fused score alone, so the ranks behind it cannot be put right.
    """
    batch = corpus.records(9, 12, CollectionSchema(16, True, None))
    same = replace(batch.embeddings, dense=np.repeat(batch.embeddings.dense[:1], 12, axis=0))
    memory = filled(lite, replace(batch, embeddings=same), CollectionSchema(16, True, None))
    query = corpus.query(9, "dense", "sparse", fusion=Rrf(), limit=12)
    legs = [
        AnnSearchRequest([query.dense], "dense", {"metric_type": "IP"}, 12),
        AnnSearchRequest([sparse_field(query.sparse)], "sparse", {"metric_type": "IP"}, 12),
    ]
    (found,) = lite._database.call(
        "search",
        MilvusClient.hybrid_search,
        "test",
        legs,
        RRFRanker(60),
        limit=12,
        output_fields=["record_id"],
    )
    theirs = {hit["entity"]["record_id"]: hit["distance"] for hit in found}
    right = {hit.id: hit.score for hit in memory.search([query])[0]}
    assert theirs.keys() == right.keys()
    assert theirs != pytest.approx(right, abs=1e-6)
    (ours,) = planner.run(lite, [query])
    assert {hit.id: hit.score for hit in ours} == pytest.approx(right, abs=1e-6)


def test_more_than_milvus_gives_is_refused(lite):
    """Limits and depths beyond 16,384 are named before anything is sent."""
    filled(lite, corpus.records(7, 3))
    for query in (
        corpus.query(7, "dense", limit=16_385),
        corpus.query(7, "dense", "sparse", fusion=RAW, sparse_depth=16_385),
    ):
        with pytest.raises(InputError, match="16,384"):
            lite.search([query])


def test_multivectors_are_searched_where_the_server_can(server):
    """Milvus 2.6.4 gets a struct array with MAX_SIM_IP, and embedding lists as queries."""
    connector, sent = server
    batch = corpus.records(8, 3)
    connector.ensure(corpus.SCHEMA)
    connector.upsert(batch)
    assert connector.capabilities.legs == {"dense", "sparse", "multivector"}

    (struct,) = sent.schemas["test"].struct_array_fields
    (vector,) = struct.fields
    assert (struct.name, vector.name) == (STRUCT, "vector")
    assert parameters(vector.type_params)["dim"] == "8"
    assert parameters(vector.type_params)["max_capacity"] == "4096"
    (index,) = [one for one in sent.indexes if one.field_name == STRUCT_VECTOR]
    config = parameters(index.extra_params)
    assert (config["index_type"], config["metric_type"]) == ("HNSW", "MAX_SIM_IP")

    (written,) = [one for one in sent.upserts if one.collection_name == "test"]
    (column,) = [one for one in written.fields_data if one.field_name == STRUCT]
    (vectors,) = column.struct_arrays.fields
    rows = [np.reshape(one.float_vector.data, (-1, 8)) for one in vectors.vectors.vector_array.data]
    assert all(np.array_equal(row, batch.embeddings.multivector[at]) for at, row in enumerate(rows))

    query = corpus.query(8, "multivector", limit=5)
    assert connector.search([query]) == [[]]
    request = sent.searches[-1]
    assert parameters(request.search_params)["metric_type"] == "MAX_SIM_IP"
    group = common_pb2.PlaceholderGroup.FromString(request.placeholder_group)
    (placeholder,) = group.placeholders
    assert placeholder.type == common_pb2.PlaceholderType.EmbListFloatVector
    assert np.array_equal(
        np.frombuffer(placeholder.values[0], np.float32), query.multivector.reshape(-1)
    )
    connector.fetch(batch.ids)


def test_max_sim_is_divided_by_the_query_tokens(server, monkeypatch):
    """Milvus sums over the query's tokens, the paper takes the mean."""
    connector, _ = server
    filled(connector, corpus.records(9, 3))
    query = corpus.query(9, "multivector", limit=5)
    hit = {"id": "0", "distance": 6.0, "entity": {"record_id": "a"}}
    original = Database.call

    def call(database, operation, method, *arguments, **options):
        if method.__name__ == "search":
            return [[hit]]
        return original(database, operation, method, *arguments, **options)

    monkeypatch.setattr(Database, "call", call)
    ((found,),) = connector.search([replace(query, payload=False)])
    assert found.score == 6.0 / len(query.multivector)


def test_the_engine_scores_the_candidates(lite, monkeypatch):
    """A rescored sum reads no vectors: what one leg did not find is searched by id in it."""
    memory = filled(lite, corpus.records(12, 60))
    query = corpus.query(12, "dense", "sparse", fusion=Weighted(), dense_depth=5, sparse_depth=5)
    read, named = [], []
    original = Database.call

    def call(database, operation, method, *arguments, **options):
        if method.__name__ == "query":
            read.extend(options["output_fields"])
        elif method.__name__ == "search" and options["filter"]:
            named.append((options["anns_field"], options["filter"].count('"') // 2))
        return original(database, operation, method, *arguments, **options)

    monkeypatch.setattr(Database, "call", call)
    (hits,) = planner.run(lite, [query])
    assert equal_hits(hits, memory.search([query])[0])
    assert [leg for leg, _ in named] == ["sparse", "dense"]  # the last brings payloads, too
    assert 1 <= named[0][1] <= 5 < named[1][1] <= 10
    assert not {"dense", "sparse", "tokens"}.intersection(read)


def test_a_sparse_hit_shares_a_term(lite, monkeypatch):
    """Hits without a common term, with which an engine may fill up, are left out."""
    filled(lite, corpus.records(11, 3))
    hits = [{"id": "0", "distance": 0.0, "entity": {"record_id": "a"}}]
    original = Database.call

    def call(database, operation, method, *arguments, **options):
        if method.__name__ == "search":
            return [hits]
        return original(database, operation, method, *arguments, **options)

    monkeypatch.setattr(Database, "call", call)
    assert lite.search([corpus.query(11, "sparse", payload=False)]) == [[]]
    assert len(lite.search([corpus.query(11, "dense", payload=False)])[0]) == 1


def test_hits_carry_payloads_of_any_length(lite):
    """A payload kept in parts comes with its hit, once asked for."""
    batch = corpus.records(10, 2)
    payloads = [{"text": "ü" * 100_000}, {"text": "short"}]
    filled(lite, RecordBatch(batch.ids, payloads, batch.embeddings))
    query = corpus.query(10, "dense")
    for hits in lite.search([query, query]):
        assert {hit.id: hit.payload for hit in hits} == dict(zip(batch.ids, payloads, strict=True))
    assert [hit.payload for hit in lite.search([replace(query, payload=False)])[0]] == [{}, {}]
