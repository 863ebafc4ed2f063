"""What only a real node can show."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.elasticsearch.tests.strategies import conditions, payloads
from m3connect.contract import CollectionSchema
from m3connect.errors import (
    CollectionNotFound,
    InvalidFilter,
    PermanentError,
    RequestTooLarge,
    SchemaMismatch,
)
from m3connect.filters import And, F, Filter, Not, Or, matches
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.types import MultiVectors, Query, RecordBatch
from m3connect_elasticsearch import connect
from m3connect_elasticsearch.connector import LIMITS
from m3connect_elasticsearch.filters import compile_filter

pytestmark = pytest.mark.live

BARE = CollectionSchema(dense_width=4, sparse=False, multivector_width=None)


@given(st.lists(payloads, min_size=5, max_size=15), st.lists(conditions, min_size=8, max_size=8))
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_filters_find_what_they_match(opened, written, wanted):
    """Any filter on any payloads selects on the node what the definition says."""
    connector = opened()
    connector.ensure(BARE)
    ids = [f"r{n}" for n in range(15)]
    connector.delete(ids)
    batch = corpus.records(1, len(written), BARE)
    connector.upsert(RecordBatch(ids[: len(written)], written, batch.embeddings))
    for condition in wanted:
        found = {id_ for part in connector.scan(condition) for id_ in part.ids}
        expected = {
            id_ for id_, payload in zip(ids, written, strict=False) if matches(condition, payload)
        }
        assert found == expected, condition
    connector.close()


def test_it_says_what_it_runs_on(node, opened):
    """The engine's version is the node's, and its licence is the free one."""
    connector = opened()
    assert connector.capabilities.engine == f"elasticsearch {node.version}"
    assert connector._server.licence == "basic"
    assert not connector._server.is_paid


def test_the_index_is_as_documented(opened, collection):
    """The mapping refuses fields that it does not know, a write is durable, replicas adapt."""
    connector = opened()
    connector.ensure(corpus.SCHEMA)
    connector.upsert(corpus.records(2, 3))
    connector.flush()
    client = connector._server.client
    settings_ = client.indices.get_settings(index=collection)[collection]["settings"]["index"]
    assert settings_["auto_expand_replicas"] == "0-1"
    assert settings_["translog"] == {"durability": "request"}
    with pytest.raises(Exception, match="strict_dynamic_mapping"):
        client.index(index=collection, document={"other": 1})


def test_a_multivector_is_stored_once(opened, collection):
    """As base64, a third more than its bytes, and not a second time for recovery."""
    schema = replace(corpus.SCHEMA, multivector_width=64)
    batch = corpus.records(9, 100, schema)
    tokens = np.random.default_rng(9).normal(size=(100 * 64, 64)).astype(np.float16)
    multi = MultiVectors(np.arange(101, dtype=np.int64) * 64, tokens)
    connector = opened()
    connector.ensure(schema)
    connector.upsert(replace(batch, embeddings=replace(batch.embeddings, multivector=multi)))
    connector.flush()
    connector._server.client.indices.flush(index=collection)
    assert tokens.nbytes < connector.size() < 2 * tokens.nbytes


@pytest.mark.parametrize("dense_index", ["int8_hnsw", "hnsw", "int8_flat", "flat"])
def test_every_dense_index_scores_exactly(opened, dense_index):
    """Whatever the index walks, scores are the full vectors', and a thousand records are exact."""
    schema = replace(BARE, dense_width=32)
    batch = corpus.records(3, 900, schema)
    memory = MemoryConnector(collection="oracle")
    connector = opened(dense_index=dense_index)
    for one in (memory, connector):
        one.ensure(schema)
        one.upsert(batch)
        one.flush()
    queries = [corpus.query(seed, "dense", schema=schema, limit=50) for seed in range(5)]
    for found, right in zip(connector.search(queries), memory.search(queries), strict=True):
        assert [hit.id for hit in found] == [hit.id for hit in right]
        assert [h.score for h in found] == pytest.approx([h.score for h in right], abs=1e-4)
    assert connector.capabilities.exact == (dense_index == "flat")


def test_a_flat_index_is_exact_beyond_its_candidates(opened):
    """With ``flat`` the nearest are found however few candidates are considered."""
    batch = corpus.records(4, 3000, BARE)
    connector = opened(dense_index="flat", candidates=10)
    connector.ensure(BARE)
    connector.upsert(batch)
    query = corpus.query(4, "dense", schema=BARE, limit=5)
    (hits,) = connector.search([query])
    scores = batch.embeddings.dense @ query.dense
    assert [hit.id for hit in hits] == [batch.ids[row] for row in np.argsort(-scores)[:5]]


def test_named_records_are_scored_though_they_share_a_segment(opened):
    """A small segment that holds all named records, beside a large one, yields every one of them."""
    batch = corpus.records(6, 3000, BARE)
    connector = opened()
    connector.ensure(BARE)
    connector.upsert(batch[:2850])
    connector.flush()
    connector.upsert(batch[2850:])
    connector.flush()
    query = corpus.query(6, "dense", schema=BARE, limit=150, within=tuple(batch.ids[2850:]))
    (hits,) = connector.search([query])
    right = batch.embeddings.dense[2850:] @ query.dense
    assert {hit.id for hit in hits} == set(batch.ids[2850:])
    assert [hit.score for hit in hits] == pytest.approx(-np.sort(-right), abs=1e-4)


@pytest.mark.parametrize("limit", [1, 5])
def test_of_many_that_tie_the_first_by_id_are_found(opened, limit):
    """However few are scored at first; here 10 of 150 with one vector."""
    batch = corpus.records(8, 150, BARE)
    same = np.repeat(batch.embeddings.dense[:1], len(batch), axis=0)
    connector = opened(candidates=10)
    connector.ensure(BARE)
    connector.upsert(replace(batch, embeddings=replace(batch.embeddings, dense=same)))
    (hits,) = connector.search([corpus.query(8, "dense", schema=BARE, limit=limit)])
    ids = [hit.id for hit in hits]
    assert (ids, len(ids)) == (sorted(ids), limit)
    # The graph of version 8 reaches 33 of them.
    if not connector.capabilities.engine.startswith("elasticsearch 8."):
        assert ids == sorted(batch.ids)[:limit]


def test_four_may_make_it_at_once(opened):
    """Connectors that ensure the same collection at the same moment all find it made."""
    connectors = [opened() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda connector: connector.ensure(corpus.SCHEMA), connectors))
    assert connectors[0].describe().schema == corpus.SCHEMA


def test_a_dropped_collection_is_not_made_by_writing(opened, collection):
    """An index that someone deleted does not come back, with a guessed mapping, by an upsert."""
    connector = opened()
    connector.ensure(corpus.SCHEMA)
    connector.upsert(corpus.records(5, 3))
    client = connector._server.client
    client.indices.delete(index=collection)
    with pytest.raises(CollectionNotFound):
        connector.upsert(corpus.records(5, 3))
    with pytest.raises(CollectionNotFound):
        connector.delete(["r00001"])
    with pytest.raises(CollectionNotFound):
        connector.search([corpus.query(5, "dense")])
    assert not client.indices.exists(index=collection)


def test_only_indices_of_ours_are_listed_and_dropped(node, opened, collection):
    """Other indices are neither listed nor dropped; an unknown name is told those there are."""
    connector = opened()
    client = connector._server.client
    client.indices.create(index=collection)
    with pytest.raises(SchemaMismatch, match="not made by m3connect"):
        connector.drop()
    assert collection not in connector.collections()
    client.indices.delete(index=collection)
    connector.ensure(corpus.SCHEMA)
    assert connector.size() > 0
    assert collection in connector.collections()
    with pytest.raises(SchemaMismatch, match="wanted 'team'"):
        opened(tenant_field="team").drop()
    assert collection in connector.collections()
    with (
        connect(collection=f"{collection}x", url=node.url) as mistyped,
        pytest.raises(CollectionNotFound, match=f"but '{collection}'"),
    ):
        mistyped.count()


def test_an_alias_serves_as_a_collection(node, opened, collection):
    """A collection can be replaced behind an alias; a pattern of names cannot be opened."""
    opened().ensure(corpus.SCHEMA)
    client = opened()._server.client
    client.indices.put_alias(index=collection, name=f"{collection}-alias")
    with connect(collection=f"{collection}-alias", url=node.url) as aliased:
        aliased.ensure(corpus.SCHEMA)
        aliased.upsert(corpus.records(6, 5))
        assert aliased.count() == opened().count() == 5


def test_an_alias_that_is_moved_twice_is_moved(opened, collection, monkeypatch):
    """A request that arrived, but whose answer did not, is sent again."""
    one, two = opened(), opened().beside(f"{collection}-two")
    for each in (one, two):
        each.ensure(corpus.SCHEMA)
    name = one.beside(f"{collection}-name")
    name.switch(collection)
    ask = name._by_name.ask

    def twice(operation, request):
        ask(operation, request)
        return ask(operation, request)

    monkeypatch.setattr(name._by_name, "ask", twice)
    name.switch(f"{collection}-two")
    assert name.describe().stands_for == f"{collection}-two"
    two.drop()


def test_an_index_of_another_project_is_refused(opened, collection):
    """ensure does not adopt an index that it did not make."""
    client = opened()._server.client
    client.indices.create(index=collection)
    with pytest.raises(SchemaMismatch, match="another name"):
        opened().ensure(corpus.SCHEMA)


def test_a_record_that_changes_meanwhile_is_not_deleted(opened, monkeypatch):
    """A deletion by filter spares a record that stopped matching after it was found."""
    connector, other = opened(), opened()
    batch = corpus.records(7, 3)
    connector.ensure(corpus.SCHEMA)
    connector.upsert(replace(batch, payloads=[{"n": 1}] * 3))
    pages = connector._index.pages

    def pages_and_then_a_change(*args):
        for page in pages(*args):
            other.upsert(replace(batch[:1], payloads=[{"n": 2}]))
            yield page

    monkeypatch.setattr(connector._index, "pages", pages_and_then_a_change)
    assert connector.delete(F("n") == 1) == 2
    other.flush()
    assert [list(part.ids) for part in other.scan()] == [[batch.ids[0]]]


def test_others_see_flushed_writes(opened):
    """After flush another connector counts, fetches and finds what this one wrote."""
    writer, reader = opened(), opened()
    writer.ensure(corpus.SCHEMA)
    assert reader.count() == 0
    writer.upsert(corpus.records(8, 20))
    writer.flush()
    assert reader.count() == 20
    assert len(reader.fetch(["r00003"])) == 1
    assert len(reader.search([corpus.query(8, "dense", limit=20)])[0]) == 20


def test_a_full_disk_is_reported_at_once(opened, collection):
    """What Elasticsearch answers on a full disk is a PermanentError, and deleting still works."""
    connector = opened()
    connector.ensure(corpus.SCHEMA)
    connector.upsert(corpus.records(9, 5))
    client = connector._server.client
    block = {"index.blocks.read_only_allow_delete": True}
    client.indices.put_settings(index=collection, settings=block)
    begun = time.monotonic()
    with pytest.raises(PermanentError, match="cluster_block_exception"):
        connector.upsert(corpus.records(10, 5))
    assert time.monotonic() - begun < 5, "it was retried"


def test_long_lists_of_values(opened):
    """70,000 values in one filter, more than one terms query takes."""
    connector = opened()
    connector.ensure(BARE)
    batch = replace(corpus.records(11, 10, BARE), payloads=[{"n": n * 9000} for n in range(10)])
    connector.upsert(batch)
    assert connector.count(F("n").isin(range(70_000))) == 8


def test_the_deepest_filter_is_taken(opened):
    """Whatever compiles is nested no deeper than the node takes, in every kind of request."""
    connector = opened()
    connector.ensure(corpus.SCHEMA)
    batch = replace(corpus.records(14, 3), payloads=[{"n": n} for n in range(3)])
    connector.upsert(batch)
    deepest: Filter = And(())
    while compiles(deeper := Not(Or((deepest, F("n") == 1)))):
        deepest = deeper
    wanted = [id_ for id_, p in zip(batch.ids, batch.payloads, strict=True) if matches(deepest, p)]
    assert connector.count(deepest) == len(wanted)
    (hits,) = connector.search([corpus.query(14, "dense", filter=deepest)])
    assert sorted(hit.id for hit in hits) == sorted(wanted)
    connector.search([corpus.query(14, "sparse", filter=deepest)])


def compiles(condition):
    try:
        compile_filter(condition)
    except InvalidFilter:
        return False
    return True


def test_requests_that_a_node_finds_too_large(strained_node):
    """What a node refuses as too large is split; one record that is, is named."""
    with connect(collection="small", url=strained_node.url) as connector:
        connector.ensure(BARE)
        batch = replace(corpus.records(13, 24, BARE), payloads=[{"text": "x" * 40_000}] * 24)
        connector.upsert(batch)
        assert connector.count() == 24
        for size in (
            700_000,
            1_500_000,
        ):  # as base64, beyond its memory for requests; beyond its HTTP limit
            with pytest.raises(RequestTooLarge, match=f"record '{batch.ids[0]}' alone"):
                connector.upsert(replace(batch, payloads=[{"text": "x" * size}] * 24))
        assert connector.fetch(batch.ids).payloads == batch.payloads


def test_a_trial_licence_is_seen(strained_node):
    """On a node with a trial licence what is paid may be used; nothing of it is without asking."""
    url = strained_node.url
    with connect(collection="trial", url=url, server_fusion=True) as connector:
        assert connector._server.licence == "basic"
        connector._server.client.license.post_start_trial(acknowledge=True)
    with connect(collection="trial", url=url, server_fusion=True) as connector:
        assert connector._server.licence == "trial"
        assert connector.capabilities.fusions == {"rrf"}
    with connect(collection="trial", url=url) as connector:
        assert connector.capabilities.fusions == frozenset()


def test_results_reach_their_limit(opened):
    """10,000 results are given, sorted; the planner refuses more."""
    connector = opened()
    connector.ensure(BARE)
    dense = np.random.default_rng(12).normal(size=(LIMITS.results + 50, 4)).astype(np.float32)
    base = corpus.records(12, len(dense), BARE)
    payloads_ = [{}] * len(dense)
    connector.upsert(
        replace(base, payloads=payloads_, embeddings=replace(base.embeddings, dense=dense))
    )
    query = Query(dense=dense[0], limit=LIMITS.results, payload=False)
    (hits,) = planner.run(connector, [query])
    assert len(hits) == len({hit.id for hit in hits}) == LIMITS.results
