"""Every engine makes the collection that one process makes. Run in an environment of its own."""

import os
import pickle
import random
import signal
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect import ingest, transfer
from m3connect.errors import FingerprintMismatch, PermanentError
from m3connect.integrations.arrow import Sink
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from tests.outside import engines, shared

ENCODER = HashEncoder()
ROWS = [
    {
        "id": f"d{at}",
        "text": " ".join(f"w{at}.{n} x y." for n in range(at % 5 + 1)),
        "n": at,
        "title": f"t{at % 3}",
    }
    for at in range(60)
]
TABLE = pa.Table.from_pylist(ROWS)
OPTIONS: dict[str, Any] = {"chunk_tokens": 6, "context": ["title"]}
# In one process what is killed is the whole run, and the next one completes it.
WAYS = ("ray", "ray_stages", "spark", "spark_stages", "spark_stream", "daft", "dlt")
IN_ONE_PROCESS = {"daft", "dlt"}
KILLED = 2


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory):
    """The name of the shared collection, for this process and all that it starts."""
    folder = tmp_path_factory.mktemp("installed")
    shared.install(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


@pytest.fixture(scope="module")
def ray(installed):
    """A cluster on this machine."""
    with engines.running("ray"):
        yield


@pytest.fixture(scope="module")
def spark(installed):
    """A session on this machine."""
    with engines.running("spark"):
        yield


@pytest.fixture
def engine(request):
    """A function of ``engines``, with its engine running."""
    name = request.param
    if name not in IN_ONE_PROCESS:
        request.getfixturevalue(name.partition("_")[0])
    return getattr(engines, name)


@pytest.fixture
def server():
    """An empty collection that all workers reach."""
    with shared.serve() as server:
        yield server


@pytest.fixture(scope="session")
def expected():
    """The collection that ``ingest`` makes in one process."""
    connector = MemoryConnector(collection="docs")
    ingest(TABLE, ENCODER, connector, **OPTIONS)
    return connector


def sink(server, encoder=ENCODER):
    return Sink("shared", "docs", encoder=encoder, url=server.url, **OPTIONS)


def the_same(server, expected):
    assert transfer.verify(expected, server.collection).equal
    assert server.collection.describe().schema == expected.describe().schema
    assert ingest(TABLE, ENCODER, server.collection, **OPTIONS).unchanged == len(ROWS)


def completed(engine, into, folder):
    """The report of a run that is not killed, after as many as are."""
    if engine.__name__ not in IN_ONE_PROCESS:
        return engine(TABLE, into, folder)
    (folder / "sink").write_bytes(pickle.dumps(into))
    pq.write_table(TABLE, folder / "table.parquet")
    command = [sys.executable, "-W", "ignore", engines.__file__, engine.__name__, folder]
    for _ in range(KILLED):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == -signal.SIGKILL, run.stderr[-2000:]
    return engine(TABLE, into, folder)


@pytest.mark.parametrize(
    ("engine", "seed"), [(way, at) for at, way in enumerate(WAYS)], indirect=["engine"]
)
def test_the_collection_is_that_of_one_process(engine, seed, server, expected, tmp_path):
    """Ids, payloads, marks, vectors; though workers die after a write, before they know of it."""
    server.fail_at = set(random.Random(seed).sample(range(1, 8), KILLED))
    report = completed(engine, sink(server), tmp_path)
    assert server.failed == KILLED
    assert report.read == report.written + report.unchanged == len(ROWS)
    the_same(server, expected)


@pytest.mark.parametrize("engine", ["ray", "spark"], indirect=True)
def test_a_block_that_kills_every_worker_ends_the_run(engine, server, tmp_path):
    """Not at the first attempt, and not never; the error says what to do."""
    server.poison = "d31"
    with pytest.raises(
        PermanentError, match=r"shared write: a worker died .+ at the same documents"
    ):
        engine(TABLE, sink(server), tmp_path)
    assert server.failed == {"ray": 3, "spark": 4}[engine.__name__]


@pytest.mark.parametrize("engine", ["ray", "spark"], indirect=True)
def test_a_collection_of_another_model_is_told_before_anything_is_read(
    engine, server, expected, tmp_path
):
    """As the error that one process raises."""
    ingest(TABLE, HashEncoder(seed=1), server.collection, **OPTIONS)
    server.writes = 0
    with pytest.raises(FingerprintMismatch, match="'hash-1'"):
        engine(TABLE, sink(server), tmp_path)
    assert server.writes == 0


def test_nothing_is_written_twice(ray, server, tmp_path):
    """All are counted as written, then as unchanged."""
    assert engines.ray(TABLE, sink(server), tmp_path).written == len(ROWS)
    assert engines.ray(TABLE, sink(server), tmp_path).unchanged == len(ROWS)
