"""Reads, writes and batches cut into portions that a request, or memory, can hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def portions(weights: Iterable[int], *, count: int, weight: int) -> Iterator[slice]:
    """Cut things in a row into portions; one that is too heavy makes a portion of its own.

    Args:
        weights: of the things, in order.
        count: the most things of a portion.
        weight: the most weight of a portion of several things.

    >>> [*portions([3, 3, 9, 1, 1, 1], count=2, weight=6)]
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None), slice(5, 6, None)]
    """
    start = end = total = 0
    for end, size in enumerate(weights, start=1):
        if end - 1 > start and (end - start > count or total + size > weight):
            yield slice(start, end - 1)
            start, total = end - 1, 0
        total += size
    if end > start:
        yield slice(start, end)
