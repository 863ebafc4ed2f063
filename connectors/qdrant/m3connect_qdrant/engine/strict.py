"""Strict mode: what a server lets one request to a collection do. Hosted clusters switch it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from qdrant_client import models


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one request may do; None is no limit.

    Args:
        results: the largest limit of a query, of its stages and of a page (``max_query_limit``).
        queries: in one message (``search_max_batchsize``).
        records: written in one request (``upsert_max_batchsize``).
        exact: whether every record may be compared, or counted (``search_allow_exact``): without
            it, MaxSim is refused as a stage of a query, since token vectors have no graph.
    """

    results: int | None = None
    queries: int | None = None
    records: int | None = None
    exact: bool = True

    @classmethod
    def of(cls, config: models.StrictModeConfigOutput | None) -> Self:
        """From a collection's settings.

        >>> from qdrant_client import models
        >>> Allowance.of(models.StrictModeConfigOutput(enabled=True, max_query_limit=100)).results
        100
        >>> Allowance.of(models.StrictModeConfigOutput(enabled=False, max_query_limit=100)).results
        """
        if config is None or not config.enabled:
            return cls()
        return cls(
            config.max_query_limit,
            config.search_max_batchsize,
            config.upsert_max_batchsize,
            config.search_allow_exact is not False,
        )
