"""Which texts go through the encoder together: by token budget, longest first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plan(lengths: NDArray[np.int64], budget: int, *, pads: bool = False) -> list[NDArray[np.intp]]:
    """Cut texts into batches of at most ``budget`` tokens.

    Texts of like length share a batch, so little is padded; the longest come first, so the most
    memory is taken at once or never. A text longer than the budget goes alone.

    Args:
        lengths: tokens of each text.
        budget: tokens a batch may hold.
        pads: whether texts are padded to the longest of the batch, and that counts.

    Returns:
        for each batch the positions of its texts; each text is in one batch.

    >>> [batch.tolist() for batch in plan(np.array([2, 9, 3, 4]), 7, pads=True)]
    [[1], [3], [2, 0]]
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
        end = max(start + 1, start + budget // longest if pads else filled)
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
