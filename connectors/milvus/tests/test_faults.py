"""Connections that break, and a process that dies: nothing is lost, nothing is there twice."""

import os
import signal
import subprocess
import sys

import pytest

from connectors.milvus.tests.masquerade import masquerade
from m3connect.errors import TransientError
from m3connect.memory import MemoryConnector
from m3connect.retry import RetryPolicy
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_records
from m3connect_milvus import connect
from tests.servers.proxy import Cut, Delay, Drop, FaultProxy, HalfClose, Truncate

QUICK = RetryPolicy(attempts=5, initial=0.05, maximum=0.2)
FAULTS = [Drop(), Cut(), Cut(30), Truncate(30), HalfClose(), Delay(0.3)]


@pytest.fixture
def proxied(tmp_path):
    """A connector, and the proxy through which it speaks."""
    with masquerade(tmp_path) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with (
            FaultProxy(host, int(port)) as proxy,
            connect(
                collection="test", url=proxy.url, struct_array=False, timeout=5, retry=QUICK
            ) as connector,
        ):
            yield connector, proxy


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: repr(fault)[:12])
def test_a_spoiled_request_is_repeated(proxied, fault):
    """Whatever breaks, writes, reads and deletions are done, and done once."""
    connector, proxy = proxied
    memory = MemoryConnector(collection="oracle")
    batch = corpus.records(1, 30)
    for one in (connector, memory):
        one.ensure(corpus.SCHEMA)
    proxy.spoil(fault)
    connector.upsert(batch)
    memory.upsert(batch)
    proxy.spoil(fault)
    assert connector.count() == 30
    proxy.spoil(fault)
    query = corpus.query(1, "dense")
    found, wanted = connector.search([query])[0], memory.search([query])[0]
    assert [hit.id for hit in found] == [hit.id for hit in wanted]
    proxy.spoil(fault)
    assert connector.delete(batch.ids[:5]) <= memory.delete(batch.ids[:5])
    assert proxy.left == 0
    check_records(
        by_id(memory.scan(vectors=True)), by_id(connector.scan(vectors=True)), corpus.SCHEMA
    )


def test_a_server_that_stays_away_is_given_up(tmp_path):
    """After the last attempt the error is transient and names the operation."""
    with masquerade(tmp_path) as (url, _):
        connector = connect(collection="test", url=url, timeout=1, retry=RetryPolicy(2, 0.05, 0.1))
        connector.ensure(corpus.SCHEMA)
    with connector, pytest.raises(TransientError, match="milvus upsert: Fail connecting"):
        connector.upsert(corpus.records(2, 1))


WRITE = """
import sys
from m3connect.testing import corpus
from m3connect_milvus import connect
connector = connect(collection="test", path=sys.argv[1])
connector.ensure(corpus.SCHEMA)
for seed in range(1000):
    connector.upsert(corpus.records(seed, 25, prefix=f"{seed}-"))
    print(seed, flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path):
    """SIGKILL in the midst of writing: every acknowledged batch is there, whole, at once."""
    path = tmp_path / "milvus.db"
    command = [sys.executable, "-c", WRITE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        acknowledged = [int(line) for line, _ in zip(writer.stdout, range(12), strict=False)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout]
    wanted = by_id(corpus.records(seed, 25, prefix=f"{seed}-") for seed in acknowledged)
    with connect(collection="test", path=path) as connector:
        check_records(wanted, connector.fetch(wanted.ids), corpus.SCHEMA)
        assert len(wanted) <= connector.count() <= len(wanted) + 25
        connector.upsert(wanted)
        assert connector.count() <= len(wanted) + 25
