"""A payload as facts, so that every filter is a test whether a record has one of some facts.

Milvus compares JSON loosely: types mix, lists are no "any element", and engines differ. Facts are
short strings made here, in one way for every engine: ``path`` and ``path + value`` of each value
(equality and existence), and ``path + code`` of each number and date (ranges).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from pymilvus import DataType

from m3connect.errors import InputError
from m3connect.filters import parse_date
from m3connect_milvus.ordering import GREATEST, LEAST, date_code, number_code

VALUES = "facts"
"""The field for equality and existence."""
CODES = "ordered"
"""The field for ranges."""
MOST = 4096
"""Elements of a Milvus array (Milvus documentation, limits of the Array type)."""

_PATH_DIGITS, _VALUE_DIGITS = 12, 16


@dataclass(frozen=True, slots=True)
class Facts:
    """What filters can find out about one payload.

    Args:
        values: a fact for each value at each path.
        codes: a fact for each number and each date at each path.
    """

    values: frozenset[str]
    codes: frozenset[str]


def facts(payload: Mapping[str, Any]) -> Facts:
    """The facts of a payload.

    Raises:
        InputError: it holds an integer of more than 2048 bits, which has no code.
    """
    values: set[str] = set()
    codes: set[str] = set()
    for path, value in _leaves(payload, ""):
        values.add(value_fact(path, value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            code = number_code(value)
            if code in {LEAST, GREATEST}:
                raise InputError(f"{path!r} is an integer of more than 2048 bits")
            codes.add(number_path(path) + code)
        elif isinstance(value, str) and (instant := parse_date(value)) is not None:
            codes.add(date_path(path) + date_code(instant))
    return Facts(frozenset(values), frozenset(codes))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value that a filter can reach, with its path; an object is a value of its own too."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, path)
    elif isinstance(value, Mapping):
        if path:
            yield path, value
        for key, item in value.items():
            # A dotted path cannot name such keys.
            if key and "." not in key:
                yield from _leaves(item, f"{path}.{key}" if path else key)
    elif value is not None:
        yield path, value


def value_path(path: str) -> str:
    """What the facts of all values at a path begin with."""
    return _digest(f"v{path}", _PATH_DIGITS)


def value_fact(path: str, value: Any) -> str:
    """The fact that a path has a value; equal for 1 and 1.0, different for 1, True and "1"."""
    return value_path(path) + _digest(_canonical(value), _VALUE_DIGITS)


def number_path(path: str) -> str:
    """What the facts of all numbers at a path begin with."""
    return _digest(f"n{path}", _PATH_DIGITS)


def date_path(path: str) -> str:
    """What the facts of all dates at a path begin with."""
    return _digest(f"d{path}", _PATH_DIGITS)


def _canonical(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def _digest(text: str, digits: int) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=digits // 2).hexdigest()


# ------------------------------------------------------------------- how an engine keeps the facts


class TextFacts:
    """Facts as one text, tested with LIKE: fast in Milvus Lite, which tests arrays row by row."""

    field_type = MappingProxyType({"datatype": DataType.VARCHAR, "max_length": 1_000_000})

    @staticmethod
    def store(field: str, found: Collection[str]) -> str:
        """The field's value."""
        del field
        return f"|{'|'.join(sorted(found))}|"

    @staticmethod
    def any_of(field: str, wanted: Collection[str]) -> str:
        """The expression that is true of records with a fact that has one of these prefixes."""
        tests = " or ".join(f'{field} like "%|{prefix}%"' for prefix in wanted)
        return f"({tests})"


class ArrayFacts:
    """Facts as an array of their prefixes, hashed: tested by membership, which a server indexes."""

    field_type = MappingProxyType(
        {"datatype": DataType.ARRAY, "element_type": DataType.INT64, "max_capacity": MOST}
    )

    @staticmethod
    def store(field: str, found: Collection[str]) -> list[int]:
        """The field's value."""
        return sorted(_hash(prefix) for prefix in prefixes(field, found))

    @staticmethod
    def any_of(field: str, wanted: Collection[str]) -> str:
        """The expression that is true of records with a fact that has one of these prefixes."""
        return f"array_contains_any({field}, {sorted(map(_hash, wanted))})"


FactStore = type[TextFacts] | type[ArrayFacts]


def prefixes(field: str, found: Collection[str]) -> set[str]:
    """Every prefix of the given facts that a filter may ask for."""
    if field == VALUES:
        ends = (_PATH_DIGITS, _PATH_DIGITS + _VALUE_DIGITS)
        return {fact[:end] for fact in found for end in ends}
    return {fact[:end] for fact in found for end in range(_PATH_DIGITS + 1, len(fact) + 1)}


def _hash(prefix: str) -> int:
    """63 bits, so that it is a positive INT64."""
    return int.from_bytes(blake2b(prefix.encode(), digest_size=8).digest()) >> 1
