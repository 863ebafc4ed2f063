"""Filters as Milvus expressions.

An expression holds hexadecimal facts and hashes only, never a field name or a value from outside,
so nothing in a filter can break out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from m3connect.connecting.facts import Order, ordered_bounds
from m3connect.connecting.tenants import named
from m3connect.errors import InputError
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
from m3connect_milvus.storing import facts
from m3connect_milvus.storing.facts import CODES, VALUES, FactStore
from m3connect_milvus.storing.keys import digest, one_of
from m3connect_milvus.storing.layout import Layout
from m3connect_milvus.storing.prefixes import (
    GREATEST,
    LEAST,
    cover,
    date_characters,
    number_characters,
)

ALWAYS, NEVER = '(id != "")', '(id == "")'


def expression(where: AnyFilter | None, layout: Layout) -> str:
    """The Milvus expression of a filter; empty for None.

    Raises:
        InputError: not a filter.
    """
    condition = as_filter(where)
    if condition is None:
        return ""
    text = _node(condition, layout.store)
    # So that the others are not searched.
    partitions = [digest(value) for value in named(condition, layout.partition_key) or ()]
    return f"{one_of('partition', partitions)} and {text}" if partitions else text


def _node(condition: Filter, store: FactStore) -> str:
    match condition:
        case Eq(field, value):
            return store.any_of(VALUES, [facts.value_fact(field, value)])
        case In(field, values):
            codes = [facts.value_fact(field, value) for value in values]
            return store.any_of(VALUES, codes) if codes else NEVER
        case Exists(field):
            return store.any_of(VALUES, [facts.value_path(field)])
        case Range():
            codes = _range(condition)
            return store.any_of(CODES, codes) if codes else NEVER
        case And(parts):
            return _join(" and ", parts, store) if parts else ALWAYS
        case Or(parts):
            return _join(" or ", parts, store) if parts else NEVER
        case Not(part):
            return f"not ({_node(part, store)})"
    raise InputError(f"{condition!r} is no filter")


def _join(word: str, parts: Sequence[Filter], store: FactStore) -> str:
    return f"({word.join(_node(part, store) for part in parts)})"


_FOLLOWING: Mapping[Order, Callable[[str], str]] = {
    "number": number_characters,
    "date": date_characters,
}


def _range(condition: Range) -> list[str]:
    """The prefixes of the facts of all values within the bounds."""
    order, bounds = ordered_bounds(condition)
    prefixes = cover(
        bounds.get("gt") or bounds.get("gte", LEAST),
        bounds.get("lt") or bounds.get("lte", GREATEST),
        _FOLLOWING[order],
        with_low="gte" in bounds,
        with_high="lte" in bounds,
    )
    return [facts.order_path(condition.field, order) + prefix for prefix in prefixes]
