"""Values of files, tables and Python as JSON: what is converted, and what no payload can hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np

DEPTH = 64
"""How deep metadata may be nested; databases take 100 or less, Python's json about 500."""


def json_value(value: Any) -> Any:
    """A value of Python, Arrow or a file as JSON.

    ========================  =================================================="""
    match value:
        case Enum():
            return json_value(value.value)
        case np.datetime64():
            return _moment(value)
        case np.timedelta64():  # its number alone would not say of what
            return value
        case np.ndarray() if value.dtype.kind in "mM":
            return [json_value(item) for item in value] if value.ndim else json_value(value[()])
        case np.generic() | np.ndarray():
            return json_value(value.tolist())
        case date() | time():  # a datetime is a date; pandas' NaT is one that does not equal itself
            return value.isoformat() if value == value else None  # noqa: PLR0124
        case Decimal():
            number = float(value)
            return number if not value.is_finite() or Decimal(str(number)) == value else str(value)
        case UUID():
            return str(value)
        case Mapping():
            return {key: json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case _:
            return value


def _moment(value: np.datetime64) -> Any:
    """As ISO 8601 with all its digits; itself where Python's calendar ends, so that it is a fault."""
    short = value.astype("datetime64[us]")
    if short != value and not np.isnat(value):
        return str(value)
    moment = short.item()
    return value if isinstance(moment, int) else json_value(moment)


def fault(metadata: Mapping[Any, Any]) -> str | None:
    """What of a document's metadata no payload can hold: the field and why; None if nothing.

    >>> fault({"a": {"b": [1, float("nan")]}})
    "metadata field 'a.b' holds nan, which is no number that JSON has"
    """
    # A stack, not recursion: the depth is what may be wrong.
    for name in metadata:
        if not isinstance(name, str):
            return f"metadata field {name!r} has a name that is no text"
        if why := _why_not(name):
            return f"the metadata has a field name that {why}"
    waiting: list[tuple[str, Any, int]] = [(name, item, 1) for name, item in metadata.items()]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > DEPTH:
            return f"metadata field {name.partition('.')[0]!r} is nested more than {DEPTH} deep"
        why = _why_not(value)
        if why:
            return f"metadata field {name!r} {why}"
        if isinstance(value, Mapping):
            for key, item in value.items():
                if not isinstance(key, str):
                    return f"metadata field {name!r} has the key {key!r}, which is no text"
                if why := _why_not(key):
                    return f"metadata field {name!r} has a key that {why}"
                waiting.append((f"{name}.{key}" if depth < DEPTH else name, item, depth + 1))
        elif isinstance(value, list | tuple):
            waiting += [(name, item, depth + 1) for item in value]
    return None


def _why_not(value: Any) -> str | None:
    match value:
        case None | bool() | Mapping() | list() | tuple():
            return None
        case int():
            # Beyond the 64 bits that databases count in, digits would be lost.
            return None if -(1 << 63) <= value < 1 << 63 else "is a whole number beyond 64 bits"
        case float():
            if value != value or value in {float("inf"), -float("inf")}:  # noqa: PLR0124 - NaN
                return f"holds {value}, which is no number that JSON has"
            return None
        case str():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                return f"is not valid unicode: {error.reason} at character {error.start + 1}"
            return "holds NUL characters" if "\0" in value else None
        case _:
            return f"holds a {type(value).__name__}, which JSON lacks"
