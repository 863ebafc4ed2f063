"""Latency of each mode on an embedded Qdrant collection: p50 and p99 of one query at a time.

Run: python benchmarks/query.py [--records 20000] [--width 1024] [--queries 200]
"""

import argparse
import tempfile
import time

from timing import timed
from workload import MODES, queries, query, records, schema

from m3connect import connect
from m3connect.searching import planner


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        connect("qdrant", collection="benchmark", path=folder) as collection,
    ):
        collection.ensure(schema(options.width))
        start = time.perf_counter()
        for batch in records(options.records, width=options.width):
            collection.upsert(batch)
        written = time.perf_counter() - start
        collection.flush()
        optimised = time.perf_counter() - start - written
        print(
            f"{collection.capabilities.engine}: {options.records} records, {options.width} wide; "
            f"written in {written:.1f} s, optimised in {optimised:.1f} s\n"
        )
        print("| mode | p50 ms | p99 ms |\n|---|---|---|")
        vectors = queries(options.queries, width=options.width)
        for mode in MODES:
            asked = [query(one, mode) for one in vectors]
            did = timed(lambda one: planner.run(collection, [one]), asked, None)
            print(f"| {mode} | {did.p50:.1f} | {did.p99:.1f} |")


if __name__ == "__main__":
    main()
