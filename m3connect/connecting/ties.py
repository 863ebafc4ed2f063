"""Answers whose ties are settled by id, from engines that settle them as they like."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TypeVar

A = TypeVar("A")

_WIDER = 16


def best(
    limits: Sequence[int],
    ask: Callable[[Sequence[int], Sequence[int]], Sequence[Sequence[A]]],
    *,
    score: Callable[[A], float],
    id_: Callable[[A], str],
    spare: Sequence[int] | None = None,
    most: int | None = None,
) -> list[list[A]]:
    """The best answers to several queries, by falling score and rising id.

    A few answers more are asked for than wanted, and many more where a tie crosses the limit and does
    not end among them: only who sees all that tie can order them by id.

    Args:
        limits: how many answers each query wants.
        ask: the engine's answers, best first, to the queries at some positions, each with a size.
        score, id_: of an answer.
        spare: how many answers more than wanted each query asks for at first; one where not given.
        most: the largest size that the engine takes.

    >>> letters = [(0.9, "b"), (0.5, "z"), (0.5, "a"), (0.1, "c")]
    >>> best([2], lambda queries, sizes: [letters[:sizes[0]]], score=lambda one: one[0],
    ...      id_=lambda one: one[1])
    [[(0.9, 'b'), (0.5, 'a')]]
    """
    answers: list[list[A]] = [[] for _ in limits]
    open_, factor = list(range(len(limits))), 1
    while open_:
        extra = [factor * (1 if spare is None else spare[row]) for row in open_]
        sizes = [_capped(limits[row] + more, most) for row, more in zip(open_, extra, strict=True)]
        cut = []
        for row, size, hits in zip(open_, sizes, ask(open_, sizes), strict=True):
            limit = limits[row]
            scores = [*map(score, hits)]
            if any(map(operator.le, scores, scores[1:])):  # hardly ever, and to sort takes longer
                answers[row] = sorted(hits, key=lambda hit: (-score(hit), id_(hit)))[:limit]
            else:
                answers[row] = [*hits[:limit]]
            full = limit < len(hits) == size and (most is None or size < most)
            if full and scores[-1] == scores[limit - 1]:
                cut.append(row)
        open_, factor = cut, factor * _WIDER
    return answers


def _capped(size: int, most: int | None) -> int:
    return size if most is None else min(size, most)
