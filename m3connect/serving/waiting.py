"""Between the event loop and the threads that work: waiting that ends when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from m3connect.contract import Kind
from m3connect.types import Embeddings, Leg

if TYPE_CHECKING:
    from fastapi import Request

    from m3connect.serving.service import Service

P = ParamSpec("P")
R = TypeVar("R")
_POLL = 0.05  # seconds between looks at whether the client is still there


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run what blocks (a database, a wait for the encoder) beside the event loop."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def embeddings_of(
    service: Service, request: Request, texts: Sequence[str], *, kind: Kind, legs: Sequence[Leg]
) -> Embeddings:
    """The texts' embeddings; not computed if the client leaves before its turn.

    Raises:
        Busy: too much is waiting.
    """
    job = service.encoder.submit(texts, kind=kind, legs=legs)
    future = asyncio.wrap_future(job)
    while not future.done():
        await asyncio.wait([future], timeout=_POLL)
        if not future.done() and await request.is_disconnected():
            job.cancel()
            break
    return await future
