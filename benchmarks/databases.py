"""The same records and queries in every database that starts here, beside what users would pick.

    python benchmarks/databases.py [--targets qdrant,milvus,elasticsearch] [--records 20000]
        [--width 1024] [--queries 100] [--peer-python ENV/bin/python] [--peer-records 2000]
        [--elasticsearch-url URL] [--legs dense,sparse,multivector] [--dense-index NAME]
        [--multivector-dtype float16]

Qdrant and Milvus are the embedded engines; without a URL an Elasticsearch node of the tests is
started, with Java's usual compiler. ``--legs`` are the representations of m3connect's first row, and
``--dense-index``, an option of Elasticsearch's and Milvus' connectors, its index: the overlap of
``dense`` is the recall of that. ``--multivector-dtype`` is how its token values are stored; the exact search
keeps float16. A cell of a mode is p50 and p99 of one query at a time in milliseconds, those
of processor time a query in this process and the server together, and the share of the exact top 10 that was
found, where whoever scores no less than the tenth counts. ``rrf`` and
``hybrid`` fuse dense and sparse, by ranks and by weights; ``multivector`` and ``all`` add MaxSim.
Writing counts from the vectors to an answered search; bytes are those on disk afterwards.

The second table has queries a second, asked one at a time and in batches of 8 and 64 as one call. Of the
peers only the databases' own clients take batches.

With peers, a third table has m3connect's figures divided by theirs, of the same run, the modes' by p50 and
by processor time: below 1 it is faster, or smaller. ``hybrid / legs`` is our hybrid over the peer's dense
and sparse added up.

The peers hold fewer representations, so m3connect is measured with those alone as well, on as many
records as they. "-" is what the representations held, or the peer, cannot do. A peer's ``hybrid`` is its
weighted sum, in which a record that one leg did not find gets nothing from it. Their environment
needs langchain-qdrant, langchain-milvus, milvus-lite and langchain-elasticsearch; see peer_store.py.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
from timing import rates, timed
from workload import MODES, queries, query, records, schema

from m3connect import connect
from m3connect.contract import CollectionSchema
from m3connect.errors import ConfigError
from m3connect.searching import fusion, planner
from m3connect.searching.scoring import dense_scores, maxsim_scores, sparse_scores
from m3connect.types import (
    LEGS,
    Embeddings,
    FloatArray,
    Leg,
    MultiVectors,
    Query,
    RecordBatch,
    SparseVectors,
)

BOTH: tuple[Leg, ...] = ("dense", "sparse")
PEERS: dict[str, dict[str, tuple[Leg, ...]]] = {
    "qdrant": {"langchain-qdrant": BOTH, "qdrant-client": BOTH},
    "milvus": {"langchain-milvus": BOTH},
    "elasticsearch": {"langchain-elasticsearch": ("dense",), "elasticsearch": BOTH},
}
"""By target: distributions that peer_store.py knows, and what they hold."""
PEER_STORE = Path(__file__).with_name("peer_store.py")
REPOSITORY = Path(__file__).parents[1]
ROUNDING = 1e-6
BATCHES = (1, 8, 64)
AS_SHIPPED = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC")
"""Java as Elasticsearch's own settings have it, in a heap of 1 GiB: tests have less, and half the compiler."""
BATCHED = ("dense", "hybrid", "all")
"""The modes that are asked in batches, too."""


@dataclass(frozen=True)
class Work:
    """What everyone is given.

    Args:
        width: of dense and token vectors.
        vectors: of the queries.
        scores: ``float32 [queries, records]`` of each leg, exact.
    """

    width: int
    vectors: Sequence[dict]
    scores: Mapping[Leg, FloatArray]


@dataclass(frozen=True)
class Mode:
    """How one mode did: milliseconds, those of processor time, and the share of the exact top 10 that was found."""

    p50: float
    p99: float
    work: float
    overlap: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p99:.1f} / {self.work:.1f}, {self.overlap:.3f}"


@dataclass(frozen=True, eq=False)
class Row:
    """One row of the table; ``size`` is in bytes, ``seconds`` are those of writing.

    ``rates`` are queries a second by mode, for each of :data:`BATCHES`.
    """

    engine: str
    client: str
    legs: Sequence[Leg]
    records: int
    seconds: float
    size: int
    modes: Mapping[str, Mode]
    rates: Mapping[str, Sequence[float]]

    def batched(self) -> Iterator[str]:
        """Its rows of the table of batches."""
        for mode, found in self.rates.items():
            cells = [self.engine, self.client, f"{self.records:,}", mode]
            yield f"| {' | '.join([*cells, *(f'{rate:,.1f}' for rate in found)])} |"

    def __str__(self) -> str:
        cells = [
            self.engine,
            self.client,
            ", ".join(self.legs),
            f"{self.records:,}",
            f"{self.records / self.seconds:,.0f}",
            f"{self.size / self.records:,.0f}",
        ]
        for name in MODES:
            mode = self.modes.get(name)
            cells.append(str(mode or "-"))
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Ratio:
    """A row of ours over a peer's, as a row of the second table."""

    ours: Row
    peer: Row

    def __str__(self) -> str:
        mine, theirs = self.ours, self.peer
        cells = [
            mine.engine,
            theirs.client,
            f"{mine.records:,}",
            f"{theirs.seconds / mine.seconds:.2f}",
            f"{mine.size / theirs.size:.2f}",
        ]
        for name in MODES:
            both = name in mine.modes and name in theirs.modes
            cells.append(over(mine.modes[name], theirs.modes[name]) if both else "-")
        if {"dense", "sparse"} <= theirs.modes.keys() and "hybrid" in mine.modes:
            cells.append(over(mine.modes["hybrid"], theirs.modes["dense"], theirs.modes["sparse"]))
        else:
            cells.append("-")
        return f"| {' | '.join(cells)} |"


def over(mine: Mode, *theirs: Mode) -> str:
    """Our time over the sum of theirs, and our processor time over theirs."""
    time_, work = (
        mine.p50 / sum(one.p50 for one in theirs),
        mine.work / sum(one.work for one in theirs),
    )
    return f"{time_:.2f}, {work:.2f}"


def main() -> None:
    """Print a Markdown table row by row, and one of ratios where there are peers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default=",".join(PEERS))
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--peer-python", help="interpreter of the peers' environment")
    parser.add_argument("--peer-records", type=int, default=2000)
    parser.add_argument("--elasticsearch-url", help="of a server to use; otherwise one is started")
    parser.add_argument("--legs", default=",".join(LEGS), help="what the first row holds")
    parser.add_argument("--dense-index", help="of the first row, such as bbq_hnsw or HNSW")
    parser.add_argument("--multivector-dtype", default="float16", help="of the first row")
    options = parser.parse_args()

    held: list[Leg] = [leg for leg in LEGS if leg in options.legs.split(",")]
    index = {"dense_index": options.dense_index} if options.dense_index else {}
    vectors = queries(options.queries, width=options.width)
    scores = exact_scores(records(options.records, width=options.width), vectors)
    work = Work(options.width, vectors, scores)
    shared = min(options.records, options.peer_records)
    columns = ["engine", "through", "holds", "records", "records/s", "bytes/record", *MODES]
    print(heading(columns), flush=True)
    rows: list[Row] = []
    ratios: list[Ratio] = []
    for target in options.targets.split(","):
        try:
            with server(target, options.elasticsearch_url) as url:
                kept = schema(options.width, held, late_dtype=options.multivector_dtype)
                rows.append(ours(target, url, kept, options.records, work, **index))
                print(rows[-1], flush=True)
                if options.peer_python:
                    ratios += compare(target, url, options.peer_python, shared, work)
        except ConfigError as error:
            print(f"{target} is left out: {error}", file=sys.stderr)
        except subprocess.CalledProcessError as error:
            print(f"{PEER_STORE.name} {target} failed:\n{error.stderr[-2000:]}", file=sys.stderr)
    rows += dict.fromkeys(row for ratio in ratios for row in (ratio.ours, ratio.peer))
    columns = [
        "engine",
        "through",
        "records",
        "mode",
        *(f"{n} at once, queries/s" for n in BATCHES),
    ]
    print("", heading(columns), *(line for row in rows for line in row.batched()), sep="\n")
    if ratios:
        columns = ["engine", "m3connect over", "records", "records/s", "bytes/record", *MODES]
        print("", heading([*columns, "hybrid / legs"]), *ratios, sep="\n")


def heading(columns: Sequence[str]) -> str:
    """The head of a Markdown table."""
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


# ----------------------------------------------------------------------------------- the databases


@contextmanager
def server(target: str, url: str | None) -> Iterator[str | None]:
    """The URL of the target's server, started if need be; None where it is embedded."""
    if target != "elasticsearch" or url:
        yield url if target == "elasticsearch" else None
        return
    sys.path.insert(0, str(REPOSITORY))
    from tests.servers.elasticsearch.node import Node, NodeUnavailable

    try:
        with Node(java=AS_SHIPPED) as node:
            yield node.url
    except NodeUnavailable as error:
        raise ConfigError(str(error)) from error


@contextmanager
def place(url: str | None) -> Iterator[tuple[str, str, Callable[[], int]]]:
    """Room for one collection: its name, the URL or path, and how many bytes it takes on disk."""
    collection = f"benchmark_{uuid4().hex}"
    if url is None:
        with TemporaryDirectory() as folder:
            yield collection, str(Path(folder, "data.db")), lambda: folder_size(Path(folder))
        return
    from elasticsearch import Elasticsearch

    with Elasticsearch(url, request_timeout=60) as client:
        try:
            yield collection, url, lambda: index_size(client, collection)
        finally:
            client.indices.delete(index=collection, ignore_unavailable=True)


def folder_size(folder: Path) -> int:
    """Bytes that files occupy, which for files with holes are fewer than their lengths say."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def index_size(client: object, index: str) -> int:
    """Bytes of an Elasticsearch index once its segments are on disk."""
    client.indices.flush(index=index)
    return client.indices.stats(index=index, metric="store")["_all"]["total"]["store"][
        "size_in_bytes"
    ]


# ------------------------------------------------------------------------------------- the clients


def ours(
    target: str, url: str | None, kept: CollectionSchema, n: int, work: Work, **index: str
) -> Row:
    """m3connect's row; ``index`` are further options of the connector."""
    legs = kept.legs
    with place(url) as (collection, where, size):
        options = {"path": where} if url is None else {"url": where}
        with connect(target, collection=collection, **options, **index) as connector:
            connector.ensure(kept)
            seconds = 0.0
            for batch in records(n, width=work.width, legs=legs):
                seconds += elapsed(lambda batch=batch: connector.upsert(batch))
            seconds += elapsed(connector.flush)
            modes = {}
            for mode in [mode for mode, needed in MODES.items() if set(needed) <= set(legs)]:
                asked = [query(one, mode) for one in work.vectors]
                did = timed(lambda one: planner.run(connector, [one])[0], asked, url)
                ids = [[hit.id for hit in hits] for hits in did.found]
                modes[mode] = Mode(did.p50, did.p99, did.work, overlap(ids, mode, n, work))
            batched = {
                mode: rates(
                    lambda part: planner.run(connector, part),
                    [query(one, mode) for one in work.vectors],
                    BATCHES,
                )
                for mode in BATCHED
                if mode in modes
            }
            engine = connector.capabilities.engine
        return Row(engine, "m3connect", legs, n, seconds, size(), modes, batched)


def compare(target: str, url: str | None, python: str, n: int, work: Work) -> Iterator[Ratio]:
    """Print a row of ours and then of every peer, for each choice of representations they hold."""
    for legs in dict.fromkeys(PEERS[target].values()):
        mine = ours(target, url, schema(work.width, legs), n, work)
        print(mine, flush=True)
        for name in [name for name, held in PEERS[target].items() if held == legs]:
            theirs = peer(target, name, url, python, n, work)
            print(theirs, flush=True)
            yield Ratio(mine, theirs)


def hand_over(folder: str, n: int, width: int, vectors: Sequence[dict]) -> None:
    """Write records and queries as peer_store.py reads them."""
    parts = [batch.embeddings for batch in records(n, width=width, legs=LEGS[:2])]
    passages = Embeddings.concat(parts)
    asked_sparse = SparseVectors.from_rows([one["sparse"] for one in vectors])
    asked_dense = np.stack([one["dense"] for one in vectors])
    write(Path(folder, "passages.npz"), passages.dense, passages.sparse)
    write(Path(folder, "queries.npz"), asked_dense, asked_sparse)


def peer(target: str, name: str, url: str | None, python: str, n: int, work: Work) -> Row:
    """A peer's row, from a process of its own."""
    legs = PEERS[target][name]
    with TemporaryDirectory() as folder, place(url) as (collection, where, size):
        hand_over(folder, n, work.width, work.vectors)
        command = [python, PEER_STORE, name, collection, where, folder, *map(str, BATCHES)]
        subprocess.run(command, capture_output=True, text=True, check=True)
        answers = json.loads(Path(folder, "answers.json").read_text())
        modes = {
            mode: Mode(
                each["p50"], each["p99"], each["work"], overlap(each["found"], mode, n, work)
            )
            for mode, each in answers["modes"].items()
        }
        seconds, found = answers["seconds"], answers["rates"]
        return Row(target, answers["client"], legs, n, seconds, size(), modes, found)


def write(path: Path, dense: FloatArray, sparse: SparseVectors) -> None:
    """Vectors for a process without m3connect."""
    np.savez(path, dense=dense, indptr=sparse.indptr, indices=sparse.indices, values=sparse.values)


def elapsed(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# -------------------------------------------------------------------------------------- the oracle


def exact_scores(batches: Iterable[RecordBatch], vectors: Sequence[dict]) -> dict[Leg, FloatArray]:
    """Every query with every record, in blocks: ``float32 [queries, records]`` of each leg."""
    parts: dict[Leg, list[FloatArray]] = {leg: [] for leg in LEGS}
    for batch in batches:
        block = batch.embeddings
        assert block.multivector is not None
        # Widened once a block rather than once a query.
        late = MultiVectors(block.multivector.offsets, block.multivector.vectors.astype(np.float32))
        parts["dense"].append(np.stack([dense_scores(v["dense"], block.dense) for v in vectors]))
        parts["sparse"].append(
            np.stack([sparse_scores(v["sparse"], block.sparse) for v in vectors])
        )
        parts["multivector"].append(
            np.stack([maxsim_scores(v["multivector"], late) for v in vectors])
        )
    return {leg: np.concatenate(found, axis=1) for leg, found in parts.items()}


def overlap(found: Sequence[Sequence[str]], mode: str, n: int, work: Work) -> float:
    """The mean share of the exact top 10 that the answers hold, of the first ``n`` records."""
    shares = []
    for at, ids in enumerate(found):
        asked = query(work.vectors[at], mode)
        final = exact(asked, {leg: scores[at, :n] for leg, scores in work.scores.items()})
        best = fusion.top(final, asked.limit)
        good = {id_ for id_, score in final.items() if score >= final[best[-1]] - ROUNDING}
        # Where nothing matches, nothing is the right answer.
        shares.append(len(good & set(ids)) / len(best) if best else float(not ids))
    return float(np.mean(shares))


def exact(asked: Query, scores: Mapping[Leg, FloatArray]) -> dict[str, float]:
    """The candidates of one query and their final scores, as :class:`Query` defines them."""
    depths = {"dense": asked.dense_depth, "sparse": asked.sparse_depth}
    rankings = {leg: ranking(leg, scores[leg], depths[leg]) for leg in asked.legs if leg in depths}
    known = {
        leg: {id_: float(scores[leg][row]) for each in rankings.values() for id_, row in each}
        for leg in asked.legs
    }
    if len(asked.legs) == 1:
        return known[asked.legs[0]]
    return fusion.combine(
        asked, {leg: [id_ for id_, _ in each] for leg, each in rankings.items()}, known
    )


def ranking(leg: Leg, scores: FloatArray, depth: int) -> list[tuple[str, int]]:
    """Ids and rows of a leg's candidates, best first; a sparse one shares a term."""
    depth = min(depth, len(scores))
    bar = np.partition(scores, -depth)[-depth]
    rows = np.flatnonzero((scores >= bar) & ((leg != "sparse") | (scores > 0)))
    row_of = {f"record-{row}": int(row) for row in rows}
    best = fusion.top({id_: float(scores[row]) for id_, row in row_of.items()}, depth)
    return [(id_, row_of[id_]) for id_ in best]


if __name__ == "__main__":
    main()
