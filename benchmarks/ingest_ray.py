"""The same files by one process on both cores, and by two workers of Ray, as `m3connect ingest --engine ray` has them.

    .venv/pipelines/bin/python benchmarks/ingest_ray.py [--docs 1000] [--repeat 3]

m3-mini, into the tests' stand-in of a database server, in a process of its own: what that costs is little, and
the same for both. Ray runs, and its workers have loaded the model before: that is a matter of seconds, once. In
turn, best of each; documents a second of wall time, so run it on an idle machine. The environment is the one that
the tests make for pipelines.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
from ingest_overlap import documents

from m3connect import M3Encoder, ingestion
from m3connect.ingestion.files import SourceFile
from m3connect.integrations import ray_files
from m3connect.types import LEGS

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.outside import shared

FILES = 16  # of records, each of which is a task


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    encoder = M3Encoder.load("m3-mini")
    alone, together = [], []
    with TemporaryDirectory() as folder:
        rows = [{"id": each.id, "text": each.text} for each in documents(options.docs)]
        for at in range(FILES):
            lines = "\n".join(map(json.dumps, rows[at::FILES]))
            Path(folder, f"{at}.jsonl").write_text(lines, encoding="utf-8")
        files = ingestion.find([folder])
        ray.init(num_cpus=2, include_dashboard=False, logging_level="WARNING")
        for _ in range(options.repeat + 1):
            alone.append(timed(files, encoder, options.docs, spread=False))
            together.append(timed(files, encoder, options.docs, spread=True))
        ray.shutdown()
    rates = [
        options.docs / min(each[1:]) for each in (alone, together)
    ]  # the first one loads models
    print(f"| {options.docs:,} documents | documents/s |\n|---|---|")
    print(f"| one process on both cores | {rates[0]:.1f} |")
    print(f"| two workers of Ray | {rates[1]:.1f} |")
    print(f"| two workers / one process | {rates[1] / rates[0]:.2f} |")


def timed(files: Sequence[SourceFile], encoder: M3Encoder, n: int, *, spread: bool) -> float:
    """Seconds to bring the files into an empty collection, by this process or by workers."""
    told, tell = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(tell,), daemon=True)
    server.start()
    connect = partial(shared.Shared, collection="docs", url=told.recv())
    start = time.perf_counter()
    source = ingestion.open_source(files, encoder)
    if spread:
        work = ray_files.Work(ingestion.open_source, connect, "m3-mini", {}, LEGS)
        source = ray_files.spread(source, files, work, ingestion.Remarks())
    with connect() as collection:
        report = ingestion.ingest(source, None, collection)
    seconds = time.perf_counter() - start
    assert report.written == n, report
    server.terminate()
    server.join()
    return seconds


def serve(tell: Connection) -> None:
    """A collection, until this process is ended."""
    with shared.serve() as server:
        tell.send(server.url)
        time.sleep(3600)


if __name__ == "__main__":
    main()
