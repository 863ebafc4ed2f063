"""The connector itself: options, creation, indexes, ties, batches, what a server is asked."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import models

from m3connect.connecting.registry import connect as connect_by_name
from m3connect.contract import CollectionSchema, FieldKind
from m3connect.errors import (
    CollectionNotFound,
    ConfigError,
    PermanentError,
    SchemaMismatch,
    TransientError,
    Unsupported,
)
from m3connect.filters import F
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, decided, oracle
from m3connect.types import Hit, Leg, Query, RecordBatch, Rrf, SparseVectors, Weighted
from m3connect_qdrant import QdrantConnector, connect
from m3connect_qdrant import points as points_module
from m3connect_qdrant.engine.client import MemoryEngine, ServerEngine
from m3connect_qdrant.engine.edge import EdgeEngine
from m3connect_qdrant.engine.protocol import Engine
from m3connect_qdrant.mapping import Placing, Point, point_id


class Counting(MemoryEngine):
    """Counts the messages that a search takes."""

    def __init__(self) -> None:
        super().__init__("docs")
        self.asked: list[int] = []

    def query(self, requests: Any) -> Any:
        self.asked.append(len(requests))
        return super().query(requests)


# ------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://localhost:6333", "path": "data"},
        {"multivector_storage": "uint8"},
        {"collection": ""},
        {"collection": "a/b"},
        {"collection": ".."},
        {"collection": "x" * 256, "url": "http://localhost:6333"},
        {"collection": "ü" * 128, "url": "http://localhost:6333"},
        {"collection": "x" * 216},
        {"collection": "a\nb"},
        {"nonsense": 1},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """A wrong option is told when connecting, by name."""
    with pytest.raises(ConfigError):
        connect_by_name("qdrant", **{"collection": "docs", **options})


@pytest.mark.parametrize(
    ("options", "engine", "embedded"),
    [
        ({}, EdgeEngine, True),
        ({"path": "somewhere"}, EdgeEngine, True),
        ({"path": ":memory:"}, MemoryEngine, True),
        ({"url": "https://qdrant.example:6333", "api_key": "secret"}, ServerEngine, False),
        ({"url": "http://localhost:6333", "prefer_grpc": False}, ServerEngine, False),
    ],
)
def test_options_choose_the_engine(
    options: dict[str, Any], engine: type[Engine], embedded: bool
) -> None:
    """Without a URL the engine is embedded; connecting touches neither disk nor network."""
    with connect(collection="Möbel & mehr", **options) as connector:
        assert type(connector._engine) is engine
        assert connector._engine.embedded is embedded


def test_the_longest_names_fit(tmp_path: Path) -> None:
    """Names are measured in bytes; an embedded collection is made under a longer one first."""
    connect(collection="ü" * 127, url="http://localhost:6333").close()
    with connect(collection="x" * 215, path=str(tmp_path)) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.drop()


def test_a_key_over_http_makes_no_noise() -> None:
    """The driver's warning, with a line of its source, is not shown by every command."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connect(collection="docs", url="http://localhost:6333", api_key="key").close()


def test_capabilities_tell_engine_and_exactness(rest: QdrantConnector, store: Any) -> None:
    """A server is asked for its version once; an exact search is declared as such."""
    assert rest.capabilities.engine == "qdrant 1.19.0 (REST)"
    assert rest.capabilities.exact is False
    assert store.asked == ["GET /"]
    with connect(collection="docs", path=":memory:") as memory:
        assert memory.capabilities.exact
    with connect(collection="docs", exact=True) as embedded:
        assert embedded.capabilities.exact


# ---------------------------------------------------------------------------------- collections


def test_an_old_server_is_refused(rest: QdrantConnector, store: Any) -> None:
    """A server that would drop the collection's metadata is told from its version."""
    store.version = "1.15.4"
    with pytest.raises(Unsupported, match=r"1\.15\.4, at least 1\.16"):
        rest.ensure(corpus.SCHEMA)
    assert "PUT /collections/docs" not in store.asked


def test_a_foreign_collection_is_left_alone(rest: QdrantConnector, store: Any) -> None:
    """A collection that someone else made is neither used nor changed."""
    store.create_collection(
        "docs", vectors_config=models.VectorParams(size=3, distance=models.Distance.COSINE)
    )
    for attempt in (lambda: rest.ensure(corpus.SCHEMA), rest.describe, rest.count):
        with pytest.raises(SchemaMismatch, match="not made by m3connect"):
            attempt()
    assert set(store.asked) == {"GET /aliases", "GET /collections/docs"}


def test_only_collections_of_ours_are_listed_and_dropped(rest: QdrantConnector, store: Any) -> None:
    """A server's other collections are neither listed nor dropped, and an alias is named as one."""
    other = {"v": models.VectorParams(size=2, distance=models.Distance.DOT)}
    store.create_collection("docs", vectors_config=other)
    assert rest.collections() == []
    with pytest.raises(SchemaMismatch, match="not made by m3connect"):
        rest.drop()
    assert store.collection_exists("docs")


def test_an_unknown_collection_names_those_there(rest: QdrantConnector, store: Any) -> None:
    """Who mistypes a name is told the names; ensure, which makes it, asks for no list."""
    rest.ensure(corpus.SCHEMA)
    assert "GET /collections" not in store.asked
    engine = rest._engine
    assert isinstance(engine, ServerEngine)
    with_other_name = QdrantConnector("doc", engine)
    engine.collection = "doc"
    with pytest.raises(CollectionNotFound, match=r"no collection 'doc', but 'docs'"):
        with_other_name.count()


def test_what_was_described_is_not_read_again(
    rest: QdrantConnector, rest_url: str, store: Any
) -> None:
    """A search that began by describing the collection asks for it once."""
    rest.ensure(corpus.SCHEMA)
    with connect(collection="docs", url=rest_url, prefer_grpc=False) as connector:
        store.asked.clear()
        connector.describe()
        assert connector.count() == 0
        assert store.asked.count("GET /collections/docs") == 1


def test_a_collection_made_meanwhile_is_verified(
    rest: QdrantConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two creators at once, the second checks what the first has made."""
    create = rest._engine.create

    def overtaken(*args: Any) -> None:
        create(*args)
        create(*args)

    monkeypatch.setattr(rest._engine, "create", overtaken)
    rest.ensure(corpus.SCHEMA)
    assert rest.describe().schema == corpus.SCHEMA
    other = CollectionSchema(dense_width=3, sparse=False, multivector_width=None)
    with pytest.raises(SchemaMismatch, match="dense_width"):
        rest.ensure(other)


@pytest.mark.parametrize("name", ["rest", "by_grpc"])
def test_indexes_are_made_before_records_and_only_once(
    name: str, store: Any, request: pytest.FixtureRequest
) -> None:
    """Each payload field gets the indexes that its filters use; later ones are added."""
    connector: QdrantConnector = request.getfixturevalue(name)
    connector.ensure(replace(corpus.SCHEMA, payload_fields={"lang": "keyword"}))
    assert {*store.info("docs").payload_schema} == {"_m3.facts.lang.values"}
    asked = len(store.asked)
    wider = replace(corpus.SCHEMA, payload_fields={"lang": "keyword", "when": "datetime"})
    connector.ensure(wider)
    schema = {key: info.data_type for key, info in store.info("docs").payload_schema.items()}
    assert schema == {
        "_m3.facts.lang.values": "keyword",
        "_m3.facts.when.values": "keyword",
        "_m3.facts.when.dates": "datetime",
    }
    route = "PUT /collections/docs/index" if name == "rest" else "CreateFieldIndex"
    assert store.asked[asked:].count(route) == 2
    assert connector.describe().schema == wider


@pytest.mark.parametrize("name", ["rest", "by_grpc"])
def test_tenants_get_an_index_of_their_own(
    name: str, store: Any, request: pytest.FixtureRequest
) -> None:
    """A server is told which field has the tenants, once, and it stays a field to filter by."""
    connector: QdrantConnector = request.getfixturevalue(name)
    fields: dict[str, FieldKind] = {"team": "keyword", "lang": "keyword"}
    schema = replace(corpus.SCHEMA, tenant_field="team", payload_fields=fields)
    connector.ensure(schema)
    connector.ensure(corpus.SCHEMA)
    assert store.of_tenants == {"_m3.facts.team.values"}
    assert {*store.info("docs").payload_schema} == {
        "_m3.facts.team.values",
        "_m3.facts.lang.values",
    }
    assert connector.describe().schema == schema


def test_a_server_is_told_how_to_keep_a_collection(rest: QdrantConnector, store: Any) -> None:
    """Shards, copies, disk and quantisation are the server's; who opens it later searches by them."""
    rest._placing = Placing(shards=3, replicas=1, on_disk=True, quantization="int8")
    rest.ensure(corpus.SCHEMA)
    made = store.made.model_dump(exclude_none=True, mode="json")
    assert (made["shard_number"], made["replication_factor"]) == (3, 2)
    assert made["on_disk_payload"]
    assert made["sparse_vectors"]["sparse"]["index"]["on_disk"]
    assert made["vectors"]["multivector"]["on_disk"]
    assert made["vectors"]["dense"]["on_disk"]
    assert made["vectors"]["dense"]["quantization_config"] == {
        "scalar": {"type": "int8", "always_ram": True}
    }
    rest._placing = Placing()
    rest.describe()
    asked = []
    rest._engine.query = lambda requests: asked.extend(requests) or [[]]  # type: ignore[method-assign]
    rest.search([corpus.query(1, "dense")])
    assert asked[0]["params"] == {"quantization": {"rescore": True, "oversampling": 2.0}}
    for options, says in (
        ({"shards": 2}, "give its url"),
        ({"on_disk": True, "path": ":memory:"}, "give its url"),
        ({"url": "http://localhost:6333", "quantization": "turbo"}, "int8, binary"),
        ({"url": "http://localhost:6333", "shards": 0}, "shards"),
        ({"url": "http://localhost:6333", "replicas": -1}, "replicas"),
    ):
        with pytest.raises(ConfigError, match=says):
            connect(collection="docs", **options)


@pytest.mark.parametrize("name", ["rest", "by_grpc"])
def test_a_storage_that_the_server_lacks_is_told(
    name: str, store: Any, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a server refuses compressed storage the schema's is taken, and that is said."""
    connector: QdrantConnector = request.getfixturevalue(name)
    connector._storage = "turbo8"
    text = "data did not match any variant of untagged enum VectorsConfig"
    refusals = {
        "rest": lambda handler: handler.refuse(400, text),
        "by_grpc": lambda context: context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, "Cannot convert datatype: 5"
        ),
    }

    def then(answer: Any) -> None:
        (answer.obey if name == "rest" else lambda: None)()

    # The collection is looked up, the version asked, the creation refused.
    store.faults.extend([then, then, refusals[name]])
    with caplog.at_level("WARNING"):
        connector.ensure(corpus.SCHEMA)
    assert re.search(r"turbo8 was refused.*stored in float16", caplog.text)
    connector.upsert(batch := corpus.records(1, 3))
    check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)


def test_flush_waits_for_the_server_to_index(rest: QdrantConnector, store: Any) -> None:
    """Yellow is waited for, but not longer than a request may take; red is an error."""
    rest.ensure(corpus.SCHEMA)
    engine = rest._engine
    assert isinstance(engine, ServerEngine)
    store.status = models.CollectionStatus.YELLOW

    def turn_green(handler: Any) -> None:
        store.status = models.CollectionStatus.GREEN
        handler.obey()

    asked = len(store.asked)
    store.faults.extend([lambda handler: handler.obey(), turn_green])
    rest.flush()
    assert len(store.asked) == asked + 2
    store.status = models.CollectionStatus.YELLOW
    engine.timeout = 0
    rest.flush()
    store.status = models.CollectionStatus.RED
    with pytest.raises(PermanentError, match="cannot index"):
        rest.flush()


def test_an_unfinished_write_is_not_called_done(
    rest: QdrantConnector, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has only queued a write has it sent again."""
    rest.ensure(corpus.SCHEMA)

    def queued(handler: Any) -> None:
        reply = handler.reply

        def say(status: int, body: Any, headers: Any = None) -> None:
            body["result"]["status"] = "wait_timeout"
            reply(status, body, headers)

        handler.reply = say
        handler.obey()

    store.write_faults.append(queued)
    rest.upsert(corpus.records(1, 3))
    assert store.asked.count("PUT /collections/docs/points") == 2
    assert rest.count() == 3
    store.write_faults.extend([queued] * 4)
    with pytest.raises(TransientError, match="not finished"):
        rest.upsert(corpus.records(1, 3))


# -------------------------------------------------------------------------------------- records


@pytest.mark.slow
def test_requests_fit_a_server(rest: QdrantConnector, store: Any) -> None:
    """Long passages travel in several requests, each below the 32 MiB that REST takes."""
    schema = replace(corpus.SCHEMA, multivector_width=512)
    batch = corpus.records(6, 3, schema)
    multi = batch.embeddings.multivector
    assert multi is not None
    rng = np.random.default_rng(6)
    long = [rng.normal(size=(1100, 512)).astype(np.float16) for _ in range(3)]
    embeddings = replace(batch.embeddings, multivector=type(multi).from_rows(long))
    batch = replace(batch, embeddings=embeddings)
    rest.ensure(schema)
    rest.upsert(batch)
    assert store.asked.count("PUT /collections/docs/points") == 3
    check_records(batch, rest.fetch(batch.ids), schema)


# --------------------------------------------------------------------------------------- search


def test_many_queries_travel_together() -> None:
    """A hundred queries take two messages, one that cannot match takes none."""
    engine = Counting()
    with QdrantConnector("docs", engine) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(corpus.records(7, 30))
        connector.search([corpus.query(seed, "dense") for seed in range(100)])
        assert engine.asked == [64, 36]
        nothing = Query(sparse=SparseVectors.from_rows([{}])[0])
        assert connector.search([nothing]) == [[]]
        assert len(engine.asked) == 2


def test_ties_across_the_limit_are_ordered_by_id() -> None:
    """Five hundred equal records, ten wanted: the first ten ids, in a few messages."""
    engine = Counting()
    one = corpus.records(8, 1)
    same = one.take(np.zeros(500, np.intp))
    ids = [f"{number * 7919 % 500:03}" for number in range(500)]
    batch = RecordBatch(ids, same.payloads, same.embeddings)
    with QdrantConnector("docs", engine) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        memory = oracle(batch, corpus.SCHEMA)
        for query in (
            corpus.query(8, "dense"),
            corpus.query(8, "dense", "multivector", fusion=Weighted(), dense_depth=500),
        ):
            (hits,) = connector.search([query])
            check_hits(memory, query, hits, "ties")
            assert [hit.id for hit in hits] == sorted(ids)[:10]
        assert len(engine.asked) == 8


def test_a_rank_fusion_is_asked_once() -> None:
    """Its ties are pairs, one of each leg, and end among the few answers asked for beside."""
    engine = Counting()
    batch = corpus.records(10, 80)
    with QdrantConnector("docs", engine) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        memory = oracle(batch, corpus.SCHEMA)
        shallow = Query(fusion=Rrf(), dense_depth=8, sparse_depth=8)
        asked = [corpus.query(seed, "dense", "sparse") for seed in range(20)]
        queries = [replace(shallow, dense=one.dense, sparse=one.sparse) for one in asked]
        queries = [query for query in queries if decided(memory, query)]
        for query, hits in zip(queries, connector.search(queries), strict=True):
            check_hits(memory, query, hits, "ranks")
        tied = [hits[9].score == hits[10].score for hits in _one_more(memory, queries)]
        assert any(tied)
        assert engine.asked == [len(queries)]


def _one_more(memory: MemoryConnector, queries: Sequence[Query]) -> list[list[Hit]]:
    return memory.search([replace(query, limit=11) for query in queries])


def test_multivectors_are_read_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer holds more of them than is allowed, but for one record that is larger."""
    batch = corpus.records(11, 40)
    multi = batch.embeddings.multivector
    assert multi is not None
    with QdrantConnector("docs", Counting()) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        monkeypatch.setattr(points_module, "FLOATS_AT_ONCE", 100)
        read: list[list[str]] = []
        retrieve = connector._engine.retrieve

        def look(ids: Sequence[str], payload: Any, legs: Sequence[Leg]) -> list[Point]:
            if legs:
                read.append([*ids])
            return retrieve(ids, payload, legs)

        monkeypatch.setattr(connector._engine, "retrieve", look)
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
        fetched, read = read, []
        found = by_id(connector.scan(vectors=True))
        check_records(by_id([batch]), found, corpus.SCHEMA)
    floats = {point_id(id_): multi[row].size for row, id_ in enumerate(batch.ids)}
    for parts in (fetched, read):
        assert sorted(id_ for part in parts for id_ in part) == sorted(floats)
        assert all(len(part) == 1 or sum(floats[id_] for id_ in part) <= 100 for part in parts)
        assert len(parts) > 5


def test_a_query_beside_a_tied_one_is_asked_once() -> None:
    """Only the query whose limit cuts a tie is asked again."""
    engine = Counting()
    batch = corpus.records(9, 40)
    with QdrantConnector("docs", engine) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        tied = Query(dense=np.zeros(16, np.float32), limit=10)
        hits, plain = connector.search([tied, corpus.query(9, "dense")])
        assert [hit.id for hit in hits] == sorted(batch.ids)[:10]
        assert len(plain) == 10
        assert engine.asked == [2, 1, 1]


def test_exact_search_is_asked_of_the_engine(rest: QdrantConnector, store: Any) -> None:
    """With exact=True a dense search says so."""
    rest.ensure(corpus.SCHEMA)
    rest._exact = True
    bodies: list[bytes] = []

    def look(handler: Any) -> None:
        bodies.append(handler.body)
        handler.obey()

    store.faults.append(look)
    rest.search([corpus.query(1, "dense", filter=F("lang").exists())])
    assert b'"exact":true' in bodies[0]
