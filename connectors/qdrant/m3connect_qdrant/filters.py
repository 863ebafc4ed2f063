"""Filters, and the facts about a payload that they look at.

Qdrant's own conditions on a payload differ from :func:`m3connect.filters.matches`: a path goes
through a list only where the filter says so, integers and floats never equal each other, numbers
are compared as doubles that may have lost a bit in storage, a date may be written in more ways. So
each point carries, beside its payload, the facts that filters ask for, by path (:func:`facts`), and
a condition looks at these alone (:func:`compile_filter`). The meaning is then the same on every
engine, and an index on a fact makes it fast.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from m3connect.connecting.facts import token, walk
from m3connect.contract import RESERVED_PREFIX, FieldKind
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
    Scalar,
    as_filter,
    parse_date,
)
from m3connect_qdrant.errors import NAME

RESERVED = RESERVED_PREFIX
"""The one payload key that this connector adds."""
DEEPEST = 30
"""Levels that a message to a server may nest, of a payload or a filter."""

Json = dict[str, Any]
"""A part of a request, as Qdrant's REST interface documents it."""
Facts = dict[str, dict[str, list[Any]]]

_KEYWORD = "keyword"
_NUMBERS = {
    "numbers": "float",
    "fine[].high": "float",
    # Nothing is found by it, but a strict server wants an index on all that a filter reads.
    "fine[].low": "float",
}
_INDEXED: Mapping[FieldKind, Mapping[str, str]] = {
    "keyword": {"values": _KEYWORD},
    "boolean": {"values": _KEYWORD},
    "integer": {"values": _KEYWORD, **_NUMBERS},
    "float": {"values": _KEYWORD, **_NUMBERS},
    "datetime": {"values": _KEYWORD, "dates": "datetime"},
}


# --------------------------------------------------------------------------------------- facts


def facts(payload: Mapping[str, Any]) -> Facts:
    """What filters ask of a payload, by path.

    ``values`` says what is there, for equality and existence. ``dates`` are UTC instants.
    ``numbers`` are those that Qdrant stores and compares exactly; the others are in ``fine``, as
    two numbers that it does (see :func:`_fine`).

    >>> facts({"year": 2024, "author": [{"name": "Bo"}, {"name": "Li"}]})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'year': {'values': ['np80afa$'], 'numbers': [2024]}, 'author': {'values': ['o']},
    'author.name': {'values': ['sBo', 'sLi']}}
    """
    distinct: dict[tuple[str, str], dict[Any, None]] = {}
    for path, value in walk(payload):
        for fact, entry in _known(value):
            distinct.setdefault((path, fact), {})[entry] = None
    by_path: Facts = {}
    for (path, fact), values in distinct.items():
        listed = [
            {"high": entry[0], "low": entry[1]} if fact == "fine" else entry for entry in values
        ]
        by_path.setdefault(_quoted(path), {})[fact] = listed
    return by_path


def indexes(field: str, kind: FieldKind) -> dict[str, str]:
    """The payload indexes that make filters on a field fast, by their keys."""
    return {_key(field, fact): schema for fact, schema in _INDEXED[kind].items()}


def is_stored_exactly(number: float) -> bool:
    """Whether Qdrant gives a number back as it was.

    It keeps payloads as JSON and reads a float as its digits times a power of ten, in doubles;
    both are exact up to 2**53 and 10**22.
    """
    if isinstance(number, int):
        return -(2**63) <= number < 2**63
    _, digits, exponent = Decimal(repr(number)).as_tuple()
    assert isinstance(exponent, int), "JSON has no NaN and no infinity"
    return int("".join(map(str, digits))) <= 2**53 and abs(exponent) <= 22


def _known(value: Any) -> Iterable[tuple[str, Any]]:
    yield "values", token(value)
    if isinstance(value, str):
        moment = parse_date(value)
        if moment is not None:
            yield "dates", moment.isoformat()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if is_stored_exactly(value) and (isinstance(value, float) or abs(value) <= 2**53):
            yield "numbers", value
        else:
            yield "fine", _fine(value)


def _key(field: str, fact: str) -> str:
    # Quoted only where it must be: so Qdrant spells the keys of its indexes.
    path = _quoted(field)
    path = path if re.fullmatch(r"[\w-]+", path) else f'"{path}"'
    return f"{RESERVED}.facts.{path}.{fact}"


@lru_cache(maxsize=1024)  # every record has the same few
def _quoted(path: str) -> str:
    # Qdrant's paths have no escape for a double quote, and an index is a folder of that name.
    return quote(path.encode(errors="surrogatepass"), safe="")


# ---------------------------------------------------------------------------------- conditions


def compile_filter(condition: AnyFilter) -> Json:
    """The same condition in Qdrant's terms, on the facts.

    Raises:
        InputError: it is no filter.
        InvalidFilter: it is nested deeper than a message to a server may be.
    """
    return _compile(as_filter(condition), DEEPEST)


def _compile(condition: Filter, levels: int) -> Json:
    """With so many more of and, or, not within each other."""
    if levels == 0:
        raise InvalidFilter(
            f"more than {DEEPEST} and, or, not within each other; a server takes no more",
            connector=NAME,
            operation="filter",
        )
    match condition:
        case Eq(field, value):
            return _any_of(field, [value])
        case In(field, values):
            return _any_of(field, values)
        case Range() if condition.is_date:
            within = {name: moment.isoformat() for name, moment in condition.instants.items()}
            return {"must": [{"key": _key(condition.field, "dates"), "range": within}]}
        case Range():
            return _number_within(condition.field, condition.bounds)
        case Exists(field):
            return {"must_not": [{"is_empty": {"key": _key(field, "values")}}]}
        case And(parts):
            return {"must": [_compile(part, levels - 1) for part in parts]}
        case Or(parts):
            # To Qdrant an empty `should` is no condition at all.
            either = [_compile(part, levels - 1) for part in parts]
            return {"should": either} if either else _nothing()
        case Not(part):
            return {"must_not": [_compile(part, levels - 1)]}
    raise InputError(f"{condition!r} is no filter")


def _nothing() -> Json:
    return {"must": [{"has_id": []}]}


def _any_of(field: str, values: Iterable[Scalar]) -> Json:
    tokens = [token(value) for value in values]
    if not tokens:
        return _nothing()
    return {"must": [{"key": _key(field, "values"), "match": {"any": tokens}}]}


def _number_within(field: str, bounds: Mapping[str, Any]) -> Json:
    doubles = {name: _double_at(name, bound) for name, bound in bounds.items()}
    pairs = {name: _fine(bound) for name, bound in bounds.items()}
    near = {f"{name[:2]}e": high for name, (high, _) in pairs.items()}
    beyond = [_beyond(name, *pair) for name, pair in pairs.items()]
    fine = [
        # Follows from the other, but an index answers it, so that few payloads are read.
        _in_range(_key(field, "fine[].high"), **near),
        {"nested": {"key": _key(field, "fine"), "filter": {"must": beyond}}},
    ]
    return {"should": [_in_range(_key(field, "numbers"), **doubles), {"must": fine}]}


def _beyond(name: str, high: float, low: float) -> Json:
    """On one side of a bound, in the order of pairs."""
    further = _in_range("high", **{name[:2]: high})
    tied = {"must": [_in_range("high", gte=high, lte=high), _in_range("low", **{name: low})]}
    return {"should": [further, tied]}


def _in_range(key: str, **bounds: float) -> Json:
    return {"key": key, "range": bounds}


def _fine(number: float) -> tuple[float, float]:
    """A pair that orders like the number: exactly so for all doubles and integers of 64 bits.

    The bits of a double order like an integer. The upper half of them is the first of the pair;
    the lower half, and what an integer has beyond that double, is the second.
    """
    below = _double_below(number)
    (bits,) = struct.unpack(">q", struct.pack(">d", below))
    order = bits if bits >= 0 else -(bits & (2**63 - 1))
    rest = min(number - int(below), 2047) if isinstance(number, int) else 0
    return float(order >> 32), float((order & (2**32 - 1)) * 2048 + rest)


def _double_at(name: str, bound: float) -> float:
    """The double that bounds the same doubles as ``bound`` does."""
    return _double_below(bound) if name in {"gt", "lte"} else _double_above(bound)


def _double_below(number: float) -> float:
    """The largest double that is not above an integer or float."""
    nearest = _nearest_double(number)
    below = nearest if nearest <= number else math.nextafter(nearest, -math.inf)
    return max(below, -sys.float_info.max)


def _double_above(number: float) -> float:
    return -_double_below(-number)


def _nearest_double(number: float) -> float:
    """As ``float()``, but an integer beyond the largest double becomes that."""
    return float(max(-sys.float_info.max, min(number, sys.float_info.max)))
