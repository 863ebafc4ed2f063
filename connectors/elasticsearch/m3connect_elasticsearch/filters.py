"""Filters on payloads that need no mapping: every value of a payload becomes a term of one field.

A term is a path, what is said of it (exists, equals, is ordered as a number or a date) and the value:
Elasticsearch finds terms by equality and by range, and that is all a filter needs. Numbers and
dates are written so that they sort as they compare, exactly, whatever their size. No payload field
gets a mapping, so the number of fields is not limited, and a field may hold a number in one record
and a string in the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3connect.connecting.facts import Order, digest, ordered, ordered_bounds, token, walk
from m3connect.errors import InputError, InvalidFilter
from m3connect.filters import (
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

FIELD = "facts"
Body = dict[str, Any]

_EXISTS, _EQUALS = "e="
_ORDERS: Mapping[Order, str] = {"number": "n", "date": "d"}
_AFTER = "~"
"""Follows the first character of every number and date."""
_LONGEST_PATH = 200
_TERMS_PER_QUERY = 65_536
_NESTING = 28
"""Of bool queries: Elasticsearch takes 30, and a search needs two for itself."""


def facts(payload: Mapping[str, Any]) -> list[str]:
    """The terms of a payload, each once, sorted.

    >>> facts({"year": 2020, "tags": ["new", {"x": True}]})
    ... # doctest: +NORMALIZE_WHITESPACE
    ['4:tags=o', '4:tags=snew', '4:tagse', '4:year=np80af9$', '4:yeare', '4:yearnp80af9$',
     '6:tags.x=b1', '6:tags.xe']
    """
    return sorted({fact for path, value in walk(payload) for fact in _of(path, value)})


def compile_filter(condition: AnyFilter) -> Body:
    """The Elasticsearch query that finds the same records as the filter.

    >>> compile_filter(~Eq("lang", "de"))
    {'bool': {'must_not': [{'term': {'facts': '4:lang=sde'}}]}}

    Raises:
        InvalidFilter: it is nested deeper than Elasticsearch takes.
    """
    try:
        return _compile(as_filter(condition), 0)
    except RecursionError as error:
        raise _too_deep() from error


# --------------------------------------------------------------------------------------- writing


def _of(path: str, value: Any) -> Iterator[str]:
    """The terms of a value at a path."""
    yield _term(path, _EXISTS)
    yield _term(path, _EQUALS, token(value))
    if (sortable := ordered(value)) is not None:
        order, text = sortable
        yield _term(path, _ORDERS[order], text)


def _term(path: str, kind: str, value: str = "") -> str:
    """Unambiguous, because a path is preceded by its length or replaced by a digest."""
    size = len(path.encode(errors="surrogatepass"))
    name = f"{len(path)}:{path}" if size <= _LONGEST_PATH else f"#{digest(path)}"
    return name + kind + value


# ------------------------------------------------------------------------------------- searching


def _compile(condition: Filter, depth: int) -> Body:
    if depth > _NESTING:
        raise _too_deep()
    match condition:
        case Eq(field, value):
            return {"term": {FIELD: _term(field, _EQUALS, token(value))}}
        case Exists(field):
            return {"term": {FIELD: _term(field, _EXISTS)}}
        case In(field, values):
            return _any_of(sorted({_term(field, _EQUALS, token(value)) for value in values}))
        case Range():
            return {"range": {FIELD: _interval(condition)}}
        case Not(Not(part)):
            return _compile(part, depth)
        case Not(part):
            return {"bool": {"must_not": [_compile(part, depth + 1)]}}
        case And():
            return {"bool": {"filter": [_compile(p, depth + 1) for p in _flat(condition)]}}
        case Or():
            return _or([_compile(part, depth + 1) for part in _flat(condition)])
    raise InputError(f"{condition!r} is no filter")


def _any_of(terms: list[str]) -> Body:
    starts = range(0, len(terms), _TERMS_PER_QUERY)
    parts: list[Body] = [
        {"terms": {FIELD: terms[start : start + _TERMS_PER_QUERY]}} for start in starts
    ]
    return parts[0] if len(parts) == 1 else _or(parts)


def _or(parts: list[Body]) -> Body:
    if not parts:
        return {"match_none": {}}
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def _flat(condition: And | Or) -> Iterator[Filter]:
    """The parts of ``a & b & c``, which Python nests, as one list."""
    for part in condition.parts:
        if isinstance(part, And | Or) and type(part) is type(condition):
            yield from _flat(part)
        else:
            yield part


def _interval(condition: Range) -> dict[str, str]:
    order, bounds = ordered_bounds(condition)
    kind = _ORDERS[order]
    interval = {name: _term(condition.field, kind, bound) for name, bound in bounds.items()}
    if not {"gt", "gte"} & interval.keys():
        interval["gte"] = _term(condition.field, kind)
    if not {"lt", "lte"} & interval.keys():
        interval["lt"] = _term(condition.field, kind, _AFTER)
    return interval


def _too_deep() -> InvalidFilter:
    return InvalidFilter(
        f"the filter alternates between and, or and not more than {_NESTING} levels deep; "
        "Elasticsearch takes no more",
        connector="elasticsearch",
        operation="filter",
    )
