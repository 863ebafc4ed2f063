"""Many callers at once: queries a second of a server with 1, 8 and 64 requests in flight.

    python benchmarks/in_flight.py [elasticsearch|qdrant] [--url URL] [--records 2000] [--seconds 5]

Each caller is a thread with a connection of its own that asks one query after the other. The database's own
client asks the same dense search of the same collection, so that its column is the price of the connector;
rounds of both take turns, and the better one counts. Without a URL a node of the tests is started
(Elasticsearch). An embedded engine has no connections: its callers take turns, as batches do in databases.py.
"""

import argparse
import threading
import time
from collections.abc import Callable
from uuid import uuid4

import databases
from workload import queries, query, records, schema

from m3connect import connect
from m3connect.contract import Connector
from m3connect.searching import planner

IN_FLIGHT = (1, 8, 64)
WIDTH, ROUNDS = 1024, 2
MODES = ("dense", "hybrid", "all")

Ask = Callable[[dict], object]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "target", nargs="?", default="elasticsearch", choices=["elasticsearch", "qdrant"]
    )
    parser.add_argument("--url")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with databases.server(options.target, options.url) as started:
        url = options.url or started
        if url is None:
            parser.error(f"{options.target} needs the --url of a server")
        name = f"in_flight_{uuid4().hex}"
        with connect(options.target, collection=name, url=url) as connector:
            connector.ensure(schema(WIDTH, token_width=128))
            try:
                measure(connector, options, url)
            finally:
                connector.drop()


def measure(connector: Connector, options: argparse.Namespace, url: str) -> None:
    """Fill the collection and print the table."""
    for batch in records(options.records, width=WIDTH, token_width=128):
        connector.upsert(batch)
    connector.flush()
    vectors = queries(32, width=WIDTH, token_width=128)
    print(f"{connector.capabilities.engine}, {options.records:,} records\n")
    print(databases.heading(["mode", "through", *(f"{n} in flight" for n in IN_FLIGHT)]))
    ways: dict[tuple[str, str], Callable[[], Ask]] = {
        ("dense", f"{options.target}'s client"): lambda: raw(
            options.target, url, connector.collection
        ),
        **{(mode, "m3connect"): lambda mode=mode: ours(connector, url, mode) for mode in MODES},
    }
    best = {way: [0.0] * len(IN_FLIGHT) for way in ways}
    for _ in range(ROUNDS):
        for column, callers in enumerate(IN_FLIGHT):
            for way, make in ways.items():
                rate = asked_by(callers, make, vectors, options.seconds)
                best[way][column] = max(best[way][column], rate)
    for (mode, through), rates in best.items():
        print(f"| {mode} | {through} | {' | '.join(f'{rate:,.1f}' for rate in rates)} |")


def ours(connector: Connector, url: str, mode: str) -> Ask:
    """One caller through m3connect, on a connection of its own."""
    own = connect(connector.name, collection=connector.collection, url=url)
    known = own.describe().schema
    return lambda vectors: planner.run(own, [query(vectors, mode)], schema=known)


def raw(target: str, url: str, collection: str) -> Ask:
    """One caller with the database's own client: the dense search of the same fields."""
    if target == "qdrant":
        from qdrant_client import QdrantClient

        qdrant = QdrantClient(url=url, prefer_grpc=True)
        return lambda vectors: qdrant.query_points(
            collection, query=vectors["dense"], using="dense", limit=10
        )
    from elasticsearch import Elasticsearch

    client = Elasticsearch(url, request_timeout=60)

    def ask(vectors: dict) -> object:
        near = {"field": "dense", "query_vector": vectors["dense"].tolist()}
        body = {
            "query": {"knn": {**near, "k": 10, "num_candidates": 1000}},
            "size": 10,
            "_source": False,
            "docvalue_fields": ["id", "payload"],
        }
        return client.search(index=collection, body=body)

    return ask


def asked_by(callers: int, make: Callable[[], Ask], vectors: list[dict], seconds: float) -> float:
    """Queries a second of so many callers together."""
    asks = [make() for _ in range(callers)]
    for ask in asks:
        ask(vectors[0])
    counts, failures = [0] * callers, []
    until = time.perf_counter() + seconds

    def call(row: int) -> None:
        try:
            while time.perf_counter() < until:
                asks[row](vectors[(row + counts[row]) % len(vectors)])
                counts[row] += 1
        except Exception as error:  # noqa: BLE001 - told below, of whichever kind
            failures.append(error)

    start = time.perf_counter()
    threads = [threading.Thread(target=call, args=(row,)) for row in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
