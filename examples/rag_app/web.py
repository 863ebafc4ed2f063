"""The routes beside those of `m3connect serve`, whose search and explanations the page uses, too."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import StreamingResponse

from m3connect import M3ConnectError
from m3connect.datasets.write import add_judgement
from m3connect.serving.app import create_app

from .answering import Assistant
from .library import Library

Question = Annotated[str, Body(min_length=1, max_length=4000)]


def create(library: Library, assistant: Assistant, home: Path) -> FastAPI:
    """The application. What changes something is a PUT or DELETE: no other site's page can send these."""
    app = create_app(library.service, page=Path(__file__).parent / "page")

    @app.get("/about")
    def about() -> dict[str, Any]:
        return {"model": assistant.endpoint and assistant.endpoint.model, **library.summary()}

    @app.put("/files")
    async def add(request: Request, name: str) -> StreamingResponse:
        content = await request.body()
        events = SimpleQueue[dict[str, Any] | None]()

        def progress(stage: str, done: int, total: int | None) -> None:
            events.put({"stage": stage, "done": done, "total": total})

        def work() -> None:
            try:
                events.put(asdict(library.add(name, content, progress)))
            except M3ConnectError as error:
                events.put({"error": str(error)})
            finally:
                events.put(None)

        def lines() -> Iterator[str]:
            with ThreadPoolExecutor(1) as worker:
                working = worker.submit(work)
                yield from map(_line, iter(events.get, None))
                working.result()

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.delete("/files")
    async def remove(name: str) -> None:
        await asyncio.to_thread(library.remove, name)

    @app.put("/judgements")
    def judge(
        question: Question, passage: Annotated[str, Body()], relevant: Annotated[bool, Body()]
    ) -> None:
        """A test collection for `m3connect eval` and `train`, written anew."""
        corpus = {id_: payload["text"] for id_, payload in library.passages()}
        add_judgement(home / "judgements", question, passage, int(relevant), corpus)

    @app.post("/ask")
    async def ask(
        question: Question,
        before: Annotated[tuple[str, ...], Body(max_length=100)] = (),
        filter: Annotated[str | None, Body()] = None,  # noqa: A002 - the field's word
    ) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            try:
                async for event in assistant.answer(question, before, filter or None):
                    yield _line(event)
            except M3ConnectError as error:
                yield _line({"type": "error", "text": str(error)})

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return app


def _line(event: dict[str, Any] | None) -> str:
    return json.dumps(event, ensure_ascii=False) + "\n"
