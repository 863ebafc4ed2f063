"""Values of files as JSON: what is converted, and what no payload can hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

DEPTH = 64
"""How deep metadata may be nested; databases take 100 or less, Python's json about 500."""


def json_value(value: Any) -> Any:
    """Dates as ISO 8601; decimals as numbers where those keep all digits, else as text.

    What JSON lacks altogether stays as it is; :func:`fault` names it.
    """
    match value:
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case Decimal():
            number = float(value)
            return number if Decimal(str(number)) == value else str(value)
        case dict():
            return {key: json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case _:
            return value


def fault(metadata: Mapping[str, Any]) -> str | None:
    """What of a document's metadata no payload can hold: the field and why; None if nothing.

    >>> fault({"a": {"b": [1, float("nan")]}})
    "metadata field 'a.b' holds nan, which is no number that JSON has"
    """
    # A stack, not recursion: the depth is what may be wrong.
    waiting: list[tuple[str, Any, int]] = [(str(name), item, 1) for name, item in metadata.items()]
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
