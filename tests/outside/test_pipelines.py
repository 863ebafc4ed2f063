"""Every engine makes the collection that one process makes. Run in an environment of its own."""

import json
import os
import pickle
import random
import runpy
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect import M3Encoder, cli, ingest, transfer
from m3connect.errors import FingerprintMismatch, PermanentError
from m3connect.integrations.arrow import Sink
from m3connect.testing.fakes import HashEncoder
from tests.integrations.documents import OPTIONS, documents
from tests.outside import engines, shared

pytest.importorskip("ray")
pytest.importorskip("pyspark")
from pyspark.sql import SparkSession

from m3connect.integrations import ray_files
from m3connect.integrations.spark import encode, sink_of

ENCODER = HashEncoder()
ROWS = documents(60)
TABLE = pa.Table.from_pylist(ROWS)
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
    """The collection that ``ingest`` makes of a server's, in one process."""
    with shared.serve() as server:
        ingest(TABLE, ENCODER, shared.Shared(collection="docs", url=server.url), **OPTIONS)
        yield server.collection


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


def test_options_in_sql_are_all_text():
    """What is a text stands as it is; a list may have none in it."""
    given = {"source_name": "2024", "context": "none", "legs": "dense, sparse", "take_over": "true"}
    made = sink_of({"target": "qdrant", "collection": "docs", "api_key": "007", **given})
    assert (made.source_name, made.context, made.legs) == ("2024", [], ["dense", "sparse"])
    assert (made.take_over, made.options) == (True, {"api_key": "007"})


def test_a_stage_of_spark_has_the_columns_of_its_model(spark, server):
    """Of a model that makes fewer representations there are fewer."""
    dense = HashEncoder()
    made_by = replace(dense.info.fingerprint, legs=("dense",))
    dense.info = replace(dense.info, fingerprint=made_by)
    frame = SparkSession.active().createDataFrame(TABLE.slice(0, 5))
    passages = encode(frame, sink(server, dense))
    assert passages.columns == ["id", "text", "payload", "dense", "n_tokens", "truncated"]
    assert passages.count() == 15


def test_a_document_may_be_in_two_partitions_of_daft(server, expected):
    """Of one call, that is: its passages are put together, whatever is acknowledged in between."""
    from daft.recordbatch import MicroPartition

    from m3connect.integrations.daft import M3DataSink

    passages = sink(server).encode(TABLE)
    parts = [passages.slice(start, 7) for start in range(0, len(passages), 7)]
    results = M3DataSink(sink(server)).write(map(MicroPartition.from_arrow, parts))
    assert sum(each.result.written for each in results) == len(ROWS)
    the_same(server, expected)


@pytest.fixture
def corpus(tmp_path):
    """A folder of pages and of records, some of them broken."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for at in range(6):
        (folder / f"{at}.md").write_text(f"# Page {at}\n\nIt says {at}.\n")
    (folder / "none.txt").write_text(" ")
    (folder / "x.png").write_text("")
    (folder / "torn.parquet").write_bytes(b"no")
    with (folder / "0.md").open("a") as page:
        page.write("![dot](data:image/png;base64," + "iVBORw0KGgo" * 9 + ")")
    for name in ("a", "b"):
        rows = [{"id": f"{name}{at}", "text": f"Record {at} of {name}"} for at in range(8)]
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n{no")
    return folder


@pytest.fixture
def command(capsys, monkeypatch, tmp_path, corpus):
    """``m3connect ingest`` of that folder: exit code, report, what is said to people."""
    monkeypatch.chdir(tmp_path)

    def run(server, *arguments):
        lost = tmp_path / "lost.jsonl"
        target = ["--target", "shared", "--url", server.url, "--collection", "docs", "--json"]
        with pytest.raises(SystemExit) as exit_:
            cli.main(["ingest", str(corpus), *target, "--report", str(lost), *arguments])
        out, err = capsys.readouterr()
        # Where Ray was running before, it may speak on stdout once the command is over.
        said = [line for line in out.splitlines() if line.startswith("{")]
        report = json.loads(said[0]) if said else {}
        place = server.url.rpartition("/")[2].replace(":", "%3A")
        letters = tmp_path / ".m3connect" / "dead-letters" / f"shared-{place}-docs.jsonl"
        report["letters"] = sorted(letters.read_text().splitlines()) if letters.exists() else []
        letters.unlink(missing_ok=True)
        report["lost"] = sorted(lost.read_text().splitlines()) if lost.exists() else []
        return exit_.value.code, report | {"seconds": 0}, err

    return run


def test_the_command_reports_what_one_process_reports(ray, server, command, corpus):
    """Counts, exit code, dead letters, pruning; though two workers die on the way."""
    with shared.serve() as alone:
        server.fail_at = {1, 3}
        expected = command(alone)
        code, report, _ = command(server, "--engine", "ray")
        assert server.failed == 2
        assert code == expected[0] == 4
        committed = {"written", "unchanged"}  # what a worker had committed is found unchanged
        assert sum(report[name] for name in committed) == expected[1]["written"] == 22
        counts = {"read", "failed", "empty", "left_over", "letters", "lost"}
        assert {name: report[name] for name in counts} == {
            name: expected[1][name] for name in counts
        }
        assert [json.loads(line)["loss"] for line in report["lost"]] == [
            "images",
            "empty",
            "left_out",
        ]
        assert transfer.verify(alone.collection, server.collection).equal
        for name in ("a", "b"):
            path = corpus / f"{name}.jsonl"
            path.write_text(path.read_text().removesuffix("{no"))
        (corpus / "torn.parquet").unlink()
        (corpus / "5.md").unlink()
        expected, found = command(alone, "--prune"), command(server, "--prune", "--engine", "ray")
        assert found[:2] == expected[:2]
        assert (found[0], found[1]["pruned"], found[1]["unchanged"]) == (0, 1, 21)
        assert transfer.verify(alone.collection, server.collection).equal


def test_the_command_names_the_files_at_which_workers_die(ray, server, command):
    """And does not try for ever."""
    server.poison = "b3"
    code, _, err = command(server, "--engine", "ray")
    assert code == 1
    assert "shared ingest: a worker died 3 times at b.jsonl; Ray's log says how" in err
    assert server.failed == 3


# A runner may ignore interrupts, and then all that it starts does.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from m3connect import cli; cli.main()"
)


@pytest.fixture
def begin(tmp_path, corpus, server):
    """Starts the command with workers, in a process and a folder of its own."""
    processes = []

    def run(address):
        folder = tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        target = ["--target", "shared", "--url", server.url, "--collection", "docs", "--json"]
        command = [sys.executable, "-c", PROGRAM, "ingest", "../corpus", *target, "--engine", "ray"]
        process = subprocess.Popen(
            [*command, "--ray-address", address],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def elsewhere(begin):
    """The command until it is over: exit code, report, what is said to people."""

    def run(address):
        process = begin(address)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


def test_the_command_joins_a_cluster_by_its_address(ray, elsewhere):
    """Which was started in another folder, so that no path may be relative there."""
    from ray import get_runtime_context

    code, out, err = elsewhere(get_runtime_context().gcs_address)
    assert code == 4, err
    assert (json.loads(out)["written"], json.loads(out)["failed"]) == (22, 3)


@pytest.fixture
def interrupted(ray, begin, server):
    """The command after Ctrl-C, while a worker waits for the database; and what that is writing."""
    from ray import get_runtime_context

    server.held = []
    process = begin(get_runtime_context().gcs_address)
    while not server.held:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert any("Ctrl-C again stops at once" in line for line in process.stderr)
    yield process, set(server.held)
    server.held = None


def test_an_interrupt_waits_for_what_workers_have_encoded(interrupted, server):
    """It is in, marks included, so that the next run has it for unchanged."""
    process, writing = interrupted
    with pytest.raises(subprocess.TimeoutExpired):  # nothing to see of what it does not do
        process.wait(2)
    server.held = None
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Run it again to go on" in err
    stored = {each["document_id"] for batch in server.collection.scan() for each in batch.payloads}
    assert writing <= stored


def test_a_second_interrupt_waits_for_no_worker(interrupted):
    """Though the database has not answered yet."""
    process, _ = interrupted
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("errors", "calls"),
    [([], 1), (["The current node timed out during startup."] * 2, 3)],
)
def test_a_ray_that_was_too_slow_is_started_again(caplog, errors, calls):
    """As on a machine that is busy; each time is said."""
    begin = Mock(side_effect=[*map(Exception, errors), None])
    ray_files.start(begin)
    assert begin.call_count == calls
    assert caplog.text.count("Ray did not start in time; trying again") == calls - 1


@pytest.mark.parametrize(
    ("error", "calls"),
    [("Timed out waiting for file gcs_port", 3), ("no space left", 1)],
)
def test_a_ray_that_cannot_start_is_an_error(error, calls):
    """After so many times, or at once if it was not too slow."""
    begin = Mock(side_effect=RuntimeError(error))
    with pytest.raises(RuntimeError, match=error):
        ray_files.start(begin)
    assert begin.call_count == calls


def test_an_address_that_nobody_answers_is_told_at_once(elsewhere, server):
    """Ray alone would wait for minutes, and then end the process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    code, out, err = elsewhere(address)
    assert (code, server.collection.collections()) == (2, [])
    assert f"the Ray cluster at {address} does not answer: " in err + out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus", "--target", "memory", "--engine", "ray"], "memory is embedded here"),
        (["corpus", "--ray-address", "auto"], "--ray-address needs --engine ray"),
        (
            ["-", "--target", "memory", "--engine", "ray"],
            "standard input cannot be read by workers",
        ),
    ],
)
def test_what_workers_cannot_do_is_bad_usage(command, capsys, arguments, message):
    """Said before anything is read."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["ingest", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_nothing_is_written_twice(ray, server, tmp_path):
    """All are counted as written, then as unchanged."""
    assert engines.ray(TABLE, sink(server), tmp_path).written == len(ROWS)
    assert engines.ray(TABLE, sink(server), tmp_path).unchanged == len(ROWS)


@pytest.mark.parametrize(
    ("example", "further"),
    [("ray_pipeline", []), ("ray_pipeline", ["--stages"]), ("spark_pipeline", [])],
)
def test_an_example_runs(request, monkeypatch, capsys, server, tmp_path, example, further):
    """With the small model, into the collection that one process makes of the same file."""
    request.getfixturevalue(example.partition("_")[0])
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE.slice(0, 12), path)
    script = engines.ROOT / "examples" / "etl" / f"{example}.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(path), "shared", server.url, *further])
    runpy.run_path(str(script), run_name="__main__")
    assert "12 written, 0 unchanged, 0 failed" in capsys.readouterr().out
    report = ingest(str(path), M3Encoder.load("m3-mini"), server.collection, source_name="unnamed")
    assert report.unchanged == 12
