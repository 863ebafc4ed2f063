"""A server killed in mid-ingest, and started again on its data."""

import pytest

from m3connect.contract import CollectionSchema
from m3connect.testing import corpus
from m3connect_milvus import connect
from tests.servers.crash import PATIENT, check_outlives
from tests.servers.milvus.server import TOKEN

SCHEMA = CollectionSchema(16, sparse=False, multivector_width=8)
BATCHES = [corpus.records(seed, 25, SCHEMA, prefix=f"{seed}-") for seed in range(12)]


@pytest.mark.live
def test_an_ingestion_outlives_a_killed_server(live_server):
    """Nothing acknowledged is lost, and the re-run equals an undisturbed one."""
    with connect(
        collection="crash", url=live_server.url, api_key=TOKEN, timeout=5, retry=PATIENT
    ) as connector:
        check_outlives(connector, live_server, BATCHES, SCHEMA)
