"""How calls are timed. Imports nothing of m3connect, so that peers are timed by it too."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.request import urlopen

import numpy as np

Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Mode:
    """How one mode did.

    Args:
        found: the answer to each query.
        p50, p99: milliseconds of one query.
        work: milliseconds of processor time a query, of this process and of the server.
    """

    found: list
    p50: float
    p99: float
    work: float


def timed(call: Callable[[Asked], list], asked: Sequence[Asked], server: str | None) -> Mode:
    """One call a query; a quarter of them warm up, and a server's compiler three rounds of them all.

    Args:
        call: answers a query.
        asked: the queries.
        server: URL of the Elasticsearch node that answers; None where this process does.
    """
    warm = asked[: -(-len(asked) // 4)] if server is None else [*asked] * 3
    for one in warm:
        call(one)
    answers, times = [], []
    before = processor_time(server)
    for one in asked:
        start = time.perf_counter()
        answers.append(call(one))
        times.append((time.perf_counter() - start) * 1e3)
    work = (processor_time(server) - before) / len(asked)
    return Mode(answers, float(np.percentile(times, 50)), float(np.percentile(times, 99)), work)


def processor_time(server: str | None) -> float:
    """Milliseconds that this process and an Elasticsearch node have computed so far."""
    own = time.process_time() * 1e3
    if server is None:
        return own
    time.sleep(1.1)  # a node looks at its own once a second
    with urlopen(f"{server}/_nodes/stats/process") as answer:  # noqa: S310 - a node of the caller's
        nodes = json.load(answer)["nodes"].values()
    return own + sum(node["process"]["cpu"]["total_in_millis"] for node in nodes)


def rates(
    call: Callable[[Sequence[Asked]], object], asked: Sequence[Asked], sizes: Sequence[int]
) -> list[float]:
    """Queries a second, asked in batches of each size; as many queries as the largest batch holds."""
    asked = (list(asked) * -(-max(sizes) // len(asked)))[: max(sizes)]
    found = []
    for size in sizes:
        parts = [asked[at : at + size] for at in range(0, len(asked), size)]
        call(parts[0])
        start = time.perf_counter()
        for part in parts:
            call(part)
        found.append(len(asked) / (time.perf_counter() - start))
    return found
