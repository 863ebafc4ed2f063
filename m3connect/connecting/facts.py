"""A payload as facts: what filters can find out about it, the same on every engine.

Engines compare JSON each in their own way: types mix, lists are no "any element", large integers
lose digits. So a connector stores, beside a payload, what filters ask of it, and looks at that
alone. Written here once: what a path reaches (:func:`walk`), when two values are equal
(:func:`token`), and how numbers and dates are ordered (:func:`number_text`, :func:`date_text`).

>>> payload = {"year": 2024, "tags": ["new", {"by": None}], "a.b": 1}
>>> [(path, token(value)) for path, value in walk(payload)]
[('year', 'np80afa$'), ('tags', 'snew'), ('tags', 'o')]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal

from m3connect.filters import Range, parse_date

LONGEST = 64
"""Bytes of a string whose token holds it as it is; of a longer one the token holds a digest."""

Order = Literal["number", "date"]

_COMPLEMENT = str.maketrans("0123456789abcdef", "fedcba9876543210")
_BIAS = 0x800
_LARGE = "fff"


def walk(payload: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value that a filter can reach, with its dotted path; a path may come several times.

    Lists are flattened, nulls left out. An object is a value of its own, and its members follow. No
    path reaches a key that is empty or has a dot in it. The values at a path are those of
    :func:`m3connect.filters.values_at`.

    >>> list(walk({"a": [1, [2, None]], "b": {"c": "x"}}))
    [('a', 1), ('a', 2), ('b', {'c': 'x'}), ('b.c', 'x')]
    """
    return _members(payload, "")


def _members(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, member in value.items():
        if key and "." not in key:
            yield from _values(member, prefix + key)


def _values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _values(item, path)
    elif value is not None:
        yield path, value
        if isinstance(value, Mapping):
            yield from _members(value, f"{path}.")


def token(value: Any) -> str:
    """A text that is the same for equal values and for no others.

    Equal as a filter means it: 1 and 1.0 are, neither equals True or "1"; an object equals nothing
    that a filter can ask for.

    >>> token(1) == token(1.0), token(True), token("1"), token({})
    (True, 'b1', 's1', 'o')
    """
    if isinstance(value, bool):
        return f"b{value:d}"
    if isinstance(value, int | float):
        return f"n{number_text(value)}"
    if isinstance(value, str):
        return f"s{value}" if len(value.encode()) <= LONGEST else f"h{digest(value)}"
    return "o"


def number_text(number: float) -> str:
    """A number as text: sorted as the numbers are, exactly, and the same for equal ones.

    The sign (m, n or p), the binary exponent, the mantissa in hexadecimal without trailing zeros,
    an end mark; the digits of a negative number are complemented. The exponent takes three digits,
    or, beyond all floats, ``fff`` and eight::

        2020 = +1.9727 * 2**10   p 80a f9 $       (0x800 + 10; 0.9727 = 0xf9 / 256)
          -4 = -1      * 2**2    m 7fd    ~       (the complement of 802)

    >>> number_text(2020), number_text(-4), number_text(0)
    ('p80af9$', 'm7fd~', 'n$')
    >>> numbers = [-(10**700), -2.5, -2, 0, 5e-324, 0.1, 2**53, 2**53 + 1, 1e300, 2**3000]
    >>> sorted(numbers, key=number_text) == numbers
    True
    """
    numerator, denominator = abs(number).as_integer_ratio()
    if numerator == 0:
        return "n$"
    bits = numerator.bit_length() - 1
    biased = bits - (denominator.bit_length() - 1) + _BIAS
    digits = f"{biased:03x}" if biased < int(_LARGE, 16) else f"{_LARGE}{biased:08x}"
    mantissa = (numerator - (1 << bits)) << (-bits % 4)
    if mantissa:
        digits += f"{mantissa:0{-(-bits // 4)}x}".rstrip("0")
    return f"p{digits}$" if number > 0 else f"m{digits.translate(_COMPLEMENT)}~"


def date_text(instant: datetime) -> str:
    """A UTC instant as text that sorts as instants do: its digits without trailing zeros.

    >>> from datetime import UTC
    >>> date_text(datetime(2024, 2, 29, tzinfo=UTC))
    '20240229$'
    """
    digits = f"{instant.year:04}{instant:%m%d%H%M%S%f}"
    return digits.rstrip("0") + "$"


def ordered(value: Any) -> tuple[Order, str] | None:
    """How a value is ordered, if a range can find it.

    >>> ordered(2020), ordered("2024-02-29"), ordered("text"), ordered(True)
    (('number', 'p80af9$'), ('date', '20240229$'), None, None)
    """
    if isinstance(value, str):
        instant = parse_date(value)
        return None if instant is None else ("date", date_text(instant))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", number_text(value)
    return None


def ordered_bounds(condition: Range) -> tuple[Order, dict[str, str]]:
    """The bounds of a range by name, in the form of :func:`ordered`: at most one on each side.

    Of two on a side only the stricter is left, since an engine may heed the last that it is given.

    >>> ordered_bounds(Range("year", gte=2020))
    ('number', {'gte': 'p80af9$'})
    >>> ordered_bounds(Range("year", gt=2020, gte=2020, lt=2030, lte=2020))
    ('number', {'gt': 'p80af9$', 'lte': 'p80af9$'})
    """
    order: Order = "date" if condition.is_date else "number"
    if condition.is_date:
        bounds = {name: date_text(bound) for name, bound in condition.instants.items()}
    else:
        numbers = condition.bounds.items()
        bounds = {n: number_text(bound) for n, bound in numbers if isinstance(bound, int | float)}
    if {"gt", "gte"} <= bounds.keys():
        del bounds["gte" if bounds["gt"] >= bounds["gte"] else "gt"]
    if {"lt", "lte"} <= bounds.keys():
        del bounds["lte" if bounds["lt"] <= bounds["lte"] else "lt"]
    return order, bounds


def digest(text: str, digits: int = 32) -> str:
    """So many hexadecimal digits of hash; four bits each.

    >>> digest("handbook", 8)
    '8ba28bcb'
    """
    hashed = blake2b(text.encode(errors="surrogatepass"), digest_size=digits // 2)
    return hashed.hexdigest()
