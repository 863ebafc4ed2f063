"""The routes beside those of `m3connect serve`, whose search and explanations the page uses, too."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from m3connect import M3ConnectError
from m3connect.serving.app import create_app
from m3connect.serving.service import Service

from .answering import Assistant
from .judgements import Judgements
from .library import Library

_PAGE = Path(__file__).parent / "page"


class Asked(BaseModel):
    """A question, those before it, and a filter."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=4000)
    before: list[str] = Field(default=[], max_length=100)
    filter: str | None = None


class Judged(BaseModel):
    """Whether a passage answers a question."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=4000)
    passage: str
    relevant: bool


def create(service: Service, library: Library, assistant: Assistant, home: Path) -> FastAPI:
    """The application. What changes something is a PUT or DELETE: no other site's page can send these."""
    app = create_app(service, page=_PAGE)
    judgements = Judgements(home, library)

    @app.get("/about")
    def about() -> dict[str, Any]:
        endpoint = assistant.endpoint
        return {"model": endpoint.model if endpoint else None, **library.summary()}

    @app.put("/files")
    async def add(request: Request, name: str) -> StreamingResponse:
        content = await request.body()
        loop, events = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

        def tell(event: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def progress(stage: str, done: int, total: int | None) -> None:
            tell({"stage": stage, "done": done, "total": total})

        def work() -> None:
            try:
                added = library.add(name, content, progress)
                tell({"added": added.documents, "failures": added.failures, "losses": added.losses})
            except M3ConnectError as error:
                tell({"error": str(error)})
            finally:
                tell(None)

        async def lines() -> AsyncIterator[str]:
            working = asyncio.create_task(asyncio.to_thread(work))
            while (event := await events.get()) is not None:
                yield json.dumps(event) + "\n"
            await working

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.delete("/files")
    async def remove(name: str) -> None:
        await asyncio.to_thread(library.remove, name)

    @app.put("/judgements")
    async def judge(judged: Judged) -> None:
        given = judged.question, judged.passage
        await asyncio.to_thread(judgements.add, *given, relevant=judged.relevant)

    @app.post("/ask")
    async def ask(asked: Asked) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            try:
                events = assistant.answer(asked.question, asked.before, asked.filter or None)
                async for event in events:
                    yield json.dumps(event, ensure_ascii=False) + "\n"
            except M3ConnectError as error:
                yield json.dumps({"type": "error", "text": str(error)}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return app
