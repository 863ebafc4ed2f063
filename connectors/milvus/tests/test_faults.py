"""Connections that break, and a process that dies: nothing is lost, nothing is there twice."""

import os
import signal
import subprocess
import sys

import grpc
import pytest

from connectors.milvus.tests.masquerade import masquerade
from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import TransientError
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_records
from m3connect_milvus import connect
from tests.servers.faults import QUICK, FaultTests
from tests.servers.proxy import Answer, FaultProxy


class GrpcProxy(FaultProxy):
    """HTTP answers as gRPC reports them: 429, 502 and 503 of a proxy are all UNAVAILABLE."""

    def __init__(self, host, port, refusals):
        super().__init__(host, port)
        self.refusals = refusals

    def spoil(self, *faults):
        for fault in faults:
            if isinstance(fault, Answer):
                self.refusals.append(grpc.StatusCode.UNAVAILABLE)
            else:
                super().spoil(fault)

    @property
    def left(self):
        return super().left + len(self.refusals)


class TestServerForm(FaultTests):
    @pytest.fixture
    def proxied(self, tmp_path):
        with masquerade(tmp_path) as (url, sent):
            host, port = url.removeprefix("http://").split(":")
            with (
                GrpcProxy(host, int(port), sent.refusals) as proxy,
                connect(
                    collection="test", url=proxy.url, struct_array=False, timeout=5, retry=QUICK
                ) as connector,
            ):
                yield connector, proxy


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


@pytest.mark.slow
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
