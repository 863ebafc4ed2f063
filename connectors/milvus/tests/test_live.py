"""A real Milvus 2.3.5: logins, limits, consistency, time-outs, filters. It has no sparse vectors.

What ran here is listed in the README; versions from 2.4 cannot be started by a test.
"""

import random

import numpy as np
import pytest
from pymilvus import MilvusClient

from m3connect.contract import CollectionSchema
from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    PermanentError,
    RequestTooLarge,
    TransientError,
    Unsupported,
)
from m3connect.filters import F, matches
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.types import MultiVectors, RecordBatch, Weighted
from m3connect_milvus import connect
from m3connect_milvus.errors import translated
from tests.servers.milvus.server import TOKEN

pytestmark = pytest.mark.live
SCHEMA = CollectionSchema(16, False, 8)


@pytest.fixture
def opened(live_server):
    """Opens a collection with a login, and closes it."""
    connectors = []

    def open_(collection, **options):
        connector = connect(collection=collection, url=live_server.url, api_key=TOKEN, **options)
        connectors.append(connector)
        return connector

    yield open_
    for connector in connectors:
        connector.close()


@pytest.mark.parametrize("token", [None, "root:wrong", "an API key"])
def test_a_refused_login_is_no_unreachable_server(live_server, token):
    """Without the right token every call is an AuthError, at once."""
    with (
        connect(collection="login", url=live_server.url, token=token, timeout=5) as connector,
        pytest.raises(AuthError, match="check the token"),
    ):
        connector.count()


def test_a_missing_privilege_is_an_auth_error(live_server, opened):
    """A user without rights is told so."""
    root = opened("rights")
    root.ensure(SCHEMA)
    root._database.call("test", MilvusClient.create_user, "bob", "bobs password")
    with (
        connect(collection="rights", url=live_server.url, token="bob:bobs password") as connector,
        pytest.raises(AuthError, match=r"(?i)permission"),
    ):
        connector.count()


def test_reads_see_every_write(opened):
    """With the default consistency a read right after a write, overwrite or deletion is exact."""
    connector = opened("consistency")
    connector.ensure(SCHEMA)
    batch = corpus.records(1, 60, SCHEMA)
    for turn in range(3):
        payloads = [{"turn": turn}] * len(batch)
        connector.upsert(RecordBatch(batch.ids, payloads, batch.embeddings))
        assert connector.count(F("turn") == turn) == connector.count() == 60
        assert list(connector.fetch(batch.ids).payloads) == payloads
        assert connector.delete(batch.ids[:20]) == 20
        assert connector.delete(batch.ids[:20]) == 0
        assert connector.count() == 40


def test_a_collection_works_as_the_oracle(opened):
    """Records of all sizes, searches, scans, filters and deletions agree with the oracle."""
    connector, memory = opened("oracle"), MemoryConnector(collection="oracle")
    batch = corpus.records(2, 120, SCHEMA)
    payloads = [{**batch.payloads[0], "text": "ü" * 400_000}, *batch.payloads[1:]]
    batch = RecordBatch(["ö" * 500, *batch.ids[1:]], payloads, batch.embeddings)
    for one in (connector, memory):
        one.ensure(SCHEMA)
        one.upsert(batch)
        one.annotate({"größe": [1, 2]})
    connector.flush()
    read, right = connector.fetch(batch.ids), memory.fetch(batch.ids)
    assert (read.payloads, read.embeddings.multivector) == (
        right.payloads,
        right.embeddings.multivector,
    )
    assert np.array_equal(read.embeddings.dense, right.embeddings.dense)
    queries = [
        corpus.query(3, "dense", limit=7),
        corpus.query(4, "dense", limit=200, filter=F("lang").exists()),
        corpus.query(5, "dense", "multivector", fusion=Weighted(), limit=9),
        corpus.query(6, "dense", "multivector", rerank=20),
    ]
    for found, wanted in zip(
        planner.run(connector, queries), planner.run(memory, queries), strict=True
    ):
        assert [hit.id for hit in found] == [hit.id for hit in wanted]
        assert [hit.score for hit in found] == pytest.approx(
            [hit.score for hit in wanted], abs=1e-4
        )
        assert [hit.payload for hit in found] == [hit.payload for hit in wanted]
    scanned = [id_ for page in connector.scan(vectors=True, batch_size=50) for id_ in page.ids]
    assert sorted(scanned) == sorted(batch.ids)
    assert connector.delete(F("lang").exists()) == memory.delete(F("lang").exists())
    assert connector.count() == memory.count()
    assert connector.describe().notes == {"größe": [1, 2]}
    assert connector.describe().engine == "milvus 2.3.5"


def test_a_name_may_be_an_alias(opened):
    """It is set and moved in one step; who opened it before goes on, and a drop takes it along."""
    one, two, name = (opened(f"shelf{suffix}") for suffix in ("_1", "_2", ""))
    assert name.capabilities.aliases
    for seed, each in enumerate((one, two), 1):
        each.ensure(SCHEMA)
        each.upsert(corpus.records(seed, 10 * seed, SCHEMA))
    name.switch("shelf_1")
    assert (name.describe().stands_for, name.count()) == ("shelf_1", 10)
    name.switch("shelf_2")
    assert name.count() == 10
    assert (name.describe().stands_for, name.count()) == ("shelf_2", 20)
    with pytest.raises(PermanentError, match="shelf_2"):
        name.drop()
    two.drop()
    with pytest.raises(CollectionNotFound):
        name.describe()
    one.switch("shelf_1")
    one.drop()


def test_filters_match_on_the_server(opened):
    """Random filters select the payloads that m3connect.filters.matches."""
    connector = opened("filters", consistency_level="Bounded")
    connector.ensure(CollectionSchema(2, False, None))
    rng = random.Random(7)
    batch = corpus.records(7, 80, CollectionSchema(2, False, None))
    batch = RecordBatch(batch.ids, [corpus.payload(rng) for _ in batch.ids], batch.embeddings)
    connector.upsert(batch)
    connector.flush()
    for _ in range(60):
        condition = corpus.condition(rng)
        found = {id_ for page in connector.scan(condition, batch_size=100) for id_ in page.ids}
        assert found == {
            id_
            for id_, payload in zip(batch.ids, batch.payloads, strict=True)
            if matches(condition, payload)
        }, condition


def test_long_passages_are_stored(opened):
    """A passage of 1,000 token vectors, 1,024 wide, comes back bit by bit."""
    schema = CollectionSchema(None, False, 1024)
    connector = opened("passages")
    connector.ensure(schema)
    tokens = np.random.default_rng(8).normal(size=(2, 1000, 1024)).astype(np.float16)
    batch = corpus.records(8, 2, CollectionSchema(None, False, 8))
    multi = MultiVectors.from_rows(list(tokens))
    batch = RecordBatch(
        batch.ids,
        batch.payloads,
        type(batch.embeddings)(
            None, None, multi, batch.embeddings.n_tokens, batch.embeddings.truncated
        ),
    )
    connector.upsert(batch)
    assert connector.fetch(batch.ids).embeddings.multivector == multi


def test_float16_dense_vectors_need_a_newer_server(opened):
    """This one makes such a collection and then finds the wrong records, so it is refused."""
    with pytest.raises(Unsupported, match=r"2\.4 has"):
        opened("half", dense_dtype="float16").ensure(SCHEMA)


def test_a_frozen_server_times_out(live_server, opened):
    """A server that does not answer is a TransientError after the time-out, and then works."""
    connector = opened("frozen")
    connector.ensure(SCHEMA)
    client = connector._database._client
    live_server.freeze()
    try:
        with pytest.raises(TransientError), translated("count"):
            client.query(connector.collection, output_fields=["count(*)"], timeout=1)
    finally:
        live_server.thaw()
    assert connector.count() == 0


def test_limits_of_a_server_are_errors_of_ours(opened):
    """What a server refuses, and Lite would take, arrives with the right class."""
    connector = opened("limits")
    connector.ensure(SCHEMA)
    store = connector._store
    row = {"id": "x", "record": "x", "generation": "x", "text": "", "unused": [0.0, 0.0]}
    with pytest.raises(PermanentError, match="exceeds max length"):
        store._upsert("upsert", store.parts, [row | {"record": "ü" * 17}])
    large = [row | {"id": str(at), "text": "x" * 65_535} for at in range(1100)]
    with pytest.raises(RequestTooLarge, match="larger than max"):
        store._upsert("upsert", store.parts, large)
