"""Between the event loop and the threads that work: waiting that ends when the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response

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
    """The texts' embeddings; not computed, or no further, if the client leaves before its turn.

    Args:
        service: its encoder is asked.
        request: whose client may leave; None where that cannot be told.
        texts, kind, legs: as the encoder takes them.

    Raises:
        Busy: too much is waiting.
        ClientDisconnect: the client left.
    """
    made: list[Embeddings] = []
    for portion in service.encoder.portions(texts, kind=kind, legs=legs):
        made.append(await _of(portion, request))  # noqa: PERF401 - the next one is queued after it
    return made[0] if len(made) == 1 else Embeddings.concat(made)


async def _of(portion: Future[Embeddings], request: Request | None) -> Embeddings:
    future = asyncio.wrap_future(portion)
    try:
        while not (await asyncio.wait([future], timeout=_POLL))[0]:
            if request is not None and await request.is_disconnected():
                raise ClientDisconnect
        return future.result()
    finally:  # the client left, or the request's time is over: its turn need not come
        future.cancel()


async def item_by_item(items: Iterable[Any], before: str = "[", after: str = "]") -> Response:
    """An answer in JSON with a long list, written in a thread of its own, item by item.

    Token vectors of some hundred texts are many million numbers: written at once they would keep the event
    loop, and with it all other requests, for seconds.

    Args:
        items: of the list, JSON values; made in the thread, too.
        before, after: the JSON text around the items.
    """

    def written() -> bytes:
        listed = ",".join(json.dumps(item, separators=(",", ":")) for item in items)
        return f"{before}{listed}{after}".encode()

    return Response(await asyncio.to_thread(written), media_type="application/json")
