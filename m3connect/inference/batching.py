"""Which texts go through the encoder together: by token budget, longest first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plan(lengths: NDArray[np.int64], budget: int, *, pads: bool = False) -> list[NDArray[np.intp]]:
    """Cut texts into batches of at most ``budget`` tokens.

    Texts of like length share a batch; the longest come first, so the most
    memory is taken at once or never. A text longer than the budget goes alone.

    Args:
        lengths: tokens of each text.
        budget: tokens a batch may hold.
        pads: whether texts are handed over padded to the longest of the batch: then those of a batch
            take at most twice the budget, padding included.

    Returns:
        for each batch the positions of its texts; each text is in one batch.

    >>> [batch.tolist() for batch in plan(np.array([2, 2, 2, 8]), 14, pads=True)]
    [[3, 0, 1], [2]]
    >>> [batch.tolist() for batch in plan(np.array([2, 9, 3, 4]), 7)]
    [[1], [3, 2], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    batches = []
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        filled = int(np.searchsorted(ends, ends[start] - longest + budget, "right"))
        if pads:
            filled = min(filled, start + 2 * budget // longest)
        end = max(start + 1, filled)
        batches.append(order[start:end])
        start = end
    return batches


def halves(lengths: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """A batch of two texts or more in two, of about as many tokens each.

    >>> [half.tolist() for half in halves(np.array([4, 2, 1, 1]))]
    [[0], [1, 2, 3]]
    """
    ends = np.cumsum(lengths)
    middle = int(np.searchsorted(ends, ends[-1] / 2)) + 1
    rows = np.arange(len(lengths))
    middle = min(middle, len(lengths) - 1)
    return [rows[:middle], rows[middle:]]
