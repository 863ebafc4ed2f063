"""Which texts go through the encoder together: by token budget, longest first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plan(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.intp]]:
    """Cut texts into batches of at most ``budget`` tokens, padding included.

    Texts of like length share a batch, so little is padded; the longest come first, so the most
    memory is taken at once or never. A text longer than the budget goes alone.

    Args:
        lengths: tokens of each text.
        budget: tokens a batch may hold.

    Returns:
        for each batch the positions of its texts; each text is in one batch.

    >>> [batch.tolist() for batch in plan(np.array([2, 9, 3, 3]), 6)]
    [[1], [2, 3], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches
