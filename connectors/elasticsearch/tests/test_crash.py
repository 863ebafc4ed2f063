"""A node killed in mid-ingest, and started again on its data."""

import threading

import pytest

from m3connect.retry import RetryPolicy
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_records
from m3connect_elasticsearch import connect

pytestmark = pytest.mark.live

BATCHES = [corpus.records(seed, 25, prefix=f"{seed}-") for seed in range(40)]
PATIENT = RetryPolicy(attempts=500, initial=0.05, maximum=0.25)


def test_an_ingestion_outlives_a_killed_node(strained_node):
    """SIGKILL between writes: nothing acknowledged is lost, the rest follows after the restart.

    Every batch is written once, so a batch that was acknowledged and lost would be missing.
    """
    with connect(collection="crash", url=strained_node.url, retry=PATIENT) as connector:
        connector.ensure(corpus.SCHEMA)
        crash = threading.Thread(target=lambda: (strained_node.kill(), strained_node.start()))
        for number, batch in enumerate(BATCHES):
            if number == 5:
                crash.start()
            connector.upsert(batch)
        crash.join()
        wanted = by_id(BATCHES)
        assert connector.count() == len(wanted)
        check_records(wanted, by_id(connector.scan(vectors=True)), corpus.SCHEMA)
        for batch in BATCHES:
            connector.upsert(batch)
        check_records(wanted, by_id(connector.scan(vectors=True)), corpus.SCHEMA)
