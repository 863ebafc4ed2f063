"""What a collection costs that grows: writing, asking and memory at one size and at ten times that.

    python benchmarks/growth.py TARGET [--sizes 20000,200000] [--queries 40] [--folder FOLDER] [--python]

TARGET is qdrant or milvus, embedded in FOLDER, or elasticsearch, of which a node of the tests is started.
Records have 1024 dense values, 120 terms and 20 token vectors of 128 values. A row is printed at each size:
records a second since the row before, from the vectors to an answered search; milliseconds of processor time
that a record took, in upserts alone and with what the engine does at the end (building indexes), the making of
the records left out; bytes a record on disk; p50 of each mode, one query at a time, in milliseconds of the
clock and of the processor; and the largest resident memory of this process since the row before that is no
mapped file. With an embedded engine that is the engine's, too. Processor time is this process's and the
server's. The last line divides the last size's figures by the first's. Sizes are multiples of 500.

With ``--python`` memory is the most that Python and numpy held in upserts and searches, the engine's left out,
batches of records included; to find that out makes all else slow.
"""

import argparse
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import databases
from timing import processor_time, timed
from workload import MODES, queries, query, records, schema

from m3connect import connect
from m3connect.contract import Connector
from m3connect.searching import planner

WIDTH, TOKEN_WIDTH = 1024, 128


@dataclass(frozen=True)
class Row:
    """One size: ``work`` is processor time a record in upserts and in all, ``own`` in MiB.

    ``modes`` has p50 and processor time of each.
    """

    records: int
    rate: float
    work: tuple[float, float]
    size: float
    modes: dict[str, tuple[float, float]]
    own: float

    def __str__(self) -> str:
        modes = (f"{p50:.1f} / {work:.1f}" for p50, work in self.modes.values())
        return line(
            f"{self.records:,}",
            f"{self.rate:,.0f}",
            "{:.2f}, {:.2f}".format(*self.work),
            f"{self.size:,.0f}",
            *modes,
            f"{self.own:,.0f}",
        )

    def over(self, first: "Row") -> str:
        """This one's figures divided by the first one's."""
        modes = [
            f"{p50 / first.modes[mode][0]:.2f} / {work / first.modes[mode][1]:.2f}"
            for mode, (p50, work) in self.modes.items()
        ]
        sizes = f"{self.records // first.records} x"
        work = ", ".join(
            f"{now / then:.2f}" for now, then in zip(self.work, first.work, strict=True)
        )
        size, own = f"{self.size / first.size:.2f}", f"{self.own / first.own:.2f}"
        return line(sizes, f"{self.rate / first.rate:.2f}", work, size, *modes, own)


def main() -> None:
    """Print one table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=[*databases.PEERS])
    parser.add_argument("--sizes", default="20000,200000")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--folder", help="where the data lies meanwhile; default: a temporary one")
    parser.add_argument("--python", action="store_true", help="memory of Python alone")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    with (
        TemporaryDirectory(dir=options.folder) as folder,
        databases.server(options.target, None) as url,
    ):
        where = {"path": str(Path(folder, "data.db"))} if url is None else {"url": url}
        with connect(options.target, collection="growth", **where) as connector:
            print(f"{connector.capabilities.engine}\n", flush=True)
            print(
                databases.heading(
                    ["records", "records/s", "CPU ms/record", "bytes/record", *MODES, "own MiB"]
                ),
                flush=True,
            )
            rows = []
            memory = python_memory if options.python else own_memory
            for row in grown(connector, sizes, options.queries, url, Path(folder), memory):
                rows.append(row)
                print(row, flush=True)
            print(rows[-1].over(rows[0]))


def grown(
    connector: Connector,
    sizes: list[int],
    asked: int,
    url: str | None,
    folder: Path,
    memory: Callable[[], AbstractContextManager[list[float]]],
) -> Iterator[Row]:
    """The rows of a collection that grows from size to size."""
    connector.ensure(schema(WIDTH, token_width=TOKEN_WIDTH))
    vectors = queries(asked, width=WIDTH, token_width=TOKEN_WIDTH)
    held = 0
    for size in sizes:
        with memory() as own:
            before = processor_time(url)
            seconds, making = written(connector, held, size)
            upserts = processor_time(url) - before - making
            seconds += databases.elapsed(connector.flush)
            seconds += databases.elapsed(
                lambda: planner.run(connector, [query(vectors[0], "hybrid")])
            )
            whole = processor_time(url) - before - making
            modes = {}
            for mode in MODES:
                did = timed(
                    lambda one: planner.run(connector, [one])[0],
                    [query(one, mode) for one in vectors],
                    url,
                )
                modes[mode] = did.p50, did.work
        new, held = size - held, size
        stored = connector.size() if url else databases.folder_size(folder)
        work = upserts / new, whole / new
        yield Row(size, new / seconds, work, stored / size, modes, own[0])


def written(connector: Connector, first: int, last: int) -> tuple[float, float]:
    """Writes the records from one number to another: seconds, and the processor time of making them."""
    seconds = making = 0.0
    batches = records(last, width=WIDTH, token_width=TOKEN_WIDTH, first=first)
    while True:
        before = time.thread_time()
        batch = next(batches, None)
        making += time.thread_time() - before
        if batch is None:
            return seconds, making * 1e3
        seconds += databases.elapsed(lambda batch=batch: connector.upsert(batch))


@contextmanager
def own_memory() -> Iterator[list[float]]:
    """Fills in the largest resident memory of this process meanwhile, in MiB, but for mapped files."""
    done, largest = threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.1):
            status = Path("/proc/self/status").read_text()
            anonymous = status.partition("RssAnon:")[2].split()[0]
            largest[0] = max(largest[0], int(anonymous) / 1024)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield largest
    finally:
        done.set()
        watching.join()


@contextmanager
def python_memory() -> Iterator[list[float]]:
    """Fills in the most that Python allocated meanwhile, in MiB."""
    largest = [0.0]
    tracemalloc.start()
    try:
        yield largest
        largest[0] = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def line(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
