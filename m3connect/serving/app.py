"""The ASGI application: who may call, how errors look, which routes there are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3connect.errors import (
    AuthError,
    CollectionGone,
    CollectionNotFound,
    FingerprintMismatch,
    InputError,
    InvalidFilter,
    M3ConnectError,
    TransientError,
)
from m3connect.serving import native, openai, tei
from m3connect.serving.access import is_loopback, told
from m3connect.serving.batching import Busy
from m3connect.serving.metrics import Metrics
from m3connect.serving.operations import NotEnabled
from m3connect.serving.schemas import ErrorDetail, ErrorResponse
from m3connect.serving.service import Service, UnknownCollection

_LOG = logging.getLogger(__name__)
_PAGE = Path(__file__).parent / "page"
_OPEN = {"/", "/health", "/page.js", "/page.css", "/parts.js", "/icon.svg"}
"""What is got without a key: it says nothing about the data."""
_FILES = (
    ("/", "index.html", "text/html"),
    ("/page.js", "page.js", "text/javascript"),
    ("/page.css", "page.css", "text/css"),
)
"""A page: path, file and type, since not every system knows the types."""
_SHARED = (
    ("/parts.js", "parts.js", "text/javascript"),
    ("/icon.svg", "icon.svg", "image/svg+xml"),
)
"""What a page of one's own may use of the search page."""
_STATUS: tuple[tuple[type[M3ConnectError], int], ...] = (
    (Busy, 429),
    (NotEnabled, 403),
    (UnknownCollection, 404),
    (CollectionNotFound, 404),
    (CollectionGone, 404),
    (FingerprintMismatch, 409),
    (InvalidFilter, 400),
    (InputError, 400),
    (AuthError, 502),
    (TransientError, 503),
    (M3ConnectError, 500),
)
_SAFE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(service: Service, *, host: str = "127.0.0.1", page: bool | Path = True) -> FastAPI:
    """The application over a service; ``uvicorn`` or any ASGI server runs it.

    Args:
        service: the encoder and its collections; closed when the application stops.
        host: the address it will listen on: on the loopback address only requests for this
            machine's own names are answered, so that no foreign web page can reach it.
        page: whether to serve the search page at ``/``, or a folder with a page to serve in its place:
            ``index.html``, ``page.css`` and ``page.js``, which may import ``/parts.js`` to draw scores and
            explanations as the search page does, and show its ``/icon.svg``.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="m3connect",
        version=version("m3connect"),
        description="One M3 encoder: embeddings, hybrid search and explanations.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    metrics = Metrics(service)
    failed: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorResponse}}
    app.include_router(native.router(service), responses=failed)
    app.include_router(openai.router(service), responses=failed)
    app.include_router(tei.router(service))
    app.include_router(metrics.router(), responses=failed)
    if page:
        folder = _PAGE if page is True else page
        for path, name, kind in _FILES:
            _add_file(app, path, folder / name, kind)
        for path, name, kind in _SHARED:
            _add_file(app, path, _PAGE / name, kind)
    _add_errors(app)
    app.add_middleware(_Guard, service=service, loopback=is_loopback(host), metrics=metrics)
    return app


class _Guard:
    """Before a request: host, key, size. After it: time limit, headers, one log line without texts."""

    def __init__(self, app: ASGIApp, *, service: Service, loopback: bool, metrics: Metrics) -> None:
        self._app = app
        self._service = service
        self._loopback = loopback
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, request, status = time.perf_counter(), Request(scope), 0
        seconds = self._service.limits.seconds

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not limit.expired():
                    limit.reschedule(None)  # an answer that has begun may take its time
                MutableHeaders(scope=message).update(_SAFE_HEADERS)
            await send(message)

        async def answer(status: int, message: str) -> None:
            await _error(request, status, message)(scope, receive, noted)

        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                try:
                    if refused := self._refused(request):
                        await answer(*refused)
                    else:
                        await self._app(scope, receive, noted)
                except ClientDisconnect:
                    status = 499  # nobody is there to read it
                except Exception as error:
                    _LOG.exception("unexpected error", exc_info=error)
                    if status:  # half an answer must not look like a whole one
                        raise
                    await answer(500, f"unexpected {type(error).__name__}; the log says more")
        except TimeoutError:
            if status:
                raise
            await answer(504, f"not done within {seconds:g} seconds")
        finally:
            spent = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "-")
            self._metrics.count(route, status, spent)
            _LOG.info("%s %s %s %.1f ms", request.method, route, status, 1e3 * spent)

    def _refused(self, request: Request) -> tuple[int, str] | None:
        if self._loopback and not _is_own_name(request.headers.get("host", "")):
            return 421, "this service answers to localhost only"
        passed, request.state.scope = self._service.access.scope(
            request.headers.get("authorization")
        )
        path = request.url.path if request.method in {"GET", "HEAD"} else None
        if not passed and path not in _OPEN:
            return 401, "a key is needed: Authorization: Bearer KEY"
        size = request.headers.get("content-length", "")
        limit = self._service.limits.body_bytes
        if request.method in {"POST", "PUT", "PATCH"}:
            if not size.isdecimal():
                return 411, "Content-Length is needed"
            if int(size) > limit:
                return 413, f"the body has {size} bytes; the limit is {limit}"
        return None


def _is_own_name(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(name)


def _add_file(app: FastAPI, path: str, file: Path, kind: str) -> None:
    def send() -> FileResponse:  # takes nothing: what a route takes, a request can set
        return FileResponse(file, media_type=kind)

    app.add_api_route(path, send, methods=["GET", "HEAD"], include_in_schema=False)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(M3ConnectError)
    async def ours(request: Request, error: M3ConnectError) -> Response:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        response = _error(request, status, told(error, request.state.scope))
        wait = getattr(error, "retry_after", None)
        if status in {429, 503}:
            response.headers["Retry-After"] = str(max(1, round(wait or 1)))
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        return _error(request, 422, problems)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        response = _error(request, error.status_code, str(error.detail))
        response.headers.update(error.headers or {})  # of a 405: which methods there are
        return response


def _error(request: Request, status: int, message: str) -> JSONResponse:
    """In the shape that the route's clients read."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body: BaseModel
    if request.url.path in tei.PATHS:
        body = tei.ErrorResponse(error=message, error_type=tei.ERROR_TYPES.get(status, "Backend"))
    else:  # OpenAI's shape: its clients show nothing else
        body = ErrorResponse(error=ErrorDetail(message=message, type=kind))
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body.model_dump(), status, headers)


_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
