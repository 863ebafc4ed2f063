"""Numbers and dates as strings that sort as they do, and ranges as prefixes of such strings.

Milvus cannot ask whether any of several values lies between two bounds. It can ask whether a
record has one of some terms, so a range becomes the few prefixes that cover it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

_HEX = "0123456789abcdef"
_COMPLEMENT = str.maketrans(_HEX, _HEX[::-1])
_BIAS = 2048
LEAST, GREATEST = "!", "~"
"""Below and above every number's and every date's code."""

NextCharacters = Callable[[str], str]


def number_code(value: float) -> str:
    """A number so that codes sort as the numbers do, exactly, integers of any size included.

    The sign, the binary exponent in three digits, the mantissa without trailing zeros, and an end
    mark; the digits of a negative number are complemented. Magnitudes of 2**2048 or more, which
    no float reaches, give :data:`LEAST` or :data:`GREATEST`.

    >>> number_code(1), number_code(1.5), number_code(2020)
    ('p800$', 'p8008$', 'p80af9$')
    >>> sorted([3, -0.5, 0, 2.5, -4], key=number_code)
    [-4, -0.5, 0, 2.5, 3]
    """
    numerator, denominator = abs(value).as_integer_ratio()
    if numerator == 0:
        return "n$"
    bits = numerator.bit_length() - 1
    exponent = bits - (denominator.bit_length() - 1)
    if exponent >= _BIAS:
        return GREATEST if value > 0 else LEAST
    mantissa = (numerator - (1 << bits)) << (-bits % 4)
    digits = f"{exponent + _BIAS:03x}"
    if mantissa:
        digits += f"{mantissa:0{-(-bits // 4)}x}".rstrip("0")
    if value > 0:
        return f"p{digits}$"
    return f"m{digits.translate(_COMPLEMENT)}~"


def date_code(instant: datetime) -> str:
    """A UTC instant so that codes sort as the instants do: its digits without trailing zeros.

    >>> from datetime import UTC
    >>> date_code(datetime(2024, 2, 29, tzinfo=UTC))
    '20240229$'
    """
    digits = f"{instant.year:04}{instant:%m%d%H%M%S%f}"
    return digits.rstrip("0") + "$"


def number_characters(prefix: str) -> str:
    """What may follow ``prefix`` in the code of a number."""
    if not prefix:
        return "mnp"
    if prefix == "n":
        return "$"
    if len(prefix) < len("p800"):
        return _HEX
    return f"${_HEX}" if prefix[0] == "p" else f"{_HEX}~"


def date_characters(prefix: str) -> str:
    """What may follow ``prefix`` in the code of a date."""
    return "$0123456789" if prefix else "0123456789"


def cover(
    low: str,
    high: str,
    following: NextCharacters,
    *,
    with_low: bool = True,
    with_high: bool = True,
) -> list[str]:
    """Prefixes that exactly the codes between two codes begin with.

    Args:
        low, high: codes, or :data:`LEAST` and :data:`GREATEST`.
        following: the characters that may follow a prefix.
        with_low, with_high: whether the bounds themselves are included.

    >>> cover("2023$", "2024031$", date_characters, with_high=False)
    ... # doctest: +NORMALIZE_WHITESPACE
    ['20230', '20231', '20232', '20233', '20234', '20235', '20236', '20237', '20238', '20239',
     '2023$', '2024$', '20240$', '202400', '202401', '202402', '202403$', '2024030']
    """
    if low >= high:
        return [low] if low == high and with_low and with_high else []
    split = next(at for at, pair in enumerate(zip(low, high, strict=False)) if len(set(pair)) > 1)
    shared = low[:split]
    prefixes = [
        low[:at] + character
        for at in range(split + 1, len(low))
        for character in following(low[:at])
        if character > low[at]
    ]
    if with_low:
        prefixes.append(low)
    prefixes += [
        shared + character
        for character in following(shared)
        if low[split] < character < high[split]
    ]
    prefixes += [
        high[:at] + character
        for at in range(split + 1, len(high))
        for character in following(high[:at])
        if character < high[at]
    ]
    if with_high:
        prefixes.append(high)
    return prefixes
