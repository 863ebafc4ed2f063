"""The points of one collection: asked of its engine again and again, in portions that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from m3connect.connecting import retry
from m3connect.connecting.collection import closed
from m3connect.connecting.portions import portions
from m3connect.connecting.retry import RetryPolicy
from m3connect.contract import CollectionSchema
from m3connect.errors import RequestTooLarge
from m3connect.types import Leg
from m3connect_qdrant import mapping
from m3connect_qdrant.engine.protocol import Engine
from m3connect_qdrant.errors import NAME, translated
from m3connect_qdrant.filters import Json
from m3connect_qdrant.mapping import ONLY_ID, ONLY_ROWS, Point
from m3connect_qdrant.queries import Answer

READ_AT_ONCE = 256
FLOATS_AT_ONCE = 4 * 1024 * 1024
"""Values of multi-vectors in one answer, or one record's."""
QUERIES_AT_ONCE = 64
COUNTED_AT_ONCE = 1000

A = TypeVar("A")
T = TypeVar("T")


class Points:
    """What a connector asks of one collection. Transient failures are retried, errors are ours.

    Args:
        engine: what holds the collection.
        policy: how often a transient failure is retried.
    """

    def __init__(self, engine: Engine, policy: RetryPolicy) -> None:
        self.engine = engine
        self.policy = policy
        self._closed = False

    def beside(self, collection: str) -> Points:
        """Those of another collection of the same folder or server."""
        return Points(self.engine.beside(collection), self.policy)

    def ask(self, operation: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """What a method of the engine answers; everything asked is idempotent.

        Raises:
            PermanentError: this was closed.
        """
        if self._closed:
            raise closed(NAME, operation)

        def once() -> T:
            with translated(operation, self.engine.translate):
                return function(*args, **options)

        return retry.call(once, self.policy)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points in one request, once."""
        with translated("upsert", self.engine.translate):
            self.engine.upsert(points)

    def retrieve(
        self, operation: str, ids: Sequence[str], payload: Json, legs: Sequence[Leg]
    ) -> Iterator[Point]:
        """Those of the points that exist, with vectors that are not large."""

        def ask(part: Sequence[str]) -> list[Point]:
            return self.ask(operation, self.engine.retrieve, part, payload, legs)

        return _in_parts(ids, READ_AT_ONCE, ask)

    def retrieve_large(
        self,
        operation: str,
        outline: Sequence[Point],
        payload: Json,
        legs: Sequence[Leg],
        schema: CollectionSchema,
    ) -> Iterator[list[Point]]:
        """The same with multi-vectors, by what these weigh: ``outline`` are the points with ONLY_ROWS."""
        weights = (mapping.multivector_floats(point, schema) for point in outline)
        for part in portions(weights, count=READ_AT_ONCE, weight=FLOATS_AT_ONCE):
            ids = [point.id for point in outline[part]]
            if points := [*self.retrieve(operation, ids, payload, legs)]:
                yield points

    def read(
        self,
        operation: str,
        ids: Sequence[str],
        payload: Json,
        legs: Sequence[Leg],
        schema: CollectionSchema,
    ) -> Iterator[Point]:
        """Those of the points that exist, with whatever vectors."""
        if "multivector" not in legs:
            yield from self.retrieve(operation, ids, payload, legs)
            return
        outline = [*self.retrieve(operation, ids, ONLY_ROWS, ())]
        for points in self.retrieve_large(operation, outline, payload, legs, schema):
            yield from points

    def pages(
        self,
        operation: str,
        condition: Json | None,
        size: int,
        payload: Json,
        legs: Sequence[Leg],
    ) -> Iterator[list[Point]]:
        """All points that match, page by page."""
        size = min(size, self.engine.allowance.results or size)
        offset = None
        while True:
            page, offset = self.ask(
                operation, self.engine.scroll, condition, size, offset, payload, legs
            )
            if page:
                yield page
            if offset is None:
                return

    def count(self, operation: str, condition: Json | None) -> int:
        """How many points match; where exact counts are not allowed, by reading all their ids."""
        if self.engine.allowance.exact:
            return self.ask(operation, self.engine.count, condition)
        pages = self.pages(operation, condition, COUNTED_AT_ONCE, ONLY_ID, ())
        return sum(len(page) for page in pages)

    def query(self, requests: Sequence[Json]) -> Iterator[Answer]:
        """The answers to searches, many in one message."""
        most = min(QUERIES_AT_ONCE, self.engine.allowance.queries or QUERIES_AT_ONCE)
        return _in_parts(requests, most, partial(self.ask, "search", self.engine.query))

    def close(self) -> None:
        """Release files and connections; nothing can be asked any more."""
        self._closed = True
        self.engine.close()


def _in_parts(
    items: Sequence[A], size: int, ask: Callable[[Sequence[A]], Sequence[T]]
) -> Iterator[T]:
    """The answers about all items, asked for some at a time, and for fewer where a server says so."""
    for start in range(0, len(items), size):
        part = items[start : start + size]
        try:
            answers = ask(part)
        except RequestTooLarge:
            if len(part) == 1:
                raise
            yield from _in_parts(part, (len(part) + 1) // 2, ask)
        else:
            yield from answers
