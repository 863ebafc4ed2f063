"""What every connector survives between it and its server; subclassed beside each of them."""

from __future__ import annotations

import pytest

from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import TransientError
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_records
from tests.servers.proxy import Answer, Cut, Delay, Drop, HalfClose, Truncate

QUICK = RetryPolicy(attempts=6, initial=0.05, maximum=0.2)
"""For the connectors under test."""
BROKEN = (Drop(), Cut(), Cut(30), Truncate(), Truncate(30), HalfClose(), Delay(0.3))
ANSWERED = (Answer(429, {"Retry-After": "0"}), Answer(502), Answer(503))


class FaultTests:
    """Connections that break or are answered by others: nothing is lost, nothing is there twice."""

    @pytest.fixture
    def proxied(self):
        """A connector without a collection, :data:`QUICK`, and the proxy through which it speaks."""
        raise NotImplementedError("define the fixture 'proxied' in the subclass")

    @pytest.mark.parametrize("fault", [*BROKEN, *ANSWERED], ids=lambda fault: repr(fault)[:16])
    def test_a_spoiled_request_is_repeated(self, proxied, fault):
        """Whatever breaks, writes, reads, searches and deletions are done, and done once."""
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
        # Repeated, it may find gone what went the first time.
        assert connector.delete(batch.ids[:5]) <= oracle.delete(batch.ids[:5])
        assert proxy.left == 0
        check_records(
            by_id(oracle.scan(vectors=True)), by_id(connector.scan(vectors=True)), corpus.SCHEMA
        )

    def test_a_connection_that_stays_broken_is_given_up(self, proxied):
        """After the policy's attempts the failure arrives as a transient error."""
        connector, proxy = proxied
        connector.ensure(corpus.SCHEMA)
        broken = 20 * QUICK.attempts  # gRPC may try a connection several times in one attempt
        proxy.spoil(*[Cut()] * broken)
        with pytest.raises(TransientError):
            connector.upsert(corpus.records(1, 3))
        assert 0 < proxy.left < broken
        proxy.faults.clear()
