"""A connector and the oracle, put through the same random operations."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from m3connect.contract import Connector
from m3connect.filters import Filter
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, decided
from m3connect.testing.conformance.searching import about, forms
from m3connect.types import RecordBatch

IDS = [f"doc/{i}#ü" for i in range(150)]


class Twins:
    """Each step does one random operation to both, and compares what comes of it.

    Args:
        open_connector: opens the connector; called again to close and reopen it, unless
            ``durable`` is False.
        seed: of all choices.
        durable: whether the collection outlives its connection.
        disturb: called before each operation that may be repeated without a trace, which is all
            but deletion: a second attempt finds nothing to count.
    """

    def __init__(
        self,
        open_connector: Callable[[], Connector],
        seed: int,
        *,
        durable: bool,
        disturb: Callable[[], None] | None = None,
    ) -> None:
        self.open = open_connector
        self.seed = seed
        self.disturb = disturb
        self.rng = random.Random(seed)
        self.connector = open_connector()
        self.memory = MemoryConnector(collection="oracle")
        for twin in (self.connector, self.memory):
            twin.ensure(corpus.SCHEMA)
        self.operations: list[tuple[Callable[[], str], int]] = [
            (self.upsert, 25),
            (self.delete_ids, 8),
            (self.delete_matching, 6),
            (self.fetch, 12),
            (self.scan, 10),
            (self.count, 10),
            (self.search, 27),
            (self.reopen if durable else self.ensure, 2),
        ]

    def run(self, steps: int) -> None:
        """Do so many operations and close; a difference names seed, step and operation."""
        try:
            self._run(steps)
        finally:
            self.connector.close()

    def _run(self, steps: int) -> None:
        done: list[str] = []
        operations, weights = zip(*self.operations, strict=True)
        for step in range(steps):
            operation = self.rng.choices(operations, weights)[0]
            if self.disturb and operation not in (self.delete_ids, self.delete_matching):
                self.disturb()
            try:
                done.append(operation())
            except Exception as error:
                error.add_note(
                    f"seed {self.seed}, step {step}, {operation.__name__}; before: {done[-5:]}"
                )
                raise
        assert self.connector.count() == self.memory.count(), f"seed {self.seed}, at the end"

    def upsert(self) -> str:
        n = self.rng.choice((1, 2, 5, 20))
        made = corpus.records(self.rng.randrange(10**9), n)
        batch = RecordBatch(self.rng.choices(IDS, k=n), made.payloads, made.embeddings)
        self.connector.upsert(batch)
        self.memory.upsert(batch)
        return f"upsert {n}"

    def delete_ids(self) -> str:
        ids = self.rng.sample([*IDS, "missing"], self.rng.randint(0, 6))
        gone = self.connector.delete(ids), self.memory.delete(ids)
        assert gone[0] == gone[1], f"deleted {gone[0]} of {ids}, not {gone[1]}"
        return f"delete {ids}"

    def delete_matching(self) -> str:
        where = self._filter(at_most=self.memory.count() // 3)
        gone = self.connector.delete(where), self.memory.delete(where)
        assert gone[0] == gone[1], f"deleted {gone[0]} where {where}, not {gone[1]}"
        return f"delete where {where}"

    def fetch(self) -> str:
        ids = self.rng.sample([*IDS, "missing"], self.rng.randint(0, 12))
        vectors = self.rng.random() < 0.7
        wanted = self.memory.fetch(ids, vectors=vectors)
        check_records(wanted, self.connector.fetch(ids, vectors=vectors), corpus.SCHEMA)
        return f"fetch {ids}"

    def scan(self) -> str:
        where = self._filter() if self.rng.random() < 0.7 else None
        size, vectors = self.rng.choice((1, 10, 256)), self.rng.random() < 0.5
        wanted, got = (
            list(twin.scan(where, vectors=vectors, batch_size=size))
            for twin in (self.memory, self.connector)
        )
        if wanted and got:
            check_records(by_id(wanted), by_id(got), corpus.SCHEMA)
        assert len(wanted) == len(got), f"{len(got)} batches of {size}, not {len(wanted)}"
        return f"scan where {where}"

    def count(self) -> str:
        where = self._filter() if self.rng.random() < 0.8 else None
        counted = self.connector.count(where), self.memory.count(where)
        assert counted[0] == counted[1], f"counted {counted[0]} where {where}, not {counted[1]}"
        return f"count where {where}"

    def search(self) -> str:
        seed = self.rng.randrange(10**6)
        queries = self.rng.sample(forms(seed), self.rng.randint(1, 6))
        filters = [self._filter() if self.rng.random() < 0.5 else None for _ in queries]
        queries = [replace(q, filter=f) for q, f in zip(queries, filters, strict=True)]
        queries = [query for query in queries if decided(self.memory, query)]
        self.connector.flush()
        native = self.rng.random() < 0.7
        for query, hits in zip(
            queries, planner.run(self.connector, queries, native=native), strict=True
        ):
            check_hits(self.memory, query, hits, about(seed, query))
        return f"search {len(queries)}"

    def ensure(self) -> str:
        self.connector.ensure(corpus.SCHEMA)
        return "ensure"

    def reopen(self) -> str:
        self.connector.close()
        self.connector = self.open()
        return "reopen"

    def _filter(self, at_most: int | None = None) -> Filter:
        """A random filter, matching at most so many records; any if none is found soon."""
        tries = [corpus.condition(self.rng) for _ in range(10)]
        counts = np.array([self.memory.count(where) for where in tries])
        if at_most is None:
            return tries[0]
        return tries[int(np.argmax(np.where(counts <= at_most, counts, -1)))]
