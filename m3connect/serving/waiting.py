"""Between the event loop and the threads that work: waiting that ends when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect

from m3connect.contract import Kind
from m3connect.types import Embeddings, Leg

if TYPE_CHECKING:
    from fastapi import Request

    from m3connect.serving.service import Service

P = ParamSpec("P")
R = TypeVar("R")
_POLL = 0.05  # seconds between looks at whether the client is still there


async def in_thread(
    function: Callable[Concatenate[Service, P], R],
    service: Service,
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Run what blocks (a database, a reranker) in a thread of the service, beside the event loop.

    Raises:
        Busy: too much is waiting.
    """
    return await asyncio.wrap_future(service.threads.submit(function, service, *args, **kwargs))


async def embeddings_of(
    service: Service,
    request: Request | None,
    texts: Sequence[str],
    *,
    kind: Kind,
    legs: Sequence[Leg],
) -> Embeddings:
    """The texts' embeddings; not computed if the client leaves before its turn.

    Args:
        service: its encoder is asked.
        request: whose client may leave; None where that cannot be told.
        texts, kind, legs: as the encoder takes them.

    Raises:
        Busy: too much is waiting.
        ClientDisconnect: the client left.
    """
    future = asyncio.wrap_future(service.encoder.submit(texts, kind=kind, legs=legs))
    try:
        while not (await asyncio.wait([future], timeout=_POLL))[0]:
            if request is not None and await request.is_disconnected():
                raise ClientDisconnect
        return future.result()
    finally:  # the client left, or the request's time is over: its turn need not come
        future.cancel()
