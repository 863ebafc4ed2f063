"""Filters on payloads: one small language in three forms, and its meaning in plain Python.

- Python: ``(F("lang") == "de") & (F("year") >= 2020)``
- text: ``lang == "de" and year >= 2020`` (:func:`parse`)
- nodes: ``And((Eq("lang", "de"), Range("year", gte=2020)))``

Whatever takes a filter takes its text, too (:data:`AnyFilter`, :func:`as_filter`).

Meaning, the same on every backend (:func:`matches` is the definition):

- A field is a dotted path. Through a list it means any element; a field may have many values.
- ``Eq`` is equality of the whole value and of its type: ``1 == 1.0`` but ``1 != True != "1"``.
- ``Range`` compares numbers with numbers and dates (ISO 8601 strings) with dates; other values do
  not match. A date without a zone is UTC.
- ``Exists``: there is a value other than null. An empty list has none.
- ``Not`` is the complement: records that lack the field match ``lang != "de"``.

nodes.py    the conditions, and F
meaning.py  matches: the definition
text.py     parse: the text form
"""

from m3connect.filters.meaning import matches, values_at
from m3connect.filters.nodes import (
    EVERY_TENANT,
    And,
    Bound,
    Eq,
    EveryTenant,
    Exists,
    F,
    Filter,
    In,
    Not,
    Or,
    Range,
    Scalar,
    parse_date,
)
from m3connect.filters.text import AnyFilter, as_filter, parse

__all__ = [
    "EVERY_TENANT",
    "And",
    "AnyFilter",
    "Bound",
    "Eq",
    "EveryTenant",
    "Exists",
    "F",
    "Filter",
    "In",
    "Not",
    "Or",
    "Range",
    "Scalar",
    "as_filter",
    "matches",
    "parse",
    "parse_date",
    "values_at",
]
