"""Why a search found nothing, and which fields of a filter no passage has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from m3connect.contract import Connector
from m3connect.filters import (
    EVERY_TENANT,
    And,
    AnyFilter,
    Eq,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Range,
    as_filter,
)
from m3connect.types import Leg


def why_no_hits(
    connector: Connector,
    condition: AnyFilter | None = None,
    *,
    offset: int = 0,
    min_scores: Mapping[Leg, float] | None = None,
) -> str:
    """One line: what the collection holds, and what the filter leaves of it.

    Args:
        connector: the collection.
        condition: the filter.
        offset: how many of the best hits were left out.
        min_scores: by leg, the score that a hit had to have at least.

    >>> from m3connect import connect
    >>> from m3connect.contract import CollectionSchema
    >>> with connect("memory", collection="notes") as notes:
    ...     notes.ensure(CollectionSchema(2, False, None))
    ...     why_no_hits(notes)
    'no hits: the collection is empty'
    """
    total = connector.count(EVERY_TENANT)
    if total == 0:
        return "no hits: the collection is empty"
    if offset:
        return f"no hits after the first {offset}"
    reached = " and ".join(f"{leg}={score:g}" for leg, score in (min_scores or {}).items())
    if condition is None and reached:
        return f"no hits: none that was found reaches {reached} (--min-score)"
    if condition is None:
        return f"no hits: none of {total} passages shares anything with the query"
    left = connector.count(condition)
    if left and reached:
        return f"no hits: the filter leaves {left} of {total} passages, none of them reaches {reached} (--min-score)"
    if left:
        return f"no hits: the filter leaves {left} of {total} passages, none like the query"
    return f"no hits: the filter leaves none of {total} passages"


def unknown_fields(connector: Connector, condition: AnyFilter) -> tuple[str, ...]:
    """The fields of a filter that no passage of the collection has."""
    return tuple(
        field for field in fields_of(condition) if not connector.count(EVERY_TENANT & Exists(field))
    )


def fields_of(condition: AnyFilter) -> tuple[str, ...]:
    """The fields that a filter asks for, each once.

    >>> fields_of('lang == "de" and not (year > 3 or lang exists)')
    ('lang', 'year')
    """
    return tuple(dict.fromkeys(_fields(as_filter(condition))))


def _fields(condition: Filter) -> Iterator[str]:
    match condition:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _fields(part)
        case Not(part):
            yield from _fields(part)
        case Eq(field) | In(field) | Range(field) | Exists(field):
            yield field
