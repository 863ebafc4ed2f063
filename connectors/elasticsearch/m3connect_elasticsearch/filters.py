"""Filters on payloads that need no mapping: every value of a payload becomes a term of one field.

A term is a path, the kind of the value and the value: Elasticsearch finds terms by equality and by
range, and that is all a filter needs. Numbers and dates are written so that they sort as they
compare, exactly, whatever their size. No payload field gets a mapping, so the number of fields is
not limited, and a field may hold a number in one record and a string in the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from m3connect.errors import InputError, InvalidFilter
from m3connect.filters import And, Eq, Exists, Filter, In, Not, Or, Range, Scalar, parse_date

FIELD = "facts"
Body = dict[str, Any]

_NUMBER, _DATE, _STRING, _LONG_STRING, _BOOLEAN, _EXISTS = "ndshbe"
_AFTER = "3"
"""Follows the first character of every sortable number."""
_LONGEST_VALUE = 64
_LONGEST_PATH = 200
_TERMS_PER_QUERY = 65_536
_NESTING = 28
"""Of bool queries: Elasticsearch takes 30, and a search needs two for itself."""


def facts(payload: Mapping[str, Any]) -> list[str]:
    """The terms of a payload, each once, sorted.

    >>> facts({"year": 2020, "tags": ["new", {"x": True}]})
    ['4:tagse', '4:tagssnew', '4:yeare', '4:yearn28000000afc8', '6:tags.xb1', '6:tags.xe']
    """
    return sorted({fact for path, value in _members(payload, "") for fact in _of(path, value)})


def compile_filter(condition: Filter) -> Body:
    """The Elasticsearch query that finds the same records as the filter.

    >>> compile_filter(~Eq("lang", "de"))
    {'bool': {'must_not': [{'term': {'facts': '4:langsde'}}]}}

    Raises:
        InvalidFilter: it is nested deeper than Elasticsearch takes.
    """
    try:
        return _compile(condition, 0)
    except RecursionError as error:
        raise _too_deep() from error


# --------------------------------------------------------------------------------------- writing


def _of(path: str, value: Any) -> Iterator[str]:
    """The terms of a value at a path, as :func:`m3connect.filters.values_at` walks it."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _of(path, item)
    elif value is not None:
        yield _term(path, _EXISTS)
        if isinstance(value, Mapping):
            for inner, member in _members(value, f"{path}."):
                yield from _of(inner, member)
        else:
            yield _leaf(path, value)
            moment = parse_date(value) if isinstance(value, str) else None
            if moment is not None:
                yield _term(path, _DATE, _sortable(_microseconds(moment)))


def _members(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The members that a dotted path can reach."""
    for key, member in value.items():
        if key and "." not in key:
            yield prefix + key, member


def _leaf(path: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return _term(path, _BOOLEAN, "1" if value else "0")
    if isinstance(value, str):
        if len(value.encode()) > _LONGEST_VALUE:
            return _term(path, _LONG_STRING, _digest(value))
        return _term(path, _STRING, value)
    return _term(path, _NUMBER, _sortable(value))


def _term(path: str, kind: str, value: str = "") -> str:
    """Unambiguous, because a path is preceded by its length or replaced by a digest."""
    name = f"{len(path)}:{path}" if len(path.encode()) <= _LONGEST_PATH else f"#{_digest(path)}"
    return name + kind + value


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


_COMPLEMENT = str.maketrans("0123456789abcdef", "fedcba9876543210")


def _sortable(number: float) -> str:
    """A string that sorts as the number does and is the same for equal numbers.

    Sign, then the power of two, then the binary digits in hexadecimal without trailing zeros.

    >>> _sortable(1) == _sortable(1.0)
    True
    >>> numbers = [-(10**30), -2.5, -2, 0, 5e-324, 0.1, 2**53, 2**53 + 1, 1e300]
    >>> sorted(numbers, key=_sortable) == numbers
    True
    """
    if number == 0:
        return "1"
    numerator, denominator = abs(number).as_integer_ratio()
    size = numerator.bit_length()
    power = size - denominator.bit_length()
    fraction = f"{numerator << -size % 4:x}".rstrip("0")
    digits = f"{power + 2**31:08x}{fraction}"
    return "2" + digits if number > 0 else "0" + digits.translate(_COMPLEMENT) + "~"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


# ------------------------------------------------------------------------------------- searching


def _compile(condition: Filter, depth: int) -> Body:
    if depth > _NESTING:
        raise _too_deep()
    match condition:
        case Eq(field, value):
            return {"term": {FIELD: _leaf(field, value)}}
        case Exists(field):
            return {"term": {FIELD: _term(field, _EXISTS)}}
        case In(field, values):
            return _any_of(sorted({_leaf(field, value) for value in values}))
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
    parts: list[Body] = [{"terms": {FIELD: terms[at : at + _TERMS_PER_QUERY]}} for at in starts]
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
    if condition.is_date:
        kind = _DATE
        bounds = {n: _sortable(_microseconds(at)) for n, at in condition.instants.items()}
    else:
        kind = _NUMBER
        bounds = {
            n: _sortable(at) for n, at in condition.bounds.items() if isinstance(at, int | float)
        }
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
