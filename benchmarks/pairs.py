"""m3connect and a peer of databases.py asked in turns in one process: where a machine is busy, it is for both.

    python benchmarks/pairs.py PEER [--records 1000] [--queries 40] [--rounds 3]

PEER is ``langchain-milvus`` (Milvus Lite) or ``elasticsearch`` (the raw client, on a node of the tests), and
is installed in the same environment as m3connect. Both hold the same dense and sparse vectors, and all modes
of both take turns, query by query. A cell is the median of all queries in milliseconds, of the clock and of
this process's time on a processor; ``ratio`` is m3connect's over the peer's. ``hybrid / legs`` divides our
hybrid by the peer's dense and sparse added up.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from databases import hand_over, place, server
from peer_store import OPEN, read
from workload import queries, query, records, schema

from m3connect import connect
from m3connect.contract import Connector
from m3connect.searching import planner

WIDTH = 1024
TARGETS = {"langchain-milvus": "milvus", "elasticsearch": "elasticsearch"}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=TARGETS)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asked = queries(options.queries, width=WIDTH)
    target = TARGETS[options.peer]
    with (
        TemporaryDirectory() as folder,
        server(target, None) as url,
        place(url) as (name, where, _),
        place(url) as (peer_name, peer_where, _),
    ):
        hand_over(folder, options.records, WIDTH, asked)
        dense, sparse = read(Path(folder, "passages.npz"), "record")
        asked_dense, asked_sparse = read(Path(folder, "queries.npz"), "query")
        write, asks, _ = OPEN[options.peer](
            peer_name, peer_where, dense | asked_dense, sparse | asked_sparse
        )
        write(list(dense))
        at_home = {"url": where} if url else {"path": where}
        with connect(target, collection=name, **at_home) as connector:
            filled(connector, options.records)
            calls = [
                call
                for mode in asks
                for call in (
                    lambda at, mode=mode: planner.run(connector, [query(asked[at], mode)]),
                    lambda at, mode=mode: asks[mode](f"query-{at}"),
                )
            ]
            found = turns(calls, options.queries, options.rounds).reshape(len(asks), 2, 2)
    medians = dict(zip(asks, found, strict=True))
    print("| | m3connect | peer | ratio |\n|---|---|---|---|")
    for mode, (ours, theirs) in medians.items():
        print(row(mode, ours, theirs))
    print(row("hybrid / legs", medians["hybrid"][0], medians["dense"][1] + medians["sparse"][1]))


def row(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """A row of the table, from medians of clock and processor."""
    cells = [" / ".join(f"{one:.1f}" for one in each) for each in (ours, theirs)]
    return f"| {name} | {' | '.join(cells)} | {' / '.join(f'{one:.2f}' for one in ours / theirs)} |"


def turns(calls: Sequence[Callable[[int], object]], n: int, rounds: int) -> np.ndarray:
    """``[calls, 2]``: median milliseconds of each, by clock and processor, after a round to warm up."""
    times = np.zeros((rounds + 1, n, len(calls), 2))
    for round_ in times:
        for at, each in enumerate(round_):
            for call, cell in zip(calls, each, strict=True):
                start = time.perf_counter(), time.process_time()
                call(at)
                cell[:] = time.perf_counter() - start[0], time.process_time() - start[1]
    return np.median(times[1:], axis=(0, 1)) * 1e3


def filled(connector: Connector, n: int) -> None:
    """Write all records."""
    legs = ("dense", "sparse")
    connector.ensure(schema(WIDTH, legs))
    for batch in records(n, width=WIDTH, legs=legs):
        connector.upsert(batch)
    connector.flush()


if __name__ == "__main__":
    main()
