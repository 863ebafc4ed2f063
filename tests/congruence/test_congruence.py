"""Random operations on every engine that starts here, compared with the oracle step by step.

Other seeds: ``M3CONNECT_TEST_SEEDS=3,4,5 pytest tests/congruence``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from m3connect.connecting.registry import available, connect
from m3connect.connecting.retry import RetryPolicy
from m3connect.contract import Connector
from tests.congruence.twins import Twins
from tests.servers.proxy import Answer, Cut, Delay, Drop, Fault, FaultProxy, HalfClose, Truncate

STEPS = 200
FIRST, *MORE = map(int, os.environ.get("M3CONNECT_TEST_SEEDS", "1,2").split(","))
SEEDS = [FIRST, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MORE)]

Open = Callable[[], Connector]


def opener(target: str, **options: Any) -> Open:
    """Opens the collection ``congruence``; skips where the connector is not installed."""
    if target not in available():
        pytest.skip(f"the distribution m3connect-{target} is not installed")
    return partial(connect, target, **{"collection": "congruence", **options})


@pytest.fixture(scope="module")
def names() -> Iterator[str]:
    """A server keeps its collections, so each run has one of its own."""
    return (f"congruence-{i}" for i in count())


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_memory(seed: int) -> None:
    """The in-memory connector agrees with itself: the operations are sound."""
    Twins(opener("memory"), seed, durable=False).run(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_qdrant_in_memory(seed: int) -> None:
    """Qdrant's client, in memory."""
    Twins(opener("qdrant", path=":memory:"), seed, durable=False).run(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_qdrant_embedded(seed: int, tmp_path: Path) -> None:
    """Qdrant Edge, closed and reopened in between."""
    Twins(opener("qdrant", path=str(tmp_path / "data")), seed, durable=True).run(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_milvus_lite(seed: int, tmp_path: Path) -> None:
    """Milvus Lite, closed and reopened in between."""
    Twins(opener("milvus", path=str(tmp_path / "data.db")), seed, durable=True).run(STEPS)


@pytest.mark.live
@pytest.mark.parametrize("seed", SEEDS)
def test_elasticsearch(seed: int, node: SimpleNamespace, names: Iterator[str]) -> None:
    """A real Elasticsearch node on its basic licence."""
    collection = next(names)
    engine = opener("elasticsearch", url=node.url, collection=collection)
    Twins(engine, seed, durable=True).run(STEPS)


@pytest.mark.live
@pytest.mark.parametrize("seed", SEEDS[:1])
def test_elasticsearch_through_faults(
    seed: int, node: SimpleNamespace, names: Iterator[str]
) -> None:
    """Refused, cut and shortened exchanges are retried: no record is lost, none is doubled."""
    rng = random.Random(seed)
    faults: list[Fault] = [
        Drop(),
        Cut(),
        Cut(50),
        Truncate(),
        Truncate(50),
        HalfClose(),
        Answer(503),
    ]
    faults += [Answer(429, {"Retry-After": "0"}), Answer(502), Delay(0.05)]
    server = urlsplit(node.url)
    with FaultProxy(server.hostname, server.port) as proxy:
        engine = opener(
            "elasticsearch",
            url=proxy.url,
            collection=next(names),
            retry=RetryPolicy(attempts=8, initial=0.01, maximum=0.05),
        )

        def disturb() -> None:
            if not proxy.left and rng.random() < 0.3:
                proxy.spoil(*rng.sample(faults, 2))

        Twins(engine, seed, durable=True, disturb=disturb).run(STEPS)
        assert proxy.exchanges > STEPS
