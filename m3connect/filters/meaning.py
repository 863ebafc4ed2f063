"""What a filter means: the definition in plain Python that every backend is held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3connect.errors import InputError
from m3connect.filters.nodes import (
    And,
    Eq,
    EveryTenant,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Range,
    Scalar,
    parse_date,
)


def values_at(payload: Any, path: str) -> Iterator[Any]:
    """Every non-null leaf at a dotted path, lists flattened.

    >>> list(values_at({"a": [{"b": 1}, {"b": [2, None]}]}, "a.b"))
    [1, 2]
    """
    yield from _walk(payload, path.split("."))


def _walk(value: Any, parts: list[str]) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item, parts)
    elif not parts:
        if value is not None:
            yield value
    elif isinstance(value, Mapping) and parts[0] in value:
        yield from _walk(value[parts[0]], parts[1:])


def matches(condition: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether a payload meets a condition: the definition every backend is held to.

    >>> matches(And((Eq("lang", "de"), Range("year", gte=2020))), {"lang": ["de"], "year": 2021})
    True
    >>> matches(Not(Eq("lang", "de")), {"year": 2021})
    True
    """
    match condition:
        case Eq(field, value):
            return any(_same(value, stored) for stored in values_at(payload, field))
        case In(field, values):
            return any(_same(v, stored) for stored in values_at(payload, field) for v in values)
        case Range(field):
            return any(_within(condition, stored) for stored in values_at(payload, field))
        case Exists(field):
            return any(True for _ in values_at(payload, field))
        case And(parts):
            return all(matches(part, payload) for part in parts)
        case Or(parts):
            return any(matches(part, payload) for part in parts)
        case Not(part):
            return not matches(part, payload)
        case EveryTenant():
            return True
    raise InputError(f"{condition!r} is no filter")


def _same(value: Scalar, stored: Any) -> bool:
    if isinstance(value, bool) or isinstance(stored, bool):
        return value is stored
    if isinstance(value, str):
        return isinstance(stored, str) and value == stored
    return isinstance(stored, int | float) and value == stored


def _within(condition: Range, stored: Any) -> bool:
    value: Any
    bounds: Mapping[str, Any]
    if condition.is_date:
        value = parse_date(stored) if isinstance(stored, str) else None
        bounds = condition.instants
        if value is None:
            return False
    else:
        if isinstance(stored, bool) or not isinstance(stored, int | float):
            return False
        value, bounds = stored, condition.bounds
    return (
        ("gt" not in bounds or value > bounds["gt"])
        and ("gte" not in bounds or value >= bounds["gte"])
        and ("lt" not in bounds or value < bounds["lt"])
        and ("lte" not in bounds or value <= bounds["lte"])
    )
