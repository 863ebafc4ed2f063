"""A node killed in mid-ingest, and started again on its data."""

import pytest

from m3connect.testing import corpus
from m3connect_elasticsearch import connect
from tests.servers.crash import PATIENT, check_outlives

BATCHES = [corpus.records(seed, 25, prefix=f"{seed}-") for seed in range(40)]


@pytest.mark.live
def test_an_ingestion_outlives_a_killed_node(strained_node):
    """Nothing acknowledged is lost, and the re-run equals an undisturbed one."""
    with connect(collection="crash", url=strained_node.url, retry=PATIENT) as connector:
        check_outlives(connector, strained_node, BATCHES, corpus.SCHEMA)
