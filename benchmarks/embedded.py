"""What m3connect adds to the embedded Qdrant: the same requests made to ``qdrant_edge`` by hand.

    python benchmarks/embedded.py [--records 2000] [--queries 32] [--rounds 5] [--batch 32]

Both ask the same shard, the engine a copy of it, in this process and one after the other for each query, and
read ids, scores and payloads.
A cell is the median processor time of a query in milliseconds: m3connect's, the engine's by hand, and
the median of what they make of one query divided by each other. ``in batches`` are queries asked in one call.
``upsert`` is a record's, written into two shards in turn, from the same vectors.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import qdrant_edge as edge
from workload import MODES, queries, query, records, schema

from m3connect import connect
from m3connect.contract import Connector
from m3connect.searching import planner
from m3connect.types import Query, RecordBatch, Rrf, Weighted

WIDTH = 1024
PAYLOAD = edge.PayloadSelector.Exclude(["_m3.facts"])


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    print("| | m3connect, ms | by hand, ms | ratio |\n|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        place = {"collection": "c", "path": str(Path(folder, "m3connect"))}
        with connect("qdrant", **place) as connector:
            connector.ensure(schema(WIDTH))
            print(row("upsert", *written(connector, Path(folder, "written"), options.records)))
            connector.flush()
        shutil.copytree(Path(folder, "m3connect", "c", "shard"), Path(folder, "copy"))
        vectors = queries(options.queries, width=WIDTH)
        shard = edge.EdgeShard.load(str(Path(folder, "copy")))
        with connect("qdrant", **place) as connector:
            for size in (1, options.batch):
                for mode in MODES:
                    asked = [query(one, mode) for one in vectors]
                    parts = [asked[at : at + size] for at in range(0, len(asked), size)]
                    pairs = [
                        pair(
                            lambda part: planner.run(connector, part),
                            lambda part: by_hand(shard, part),
                            part,
                        )
                        for _ in range(options.rounds)
                        for part in parts
                    ]
                    ours, theirs = np.array(pairs).T / size
                    name = mode if size == 1 else f"{mode}, in batches of {size}"
                    print(row(name, ours, theirs), flush=True)
        shard.close()


def row(name: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """A row of the table, from pairs of milliseconds."""
    ratio = np.median(np.divide(ours, theirs))
    return f"| {name} | {np.median(ours):.2f} | {np.median(theirs):.2f} | {ratio:.2f} |"


def pair(
    ours: Callable[[Sequence[Query]], object],
    theirs: Callable[[Sequence[Query]], object],
    part: Sequence[Query],
) -> tuple[float, float]:
    """Milliseconds of processor time of both; both have been asked before, so that caches are warm for both."""
    ours(part)
    theirs(part)
    return work(lambda: ours(part)), work(lambda: theirs(part))


def work(call: Callable[[], object]) -> float:
    """Milliseconds of processor time of one call."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


def written(connector: Connector, hand: Path, n: int) -> tuple[list[float], list[float]]:
    """Milliseconds a record of each batch, by both; ``hand`` becomes a shard of the same layout."""
    hand.mkdir()
    shard = edge.EdgeShard.create(str(hand), layout())
    ours, theirs = [], []
    for batch in records(n, width=WIDTH, step=100):
        ours.append(work(lambda batch=batch: connector.upsert(batch)) / len(batch))
        theirs.append(work(lambda batch=batch: shard.update(points(batch))) / len(batch))
    shard.close()
    return ours, theirs


def layout() -> edge.EdgeConfig:
    """A shard with what m3connect's has: float16 multi-vectors without a graph."""
    late = edge.EdgeVectorParams(
        size=WIDTH,
        distance=edge.Distance.Dot,
        datatype=edge.VectorStorageDatatype.Float16,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
    )
    dense = edge.EdgeVectorParams(size=WIDTH, distance=edge.Distance.Dot)
    return edge.EdgeConfig(
        vectors={"dense": dense, "multivector": late},
        sparse_vectors={"sparse": edge.EdgeSparseVectorParams()},
    )


def points(batch: RecordBatch) -> edge.UpdateOperation:
    """A batch as the engine takes it."""
    found = batch.embeddings
    assert found.sparse is not None
    assert found.dense is not None
    assert found.multivector is not None
    made = []
    for at, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        sparse = found.sparse[at]
        vectors = {
            "dense": found.dense[at].tolist(),
            "sparse": edge.SparseVector(sparse.indices.tolist(), sparse.values.tolist()),
            "multivector": found.multivector[at].astype(np.float32).tolist(),
        }
        made.append(edge.Point(int(id_.partition("-")[2]), vectors, {**payload, "id": id_}))
    return edge.UpdateOperation.upsert_points(made)


def by_hand(shard: edge.EdgeShard, asked: Sequence[Query]) -> list[list[tuple]]:
    """Ids, scores and payloads of each query's hits."""
    batch = edge.QueryBatchRequest([request(one) for one in asked])
    return [
        [(point.id, point.score, point.payload) for point in answer]
        for answer in shard.query_batch(batch)
    ]


def request(asked: Query) -> edge.QueryRequest:
    """The engine's request for a query of workload.py, with as many hits."""
    dense = sparse = late = None
    if asked.dense is not None:
        dense = edge.Query.Nearest(asked.dense.tolist(), using="dense")
    if asked.sparse is not None:
        terms = edge.SparseVector(asked.sparse.indices.tolist(), asked.sparse.values.tolist())
        sparse = edge.Query.Nearest(terms, using="sparse")
    if asked.multivector is not None:
        late = edge.Query.Nearest(asked.multivector.tolist(), using="multivector")
    if len(asked.legs) == 1:
        return edge.QueryRequest(limit=asked.limit, query=dense or sparse, with_payload=PAYLOAD)
    legs = [
        edge.Prefetch(limit=asked.dense_depth, query=dense),
        edge.Prefetch(limit=asked.sparse_depth, query=sparse),
    ]
    how, both = asked.fusion, asked.dense_depth + asked.sparse_depth
    if isinstance(how, Rrf):
        fused = edge.Fusion.Rrf(k=int(how.k))
        return edge.QueryRequest(
            limit=asked.limit, query=fused, prefetches=legs, with_payload=PAYLOAD
        )
    assert isinstance(how, Weighted)
    if how.rescore:
        scored = [each for each in (dense, sparse, late) if each is not None]
        stages = [edge.Prefetch(limit=both, query=each, prefetches=legs) for each in scored]
    else:
        stages = [*legs, edge.Prefetch(limit=both, query=late, prefetches=legs)]
    weights = [how.dense, how.sparse]
    if asked.multivector is not None:
        weights.append(how.multivector / len(asked.multivector))
    names = [f"$score[{at}]" for at in range(len(stages))]
    terms = [
        edge.Expression.Mult([edge.Expression.Constant(weight), edge.Expression.Variable(name)])
        for weight, name in zip(weights, names, strict=True)
    ]
    total = edge.Formula(edge.Expression.Sum(terms), dict.fromkeys(names, 0.0))
    return edge.QueryRequest(
        limit=asked.limit, query=total, prefetches=stages, with_payload=PAYLOAD
    )


if __name__ == "__main__":
    main()
