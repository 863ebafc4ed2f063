"""What a server in strict mode refuses, with the bodies of a real 1.19.0, for the stand-in.

By its source (``operations/verification``): each stage of a query has a limit and a filter of its own,
a stage that compares token vectors is a full scan, since they have no graph, and so is an exact count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from qdrant_client import models


class Refusal(ValueError):
    """An answer of another status than 400; with ``retry_after`` of a rate limit that refills."""

    def __init__(self, message: str, status: int = 400, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Guard:
    """Refuses what the settings do not allow.

    Args:
        settings: of the collection.
    """

    def __init__(self, settings: models.StrictModeConfig) -> None:
        self.settings = settings
        self.tokens = settings.read_rate_limit

    def queries(self, requests: Sequence[models.QueryRequest], indexed: Collection[str]) -> None:
        self._limit(len(requests), self.settings.search_max_batchsize, "search batch size")
        for request in requests:
            self._stage(request, indexed, scans=not request.prefetch)
        self._pay(sum(map(_cost, requests)))

    def page(self, limit: int, condition: Any, indexed: Collection[str]) -> None:
        self._limit(limit, self.settings.max_query_limit, "limit")
        self._filter(condition, indexed, self.settings.unindexed_filtering_retrieve)
        self._pay(1)

    def count(self, exact: bool, condition: Any, indexed: Collection[str]) -> None:
        if exact and self.settings.search_allow_exact is False:
            raise Refusal("Exact search disabled!. Help: Set exact=false.")
        self._filter(condition, indexed, self.settings.unindexed_filtering_retrieve)
        self._pay(1)

    def ids(self, number: int) -> None:
        self._pay(number)

    def written(self, number: int) -> None:
        self._limit(number, self.settings.upsert_max_batchsize, "upsert limit")

    def removed(self, condition: Any, indexed: Collection[str]) -> None:
        self._filter(condition, indexed, self.settings.unindexed_filtering_update)

    def _stage(self, stage: Any, indexed: Collection[str], *, scans: bool) -> None:
        for inner in stage.prefetch or []:
            self._stage(inner, indexed, scans=True)
        self._limit(stage.limit, self.settings.max_query_limit, "limit")
        self._filter(stage.filter, indexed, self.settings.unindexed_filtering_retrieve)
        if self.settings.search_allow_exact is False:
            if stage.params is not None and stage.params.exact:
                raise Refusal("Exact search disabled!. Help: Set exact=false.")
            if scans and stage.using == "multivector":
                raise Refusal(
                    "Fullscan forbidden on 'multivector' \u2013 vector indexing is disabled "
                    "(hnsw_config.m = 0). Help: Enable vector indexing or use a prefetch query "
                    "before rescoring"
                )

    def _filter(self, condition: Any, indexed: Collection[str], unindexed: bool | None) -> None:
        keys = [*keys_read(condition)]
        missing = [key for key in keys if key is not None and key not in indexed]
        if unindexed is False and missing:
            raise Refusal(
                f'Index required but not found for "{missing[0]}" of one of the following types: '
                "[keyword]. Help: Create an index for this key or use a different filter."
            )
        most = self.settings.filter_max_conditions
        if most is not None and len(keys) > most:
            raise Refusal(
                f"Filter condition limit reached ({len(keys)} > {most}). Help: Reduce the amount "
                "of conditions of your filter."
            )

    def _limit(self, value: int | None, most: int | None, name: str) -> None:
        if most is not None and value is not None and value > most:
            raise Refusal(
                f'Limit exceeded {value} > {most} for "{name}". Help: Reduce the "{name}" '
                f"parameter to or below {most}."
            )

    def _pay(self, cost: int) -> None:
        capacity = self.settings.read_rate_limit
        if capacity is None or self.tokens is None:
            return
        if cost > capacity:
            raise Refusal(
                "Rate limiting exceeded: request larger than rate limiter capacity, please try to "
                "split your request",
                429,
            )
        if cost > self.tokens:
            self.tokens = capacity  # as if the seconds had passed
            raise Refusal("Rate limiting exceeded: Read rate limit exceeded", 429, 1)
        self.tokens -= cost


def _cost(stage: Any) -> int:
    own = 1 + sum(1 for _ in keys_read(stage.filter))
    return own + sum(map(_cost, stage.prefetch or []))


def keys_read(condition: Any, prefix: str = "") -> Iterator[str | None]:
    """The payload keys that a filter reads, once for each of its conditions; None reads none."""
    match condition:
        case models.Filter():
            for part in (condition.must, condition.should, condition.must_not):
                for one in part if isinstance(part, list) else [part]:
                    yield from keys_read(one, prefix)
        case models.FieldCondition(key=key):
            yield prefix + key
        case models.IsEmptyCondition(is_empty=models.PayloadField(key=key)):
            yield prefix + key
        case models.NestedCondition(nested=models.Nested(key=key, filter=inner)):
            yield from keys_read(inner, f"{prefix}{key}[].")
        case models.HasIdCondition():
            yield None
