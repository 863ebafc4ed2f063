"""A server killed in mid-ingest, and started again on its data."""

import threading

import pytest

from m3connect.contract import CollectionSchema
from m3connect.retry import RetryPolicy
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_records
from m3connect_milvus import connect
from tests.servers.milvus.server import TOKEN

pytestmark = pytest.mark.live

SCHEMA = CollectionSchema(16, sparse=False, multivector_width=8)
BATCHES = [corpus.records(seed, 25, SCHEMA, prefix=f"{seed}-") for seed in range(12)]
PATIENT = RetryPolicy(attempts=500, initial=0.05, maximum=0.25)


def test_an_ingestion_outlives_a_killed_server(live_server):
    """SIGKILL between writes: nothing acknowledged is lost, the rest follows after the restart.

    Every batch is written once, so a batch that was acknowledged and lost would be missing.
    """
    with connect(
        collection="crash", url=live_server.url, api_key=TOKEN, timeout=5, retry=PATIENT
    ) as connector:
        connector.ensure(SCHEMA)
        crash = threading.Thread(target=lambda: (live_server.kill(), live_server.start()))
        for number, batch in enumerate(BATCHES):
            if number == 5:
                crash.start()
            connector.upsert(batch)
        crash.join()
        wanted = by_id(BATCHES)
        assert connector.count() == len(wanted)
        check_records(wanted, by_id(connector.scan(vectors=True)), SCHEMA)
        for batch in BATCHES:
            connector.upsert(batch)
        assert connector.count() == len(wanted)
        check_records(wanted, by_id(connector.scan(vectors=True)), SCHEMA)
