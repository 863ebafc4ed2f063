"""Connections that break between connector and server: nothing is lost, nothing is there twice."""

import pytest

from m3connect.errors import TransientError
from m3connect.memory import MemoryConnector
from m3connect.retry import RetryPolicy
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_records
from m3connect_qdrant.client import ServerEngine
from m3connect_qdrant.connector import QdrantConnector
from tests.servers.proxy import Answer, Cut, Delay, Drop, FaultProxy, HalfClose, Truncate

BROKEN = [Drop(), Cut(), Cut(50), Truncate(), Truncate(50), HalfClose(), Delay(0.1)]
ANSWERED = [Answer(429, {"Retry-After": "0"}), Answer(502), Answer(503)]
QUICK = RetryPolicy(attempts=6, initial=0.05, maximum=0.2)


@pytest.fixture
def proxied(rest_url):
    """A connector that speaks REST through a proxy, and the proxy."""
    port = int(rest_url.rsplit(":", 1)[1])
    with FaultProxy("127.0.0.1", port) as proxy:
        engine = ServerEngine(
            "docs", proxy.url, api_key=None, timeout=5, prefer_grpc=False, grpc_port=1
        )
        with QdrantConnector("docs", engine, policy=QUICK) as connector:
            yield connector, proxy


@pytest.mark.parametrize("fault", [*BROKEN, *ANSWERED], ids=lambda fault: repr(fault)[:16])
def test_a_spoiled_request_is_repeated(proxied, fault):
    """Whatever breaks, writes, reads and searches are done, and done once."""
    connector, proxy = proxied
    oracle = MemoryConnector(collection="oracle")
    batch = corpus.records(1, 30)
    for one in (connector, oracle):
        one.ensure(corpus.SCHEMA)
    oracle.upsert(batch)
    proxy.spoil(fault)
    connector.upsert(batch)
    proxy.spoil(fault)
    assert connector.count() == 30
    proxy.spoil(fault)
    query = corpus.query(1, "dense")
    found, wanted = connector.search([query])[0], oracle.search([query])[0]
    assert [hit.id for hit in found] == [hit.id for hit in wanted]
    proxy.spoil(fault)
    assert connector.delete(batch.ids[:5]) <= oracle.delete(batch.ids[:5])
    assert proxy.left == 0
    check_records(
        by_id(oracle.scan(vectors=True)), by_id(connector.scan(vectors=True)), corpus.SCHEMA
    )


def test_a_connection_that_stays_broken_is_given_up(proxied):
    """After the policy's attempts the failure arrives as a transient error."""
    connector, proxy = proxied
    connector.ensure(corpus.SCHEMA)
    proxy.spoil(*[Cut()] * QUICK.attempts)
    with pytest.raises(TransientError):
        connector.upsert(corpus.records(1, 3))
    assert proxy.left == 0
