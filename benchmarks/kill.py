"""Kill it: programs ended by SIGKILL in mid-ingest, and what the next run makes of what they left.

    python benchmarks/kill.py --kills 100 --targets qdrant,milvus,elasticsearch --seed 15

A collection holds one version of some documents. A program ingests another version, with ``--prune``,
and is killed at a seeded request to the database, up to 30 ms after it began; sometimes a second one
begins over what it left and is killed, too. Then a last one ingests to its end. Prints, for each target,
how many were killed and how many collections were

- lost or mixed: not what one holds into which the last version alone was ingested;
- not settled: a further run still wrote something;
- not opened: the last program ended in an error.

All but the first column should be 0. The embedded engines die with the program; Elasticsearch (a node
is started, unless ``--url`` names one) stays, but is killed and started again after one in ten.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from m3connect import Document, connect, ingest
from m3connect.contract import Connector
from m3connect.errors import M3ConnectError
from m3connect.ingestion import steps
from m3connect.ingestion.ledger import FIELD
from m3connect.testing.fakes import HashEncoder

VERSIONS = 0, 1, 2, 3
DOCUMENTS, PASSAGES_AT_ONCE = 24, 20
DELAY = 0.03  # seconds, at most, from the beginning of a request to the kill
WRITES = ("ensure", "upsert", "delete", "flush")
DRIVERS = {
    "qdrant": "qdrant_edge",
    "milvus": "milvus_lite.adapter.grpc.server",
    "elasticsearch": "elasticsearch",
}
PROCESSES = get_context("forkserver")

Place = tuple[str, dict[str, str]]
"""A target and the options of its ``connect``."""


def documents(version: int) -> list[Document]:
    """Some as in the version before, some longer, shorter, with other metadata only, empty or gone."""
    made = []
    for number in range(DOCUMENTS):
        of = version - 1 if number % 4 == 0 else version
        length = (5 * number + 3 * of) % 9
        text = " ".join(f"v{0 if number % 4 == 1 else of} w{at} x y." for at in range(length))
        if (number + version) % 7:
            made.append(Document(f"d{number}", text, {"version": of}))
    return made


def write(collection: Connector, version: int) -> tuple[int, int]:
    """Ingest a version; how many documents were written, and how many passages went."""
    steps.GROUP_PASSAGES = PASSAGES_AT_ONCE
    encoder = HashEncoder(width=4)
    report = ingest(
        documents(version), encoder, collection, chunk_tokens=5, prune=True, max_delete_ratio=1.0
    )
    return report.written, report.deleted


def digest(collection: Connector) -> str:
    """A hash of all records. Of their marks the bound is left out, which remembers what was there."""
    found = []
    for batch in collection.scan(vectors=True):
        for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
            mark = {name: value for name, value in payload[FIELD].items() if name != "bound"}
            vectors = batch.embeddings[row]
            assert vectors.dense is not None
            assert vectors.sparse is not None
            numbers = vectors.dense.tobytes() + vectors.sparse.values.tobytes()
            found.append(f"{id_} {sorted({**payload, FIELD: mark}.items())} {numbers.hex()}")
    return sha256("\n".join(sorted(found)).encode()).hexdigest()


# --------------------------------------------------------------------- what runs in processes


def told(pipe: Connection, place: Place, version: int, dies_at: int) -> None:
    """Ingest; before the write of this number (from 1), and at the end, tell how many there were."""
    target, options = place
    made = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def write_(*arguments: Any) -> Any:
            nonlocal made
            made += 1
            if made == dies_at:
                pipe.send(made)
            return call(*arguments)

        return write_

    with connect(target, **options) as collection:
        for name in WRITES:
            setattr(collection, name, counted(getattr(collection, name)))
        write(collection, version)
    pipe.send(made)


def settled(pipe: Connection, place: Place, version: int) -> None:
    """Ingest twice; send the hash of the content and what the second run wrote, or an error."""
    target, options = place
    try:
        with connect(target, **options) as collection:
            write(collection, version)
            pipe.send((digest(collection), sum(write(collection, version))))
    except M3ConnectError as error:
        pipe.send((None, repr(error)[:300]))


def answer(run: Callable[..., None], *arguments: object, delay: float | None = None) -> Any:
    """What a process says; with ``delay``, whether it was killed so many seconds after it did."""
    mine, its = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=run, args=(its, *arguments))
    process.start()
    its.close()
    try:
        said = mine.recv()
    except EOFError:
        said = None, "the process ended without a word"
    if delay is not None:
        time.sleep(delay)
        process.kill()
    process.join()
    return said if delay is None else process.exitcode == -signal.SIGKILL


# ------------------------------------------------------------------------------ the places


@contextmanager
def server(target: str, url: str | None) -> Iterator[tuple[str | None, Callable[[], None]]]:
    """The URL of the target's server, and what kills and starts it again."""
    if target != "elasticsearch" or url:
        yield url, lambda: None
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.servers.elasticsearch.node import Node

    def again() -> None:
        node.kill()
        node.start()

    with Node() as node:
        yield node.url, again


@contextmanager
def place(target: str, url: str | None) -> Iterator[Place]:
    """Room for one collection, which goes afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        name = f"kill_{Path(folder).name}".lower()
        where = {"url": url} if url else {"path": str(Path(folder, "data.db"))}
        yield target, {"collection": name, **where}
        if url:
            with connect(target, collection=name, url=url) as collection:
                collection.drop()


def kill(
    target: str, url: str | None, restart: Callable[[], None], kills: int, dice: random.Random
) -> Counter[str]:
    """Kill so many programs of one target; what became of the collections."""
    wanted: dict[int, str] = {}
    for version in VERSIONS:
        with place(target, url) as alone:
            wanted[version] = answer(settled, alone, version)[0]
    with place(target, url) as alone:
        answer(settled, alone, VERSIONS[0])
        writes = answer(told, alone, VERSIONS[1], 0)
    tally: Counter[str] = Counter()
    while tally["killed"] < kills:
        first, *others = dice.sample(VERSIONS, len(VERSIONS))
        with place(target, url) as used:
            answer(settled, used, first)
            for version in others[: 2 if dice.random() < 0.25 else 1]:
                delay = dice.choice([0.0, dice.uniform(0, DELAY)])
                tally["killed"] += answer(told, used, version, dice.randint(1, writes), delay=delay)
                if dice.random() < 0.1:
                    restart()
            last = dice.choice(VERSIONS)
            content, again = answer(settled, used, last)
        if content is None:
            print(f"{target}: {again}", file=sys.stderr)
        tally["unopened"] += content is None
        tally["different"] += content not in {None, wanted[last]}
        tally["unsettled"] += content is not None and again != 0
        print(f"{target}: {dict(tally)}", file=sys.stderr, flush=True)
    return tally


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=12, help="over all targets")
    parser.add_argument("--targets", default=",".join(DRIVERS))
    parser.add_argument("--url", help="of a node of Elasticsearch; default: one is started")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    targets = asked.targets.split(",")
    loaded = ["m3connect.ingestion", "tokenizers", *map(DRIVERS.__getitem__, targets)]
    PROCESSES.set_forkserver_preload(loaded)  # once, instead of in each process
    print("| | killed | lost or mixed | not settled | not opened |\n|---|---|---|---|---|")
    for at, target in enumerate(targets):
        share = len(range(at, asked.kills, len(targets)))
        url = asked.url if target == "elasticsearch" else None
        with server(target, url) as (running, restart):
            tally = kill(target, running, restart, share, random.Random(f"{target} {asked.seed}"))
        figures = (str(tally[each]) for each in ("killed", "different", "unsettled", "unopened"))
        print(f"| {target} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
