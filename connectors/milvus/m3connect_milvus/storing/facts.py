"""A payload as facts, so that every filter is a test whether a record has one of some facts.

Milvus compares JSON loosely: types mix, lists are no "any element", and engines differ. Facts are
short strings made here, in one way for every engine: ``path`` and ``path + value`` of each value
(equality and existence), and ``path + code`` of each number and date (ranges).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from pymilvus import DataType

from m3connect.connecting.facts import Order, digest, ordered, token, walk

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
    """The facts of a payload."""
    values: set[str] = set()
    codes: set[str] = set()
    for path, value in walk(payload):
        values.add(value_fact(path, value))
        if (sortable := ordered(value)) is not None:
            order, text = sortable
            codes.add(order_path(path, order) + text)
    return Facts(frozenset(values), frozenset(codes))


def value_path(path: str) -> str:
    """What the facts of all values at a path begin with."""
    return digest(f"v{path}", _PATH_DIGITS)


def value_fact(path: str, value: Any) -> str:
    """The fact that a path has a value; equal for 1 and 1.0, different for 1, True and "1"."""
    return value_path(path) + digest(token(value), _VALUE_DIGITS)


def order_path(path: str, order: Order) -> str:
    """What the facts of all numbers, or all dates, at a path begin with."""
    return digest(f"{order[0]}{path}", _PATH_DIGITS)


# ------------------------------------------------------------------- how an engine keeps the facts


class TextFacts:
    """Facts as one text, tested with LIKE: fast in Milvus Lite, which tests arrays row by row."""

    field_type = MappingProxyType({"datatype": DataType.VARCHAR, "max_length": 1_000_000})

    @staticmethod
    def store(field: str, values: Collection[str]) -> str:
        """The field's value."""
        del field
        return f"|{'|'.join(sorted(values))}|"

    @staticmethod
    def any_of(field: str, values: Collection[str]) -> str:
        """The expression that is true of records with a fact that has one of these prefixes."""
        tests = " or ".join(f'{field} like "%|{prefix}%"' for prefix in values)
        return f"({tests})"


class ArrayFacts:
    """Facts as an array of their prefixes, hashed: tested by membership, which a server indexes."""

    field_type = MappingProxyType(
        {"datatype": DataType.ARRAY, "element_type": DataType.INT64, "max_capacity": MOST}
    )

    @staticmethod
    def store(field: str, values: Collection[str]) -> list[int]:
        """The field's value."""
        return sorted(_hash(prefix) for prefix in prefixes(field, values))

    @staticmethod
    def any_of(field: str, values: Collection[str]) -> str:
        """The expression that is true of records with a fact that has one of these prefixes."""
        return f"array_contains_any({field}, {sorted(map(_hash, values))})"


FactStore = type[TextFacts] | type[ArrayFacts]


def prefixes(field: str, values: Collection[str]) -> set[str]:
    """Every prefix of the given facts that a filter may ask for."""
    if field == VALUES:
        ends = (_PATH_DIGITS, _PATH_DIGITS + _VALUE_DIGITS)
        return {fact[:end] for fact in values for end in ends}
    return {fact[:end] for fact in values for end in range(_PATH_DIGITS + 1, len(fact) + 1)}


def _hash(prefix: str) -> int:
    """63 bits, so that it is a positive INT64."""
    return int.from_bytes(blake2b(prefix.encode(), digest_size=8).digest()) >> 1
