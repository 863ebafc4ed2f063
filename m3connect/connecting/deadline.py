"""A request ends after the stated seconds, however slowly its answer drips.

gRPC has deadlines. HTTP clients limit each read of the socket instead, so a server that sends a byte
now and then holds them for as long as it likes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

GRACE = 0.5
"""Seconds longer than the driver's own limit, whose errors say more."""


def within(seconds: float, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """What ``function`` returns or raises, if it does so in time.

    It runs in a thread of its own, which is left behind where it does not: nothing ends a thread that
    waits for a socket.

    Args:
        seconds: what the driver was told; :data:`GRACE` is added.
        function: a request.
        *args, **options: of the function.

    Raises:
        TimeoutError: it took longer.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(function(*args, **options))
        except BaseException as error:  # noqa: BLE001 - raised again, by who waits for it
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True, name="m3connect request").start()
    try:
        return outcome.result(seconds + GRACE)
    except TimeoutError:
        if outcome.done():
            raise
        raise TimeoutError(f"no whole answer within {seconds:g} s") from None
