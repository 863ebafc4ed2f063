"""Ranges as prefixes of the texts of numbers and dates (:mod:`m3connect.connecting.facts`).

Milvus cannot ask whether any of several values lies between two bounds. It can ask whether a
record has one of some terms, so a range becomes the few prefixes that cover it.
"""

from __future__ import annotations

from collections.abc import Callable

_HEX = "0123456789abcdef"
LEAST, GREATEST = "!", "~"
"""Below and above every number's and every date's text."""

NextCharacters = Callable[[str], str]


def number_characters(prefix: str) -> str:
    """What may follow ``prefix`` in the text of a number."""
    if not prefix:
        return "mnp"
    if prefix == "n":
        return "$"
    exponent = len("pfff00000000" if prefix[:4] in {"pfff", "m000"} else "p800")
    if len(prefix) < exponent:
        return _HEX
    return f"${_HEX}" if prefix[0] == "p" else f"{_HEX}~"


def date_characters(prefix: str) -> str:
    """What may follow ``prefix`` in the text of a date."""
    return "$0123456789" if prefix else "0123456789"


def cover(
    low: str,
    high: str,
    following: NextCharacters,
    *,
    with_low: bool = True,
    with_high: bool = True,
) -> list[str]:
    """Prefixes that exactly the texts between two texts begin with.

    Args:
        low, high: texts, or :data:`LEAST` and :data:`GREATEST`.
        following: the characters that may follow a prefix.
        with_low, with_high: whether the bounds themselves are included.

    >>> cover("2023$", "2024031$", date_characters, with_high=False)
    ... # doctest: +NORMALIZE_WHITESPACE
    ['20230', '20231', '20232', '20233', '20234', '20235', '20236', '20237', '20238', '20239',
     '2023$', '2024$', '20240$', '202400', '202401', '202402', '202403$', '2024030']
    """
    if low >= high:
        return [low] if low == high and with_low and with_high else []
    split = next(
        place for place, pair in enumerate(zip(low, high, strict=False)) if len(set(pair)) > 1
    )
    shared = low[:split]
    prefixes = [
        low[:place] + character
        for place in range(split + 1, len(low))
        for character in following(low[:place])
        if character > low[place]
    ]
    if with_low:
        prefixes.append(low)
    prefixes += [
        shared + character
        for character in following(shared)
        if low[split] < character < high[split]
    ]
    prefixes += [
        high[:place] + character
        for place in range(split + 1, len(high))
        for character in following(high[:place])
        if character < high[place]
    ]
    if with_high:
        prefixes.append(high)
    return prefixes
