"""Texts that are longer than the model reads, or than a single vector tells well.

``truncate`` cuts what is over the limit. ``chunk`` cuts a text into windows of about equal length that the
model reads one by one. ``mcls`` is MCLS of the M3 paper (appendix B.2): a CLS before every 256 tokens, and
the mean of their last hidden states in place of the first one's. What the paper leaves open:

- Blocks are counted in tokens of the text; prefix and end token are in none. A text of one block is as ever.
- Inserted tokens have positions like all others and count against the limit; the last one has text after it.
- The mean is of the states as they are, and is normalised like a single state.
- Inserted tokens have neither lexical weight nor token vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from m3connect.types.fingerprint import MCLS_EVERY


def truncated(row: Sequence[int], max_length: int) -> tuple[list[int], bool]:
    """The first tokens and the end token, and whether anything was cut.

    >>> truncated([0, 7, 8, 9, 2], 4)
    ([0, 7, 8, 2], True)
    """
    if len(row) <= max_length:
        return list(row), False
    return [*row[: max_length - 1], row[-1]], True


def windows(row: Sequence[int], leading: int, max_length: int) -> list[list[int]]:
    """The text in as few windows as possible, each with all that surrounds a text.

    Args:
        row: the tokens of a text.
        leading: tokens before the text itself.
        max_length: tokens of a window.

    >>> windows([0, 5, 6, 7, 8, 9, 2], 1, 5)
    [[0, 5, 6, 7, 2], [0, 8, 9, 2]]
    """
    before, text, end = row[:leading], row[leading:-1], row[-1]
    count = max(1, -(-len(text) // (max_length - leading - 1)))
    share, larger = divmod(len(text), count)
    cuts = [number * share + min(number, larger) for number in range(count + 1)]
    return [[*before, *text[start:stop], end] for start, stop in pairwise(cuts)]


def marked(row: Sequence[int], leading: int, max_length: int) -> tuple[list[int], bool]:
    """The text with its first token again before every block but the first; whether it was cut.

    Args:
        row: the tokens of a text.
        leading: tokens before the text itself.
        max_length: tokens after which it is cut, inserted ones included.
    """
    room = max_length - leading - 1
    text = row[leading:-1][: room - room // (MCLS_EVERY + 1)]
    token_ids = list(row[:leading])
    for start in range(0, len(text), MCLS_EVERY):
        token_ids += [row[0]] * (start > 0)
        token_ids += text[start : start + MCLS_EVERY]
    return [*token_ids, row[-1]], len(text) < len(row) - leading - 1


def marks(length: int, leading: int) -> range:
    """Where the inserted tokens are in a text of so many tokens that :func:`marked` made.

    >>> list(marks(1 + 256 + 1 + 3 + 1, leading=1))
    [257]
    """
    return range(leading + MCLS_EVERY, length - 1, MCLS_EVERY + 1)
