"""Opening, sharing and closing; options; what a collection is made of."""

import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.client.cache import GlobalCache
from pymilvus.exceptions import MilvusException

from connectors.milvus.tests.masquerade import masquerade
from m3connect.connecting.registry import connect as connect_by_name
from m3connect.connecting.retry import RetryPolicy
from m3connect.contract import CollectionSchema
from m3connect.errors import (
    CollectionNotFound,
    ConfigError,
    InputError,
    PermanentError,
    SchemaMismatch,
    TransientError,
    Unsupported,
)
from m3connect.filters import F
from m3connect.testing import corpus
from m3connect.types import Query, RecordBatch
from m3connect_milvus import connect
from m3connect_milvus.engine import lite
from m3connect_milvus.engine.database import Database, _silence_driver
from m3connect_milvus.storing.store import Store


def test_it_is_found_by_name(tmp_path):
    """The registry opens it as ``milvus``."""
    with connect_by_name("milvus", collection="test", path=tmp_path / "x.db") as connector:
        assert connector.name == "milvus"


def test_making_a_connector_does_nothing(tmp_path, monkeypatch):
    """No file, no folder and no connection before the first use."""
    monkeypatch.chdir(tmp_path)
    connect(collection="test")
    connect(collection="test", url="http://nowhere.invalid:19530")
    assert connect(collection="test").capabilities.engine.startswith("milvus-lite 3.")
    assert list(tmp_path.iterdir()) == []


def test_reading_makes_no_database(tmp_path, monkeypatch):
    """A collection that is not there is reported by name, and no folder appears."""
    monkeypatch.chdir(tmp_path)
    with connect(collection="handbook") as connector:
        for verb in (connector.count, connector.describe, lambda: connector.delete(["x"])):
            with pytest.raises(CollectionNotFound, match="'handbook'"):
                verb()
        assert list(tmp_path.iterdir()) == []
        connector.ensure(corpus.SCHEMA)
        assert (tmp_path / ".m3connect" / "milvus" / "handbook.db").is_dir()


def test_collections_are_listed_beside_each_other_or_in_one_file(tmp_path, monkeypatch):
    """Without a path each has a folder of its own, which goes with it; a named one may hold several."""
    monkeypatch.chdir(tmp_path)
    with connect(collection="handbook") as handbook, connect(collection="faq") as faq:
        assert handbook.collections() == []
        handbook.ensure(corpus.SCHEMA)
        faq.ensure(corpus.SCHEMA)
        assert handbook.collections() == faq.collections() == ["faq", "handbook"]
        assert handbook.size() > 0
        with pytest.raises(CollectionNotFound, match="'hand', but 'handbook', 'faq'"):
            connect(collection="hand").count()
        handbook.drop()
        assert faq.collections() == ["faq"]
        assert not (tmp_path / ".m3connect" / "milvus" / "handbook.db").exists()
        with faq.beside("faq") as same:  # whose folder stays while others have it open
            same.drop()
        assert faq.collections() == []
        with pytest.raises(CollectionNotFound, match="ingest makes it"):
            faq.describe()
    with connect(collection="a", path="x.db") as a, connect(collection="b", path="x.db") as b:
        a.ensure(corpus.SCHEMA)
        b.ensure(corpus.SCHEMA)
        assert a.collections() == ["a", "b"]
        assert a.size() is None
        with (
            connect(collection="b", path="x.db", tenant_field="team") as strict,
            pytest.raises(SchemaMismatch, match="wanted 'team'"),
        ):
            strict.drop()
        assert a.collections() == ["a", "b"]
        b.drop()
        assert a.collections() == ["a"]
        assert a.count() == 0


OPEN = """
import sys
from m3connect_milvus import connect
with connect(collection="test", path=sys.argv[1]) as connector:
    print(connector.count())
"""


def elsewhere(path):
    """What another process says that counts the records."""
    command = [sys.executable, "-c", OPEN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_folder_is_open_in_one_process_and_free_after_close(tmp_path):
    """Another process is told that it is open; after close it reads what was written."""
    path = tmp_path / "any name"
    with connect(collection="test", path=path) as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(corpus.records(1, 7))
        assert "is in use by process" in elsewhere(path)
    assert elsewhere(path) == "7\n"


def test_connectors_of_one_process_share_a_folder(tmp_path):
    """Two collections live in one folder; closing one connector leaves the other working."""
    path = tmp_path / "milvus.db"
    with connect(collection="one", path=path) as one, connect(collection="two", path=path) as two:
        for connector, n in ((one, 3), (two, 4)):
            connector.ensure(corpus.SCHEMA)
            connector.upsert(corpus.records(2, n))
        one.close()
        assert two.count() == 4
    assert path.resolve() not in lite._running


def test_a_folder_that_cannot_be_opened_is_named(tmp_path):
    """A file in the place of the folder is an error that names it."""
    path = tmp_path / "milvus.db"
    path.write_text("not a database")
    with (
        connect(collection="test", path=path) as connector,
        pytest.raises(PermanentError) as caught,
    ):
        connector.count()
    assert str(path) in str(caught.value)


def test_an_unreachable_server_is_transient():
    """A server that is not there may come; the address is in the message."""
    once = RetryPolicy(attempts=1)
    with (
        connect(collection="test", url="http://127.0.0.1:1", timeout=2, retry=once) as connector,
        pytest.raises(TransientError, match=r"127\.0\.0\.1:1.*is the server up"),
    ):
        connector.count()


def test_every_request_has_a_time_limit(tmp_path, monkeypatch):
    """The time-out goes with each call of the driver."""
    limits = []
    original = Database.do

    def do(database, operation, request):
        def watched(client):
            code = request.__closure__ or ()
            limits.extend(cell.cell_contents.timeout for cell in code if is_database(cell))
            return request(client)

        return original(database, operation, watched)

    def is_database(cell):
        return isinstance(cell.cell_contents, Database)

    monkeypatch.setattr(Database, "do", do)
    with connect(collection="test", path=tmp_path / "x.db", timeout=7.5) as connector:
        connector.ensure(corpus.SCHEMA)
    assert set(limits) == {7.5}


@pytest.mark.parametrize(
    "name", ["", "my-docs", "1st", "größe", "a b", "a.b", "a" * 249, "a/b", 'a"']
)
def test_names_that_milvus_refuses_are_refused_at_once(name):
    """Names are checked before anything is sent, since Lite takes what servers refuse."""
    with pytest.raises(ConfigError, match="letters, digits and underscores"):
        connect(collection=name)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"consistency_level": "strong"}, "consistency_level is one of Strong, "),
        ({"dense_index": "IVF"}, "dense_index is one of FLAT, HNSW, AUTOINDEX"),
        ({"dense_dtype": "int8"}, "dense_dtype is one of"),
        ({"url": "http://x", "path": "y"}, "not both"),
        ({"url": "http://x", "token": "a:b", "api_key": "a:b"}, "give one"),
        ({"url": "https://x", "client_certificate": "c.pem"}, "client_key"),
        ({"url": "https://x", "client_certificate": "c", "client_key": "k"}, "ca_certificate"),
    ],
)
def test_bad_options_are_named(options, says):
    """An option that makes no sense is refused when the connector is made."""
    with pytest.raises(ConfigError, match=says):
        connect(collection="test", **options)


def test_lite_is_not_pinged(lite, server):
    """An idle connection to Lite stays, for it ends those that ping; servers are pinged."""
    pinged = []
    for connector in (lite, server[0]):
        connector.ensure(corpus.SCHEMA)
        options = connector._database._client._get_connection()._grpc_options
        pinged.append(options.get("grpc.keepalive_time_ms", 10_000) < 10**9)
    assert pinged == [False, True]


def test_tls_options_reach_the_driver(tmp_path):
    """The driver gets PEM files under its own names, one set with and one without a client's."""
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("no PEM")
    seen = connect(
        collection="test",
        url="https://x",
        ca_certificate=tmp_path / "ca",
        server_name="db",
    )._database.tls
    assert seen == {"server_pem_path": str(tmp_path / "ca"), "server_name": "db"}
    mutual = connect(
        collection="test",
        url="https://x",
        ca_certificate=tmp_path / "ca",
        client_certificate="cert",
        client_key="key",
    )._database.tls
    assert mutual == {
        "ca_pem_path": str(tmp_path / "ca"),
        "client_pem_path": "cert",
        "client_key_path": "key",
    }


@pytest.mark.parametrize(
    ("version", "schema", "options", "says"),
    [
        ("v2.3.5-lite", corpus.SCHEMA, {}, "2.3.5 has no sparse vectors"),
        ("v2.2.9", CollectionSchema(4, False, None), {}, "2.2.9 has no arrays"),
        ("v2.6.4", CollectionSchema(1, False, None), {}, "2 to 32,768 wide, not 1"),
        ("v2.6.4", CollectionSchema(40_000, False, None), {}, "not 40000"),
        ("v2.6.3", corpus.SCHEMA, {"struct_array": True}, "2.6.4 does"),
    ],
)
def test_what_a_version_lacks_is_said_before_anything_is_made(
    tmp_path, version, schema, options, says
):
    """A collection that the server cannot hold is refused, with the version that can."""
    with (
        masquerade(tmp_path, version) as (url, sent),
        connect(collection="test", url=url, **options) as connector,
    ):
        with pytest.raises(Unsupported, match=says):
            connector.ensure(schema)
        assert sent.schemas == {}


def test_old_servers_store_dense_and_token_vectors(tmp_path):
    """Milvus 2.3 has one vector a record; the capabilities say what that leaves."""
    with (
        masquerade(tmp_path, "v2.3.5-lite") as (url, sent),
        connect(collection="test", url=url) as connector,
    ):
        assert connector.capabilities.stores == {"dense", "multivector"}
        connector.ensure(CollectionSchema(4, False, 8))
        assert {one.field_name for one in sent.indexes} == {"dense", "unused"}
        assert connector.capabilities.engine == "milvus 2.3.5"


def test_facts_are_indexed_on_servers(server):
    """Filters are fast on a server: both arrays of facts have an inverted index."""
    connector, sent = server
    connector.ensure(corpus.SCHEMA)
    indexed = {
        one.field_name: {pair.key: pair.value for pair in one.extra_params} for one in sent.indexes
    }
    assert {name: config["index_type"] for name, config in indexed.items()} == {
        "facts": "INVERTED",
        "ordered": "INVERTED",
        "dense": "HNSW",
        "sparse": "SPARSE_INVERTED_INDEX",
        "multivector[vector]": "HNSW",
        "unused": "FLAT",
    }


def test_a_collection_is_partitioned_by_a_field(tmp_path):
    """Records of a tenant lie in its partition; searches by tenant, and moves, work."""
    path = tmp_path / "milvus.db"
    batch = corpus.records(3, 20)
    tenants = [{"tenant": f"tenant {at % 3}", "at": at} for at in range(20)]
    with connect(collection="test", path=path, partition_key="tenant") as connector:
        connector.ensure(corpus.SCHEMA)
        connector.upsert(RecordBatch(batch.ids, tenants, batch.embeddings))
        assert connector.count(F("tenant") == "tenant 1") == 7
        moved = RecordBatch(batch.ids[:1], [{"tenant": "tenant 1"}], batch.embeddings[:1])
        connector.upsert(moved)
        assert connector.count() == 20
        assert connector.count(F("tenant") == "tenant 1") == 8
        with pytest.raises(InputError, match="partition key"):
            connector.upsert(corpus.records(4, 1))
    with connect(collection="test", path=path) as connector:
        connector.upsert(RecordBatch(["new"], [{"tenant": "x"}], batch.embeddings[:1]))
        assert connector.delete(F("tenant") == "tenant 1") == 8
    with (
        connect(collection="test", path=path, partition_key="team") as connector,
        pytest.raises(SchemaMismatch, match="partition_key: collection 'tenant', wanted 'team'"),
    ):
        connector.count()
    with connect(collection="test", path=path, tenant_field="tenant") as connector:
        for ask in (connector.count, lambda: connector.ensure(corpus.SCHEMA)):
            with pytest.raises(SchemaMismatch, match="tenant_field: collection None, wanted 'tena"):
                ask()


def test_who_describes_a_collection_that_was_made_anew_keeps_to_what_it_is_now(tmp_path):
    """Else searches would find the records of all its tenants."""
    path, batch = tmp_path / "milvus.db", corpus.records(3, 2)
    query = Query(dense=batch.embeddings.dense[0])
    with connect(collection="test", path=path) as connector:
        connector.ensure(corpus.SCHEMA)
        with connector.beside("test") as same:
            same.drop()
        with connect(collection="test", path=path, tenant_field="team") as other:
            other.ensure(corpus.SCHEMA)
            teams = [{"team": "a"}, {"team": "b"}]
            other.upsert(RecordBatch(batch.ids, teams, batch.embeddings))
        assert connector.describe().schema.tenant_field == "team"
        with pytest.raises(InputError, match="tenants apart by 'team'"):
            connector.search([query])
        (hits,) = connector.search([replace(query, filter=F("team") == "b")])
        assert [hit.payload for hit in hits] == [{"team": "b"}]


def test_what_an_open_collection_says_of_itself_is_one_request(lite, monkeypatch):
    """Every search asks for it; only where it does not answer is it looked for, and missed by name."""
    lite.ensure(corpus.SCHEMA)
    first = lite.describe()
    with monkeypatch.context() as patched:
        for method in ("has_collection", "load_collection"):
            patched.delattr(MilvusClient, method)
        assert lite.describe() == first
    with lite.beside(lite.collection) as same:
        same.drop()
    with pytest.raises(CollectionNotFound, match="'test'"):
        lite.describe()


def test_an_index_type_is_kept_with_the_collection(tmp_path):
    """Whether searches are exact is what the collection was made for, not the later option."""
    path = tmp_path / "milvus.db"
    with connect(collection="test", path=path, dense_index="HNSW") as connector:
        connector.ensure(corpus.SCHEMA)
        assert not connector.capabilities.exact
    with connect(collection="test", path=path) as connector:
        connector.describe()
        assert not connector.capabilities.exact


def test_threads_write_to_lite_one_at_a_time(lite, monkeypatch):
    """Milvus Lite takes one writer at a time; all that threads write at once is there."""
    lite.ensure(corpus.SCHEMA)
    writing, overlaps = threading.Lock(), []
    original = Store.write

    def write(store, made):
        overlaps.append(not writing.acquire(blocking=False))
        original(store, made)
        writing.release()

    monkeypatch.setattr(Store, "write", write)
    batches = [corpus.records(seed, 40, prefix=f"{seed}-") for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lite.upsert, batches))
    assert overlaps == [False] * 8
    assert lite.count() == 320


def test_a_request_holds_a_key_once(server):
    """Servers refuse, or double, a key that is twice in a request: the last record is sent."""
    connector, sent = server
    connector.ensure(corpus.SCHEMA)
    batch = corpus.records(6, 3)
    twice = RecordBatch(["a", "b", "a"], [{"at": 0}, {"at": 1}, {"at": 2}], batch.embeddings)
    connector.upsert(twice)
    (request,) = [one for one in sent.upserts if one.collection_name == "test"]
    assert request.num_rows == 2
    assert list(connector.fetch(["a", "b"]).payloads) == [{"at": 2}, {"at": 1}]


# ----------------------------------------------------------------- why the connector does not trust


@pytest.fixture
def driver(tmp_path):
    """The driver by itself on Milvus Lite."""
    client = MilvusClient(lite.acquire(tmp_path / "driver.db").url, dedicated=True)
    yield client
    client.close()
    lite.release(tmp_path / "driver.db")


def fields(**vectors):
    """A schema of the driver's with a key and these vectors."""
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=10)
    for name, options in vectors.items():
        schema.add_field(name, **options)
    return schema


DENSE = {"datatype": DataType.FLOAT_VECTOR, "dim": 4}


def test_lite_drops_struct_arrays_without_a_word(driver, tmp_path):
    """So multi-vectors are kept in parts there, and a struct array is refused when asked for."""
    token = MilvusClient.create_struct_field_schema()
    token.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    struct = {
        "datatype": DataType.ARRAY,
        "element_type": DataType.STRUCT,
        "struct_schema": token,
        "max_capacity": 10,
    }
    driver.create_collection("trap", schema=fields(dense=DENSE, tokens=struct))
    assert [one["name"] for one in driver.describe_collection("trap")["fields"]] == ["id", "dense"]
    with (
        connect(collection="test", path=tmp_path / "x.db", struct_array=True) as connector,
        pytest.raises(Unsupported, match="does not search multi-vectors"),
    ):
        connector.ensure(corpus.SCHEMA)


def test_lite_accepts_nan(driver, tmp_path):
    """So vectors are checked before they are sent."""
    driver.create_collection("trap", schema=fields(dense=DENSE))
    driver.insert("trap", [{"id": "x", "dense": [float("nan")] * 4}])
    batch = corpus.records(5, 1)
    dense = np.full((1, 16), np.nan, np.float32)
    with connect(collection="test", path=tmp_path / "x.db") as connector:
        connector.ensure(corpus.SCHEMA)
        with pytest.raises(InputError, match="NaN"):
            connector.upsert(replace(batch, embeddings=replace(batch.embeddings, dense=dense)))


def test_lite_refuses_empty_sparse_vectors(driver):
    """So an empty one is stored with a term of its own."""
    driver.create_collection(
        "trap", schema=fields(sparse={"datatype": DataType.SPARSE_FLOAT_VECTOR})
    )
    with pytest.raises(MilvusException, match="at least one nonzero"):
        driver.insert("trap", [{"id": "x", "sparse": {}}])


def test_lite_has_no_float16(tmp_path):
    """Asked for float16 vectors, the connector says that a server is needed."""
    with (
        connect(collection="test", path=tmp_path / "x.db", dense_dtype="float16") as connector,
        pytest.raises(Unsupported, match=r"from 2\.4 has"),
    ):
        connector.ensure(corpus.SCHEMA)


def test_a_remembered_schema_does_not_outlive_its_connection(tmp_path):
    """The driver caches schemas by address; what another connection left there is not believed."""
    with masquerade(tmp_path) as (url, _):
        with connect(collection="test", url=url) as one:
            one.ensure(corpus.SCHEMA)
            one.upsert(corpus.records(1, 3))
        for schema in GlobalCache.schema._cache.values():  # as a server on the same port had it
            for field in schema["fields"]:
                if field["name"] == "facts":
                    field.update(type=DataType.VARCHAR, params={"max_length": 10})
        with connect(collection="test", url=url) as two:
            two.upsert(corpus.records(2, 3))
            assert two.count() == 3


def test_a_log_level_of_the_application_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is made quiet where it has its own level."""
    logger = logging.getLogger("pymilvus")
    for level, after in ((logging.DEBUG, logging.DEBUG), (logging.WARNING, logging.CRITICAL)):
        monkeypatch.setattr(logger, "level", level)
        _silence_driver()
        assert logger.level == after
