"""What a filter means: the definition in plain Python that every backend is held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3connect.errors import InputError
from m3connect.filters.nodes import And, Eq, Exists, Filter, In, Not, Or, Range, Scalar, parse_date


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
            return any(_same(value, found) for found in values_at(payload, field))
        case In(field, values):
            return any(_same(v, found) for found in values_at(payload, field) for v in values)
        case Range(field):
            return any(_within(condition, found) for found in values_at(payload, field))
        case Exists(field):
            return any(True for _ in values_at(payload, field))
        case And(parts):
            return all(matches(part, payload) for part in parts)
        case Or(parts):
            return any(matches(part, payload) for part in parts)
        case Not(part):
            return not matches(part, payload)
    raise InputError(f"{condition!r} is no filter")


def _same(wanted: Scalar, found: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, str):
        return isinstance(found, str) and wanted == found
    return isinstance(found, int | float) and wanted == found


def _within(condition: Range, found: Any) -> bool:
    at: Any
    bounds: Mapping[str, Any]
    if condition.is_date:
        at = parse_date(found) if isinstance(found, str) else None
        bounds = condition.instants
        if at is None:
            return False
    else:
        if isinstance(found, bool) or not isinstance(found, int | float):
            return False
        at, bounds = found, condition.bounds
    return (
        ("gt" not in bounds or at > bounds["gt"])
        and ("gte" not in bounds or at >= bounds["gte"])
        and ("lt" not in bounds or at < bounds["lt"])
        and ("lte" not in bounds or at <= bounds["lte"])
    )
