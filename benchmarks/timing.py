"""How calls are timed. Imports nothing of m3connect, so that peers are timed by it too."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def timed(
    call: Callable[[Asked], Answer], asked: Sequence[Asked]
) -> tuple[list[Answer], float, float]:
    """The answers to one call a query, their p50 and p99 in milliseconds; five calls warm up."""
    for one in asked[:5]:
        call(one)
    answers, times = [], []
    for one in asked:
        start = time.perf_counter()
        answers.append(call(one))
        times.append((time.perf_counter() - start) * 1e3)
    return answers, float(np.percentile(times, 50)), float(np.percentile(times, 99))
