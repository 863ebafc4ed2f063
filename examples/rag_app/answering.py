"""From a question to an answer with numbered citations.

    question -> self-standing -> passages -> do they answer? -> a chat model, or their best sentences

What comes out are events, JSON objects: ``question`` (as it was searched for), ``passages``, any number of
``text``, ``citation`` and ``notice``, and ``done``. Texts of documents and models are data in them and
never markup: whoever shows them shows plain text.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from m3connect import Hit, Mode, search
from m3connect.errors import EndpointError
from m3connect.filters import AnyFilter
from m3connect.searching.citing import INSTRUCTIONS, REFUSED, cited_stream, prompt
from m3connect.searching.contexts import Sentence, best_sentences
from m3connect.serving.service import Service

from .conversation import by_endpoint, by_rule
from .endpoint import Endpoint

Event = dict[str, Any]
MODE: Mode = "all"
CANDIDATES, PASSAGES, SENTENCES = 10, 4, 2
"""Hits, those that an answer is made of, and sentences of an answer without a chat model."""
_NEARLY = 0.93
"""Of the best sentence's score, which another one needs to be in the answer, too."""
_CONTEXT_TOKENS = 384
"""Of a passage with its neighbours, as a chat model reads it."""


class Assistant:
    """Answers from the first collection of a service.

    Args:
        service: encoder and collection.
        threshold: the first hit's score below which the documents hold no answer.
        endpoint: the chat model; None for the best sentences.
    """

    def __init__(self, service: Service, threshold: float, endpoint: Endpoint | None) -> None:
        self.service = service
        self.threshold = threshold
        self.endpoint = endpoint

    def find(
        self, question: str, asked: str, condition: AnyFilter | None = None
    ) -> tuple[list[Hit], list[Sentence]]:
        """The passages on a self-standing question, and the best sentences on what was asked."""
        encoder = self.service.encoder
        with self.service.collection(None) as collection:
            hits: list[Hit] = search(
                collection,
                encoder,
                question,
                mode=MODE,
                filter=condition,
                limit=CANDIDATES,
                expand="neighbours",
                expand_tokens=_CONTEXT_TOKENS,
            )[:PASSAGES]
        # The sentence on the question before must not win again, nor those of other passages.
        texts = [hit.text for hit in (hits if asked == question else hits[:1])]
        best = best_sentences(asked, texts, encoder, limit=SENTENCES)
        best.sort(key=lambda sentence: -sentence.score)
        return hits, [each for each in best if each.score >= _NEARLY * best[0].score]

    async def answer(
        self, question: str, before: Sequence[str] = (), condition: AnyFilter | None = None
    ) -> AsyncIterator[Event]:
        """The events of an answer.

        Args:
            question: as it was asked.
            before: the questions before it, oldest first.
            condition: a filter for the passages.
        """
        started = time.perf_counter()
        alone, asked = by_rule(question, before), question
        if self.endpoint and before:
            try:
                alone = asked = await by_endpoint(question, before, self.endpoint)
            except EndpointError as error:
                yield {"type": "notice", "text": f"The question was not rewritten: {error}"}
        yield {"type": "question", "text": alone}
        hits, sentences = await asyncio.to_thread(self.find, alone, asked, condition)
        shown = [_shown(number, hit) for number, hit in enumerate(hits, 1)]
        yield {"type": "passages", "mode": MODE, "limit": CANDIDATES, "passages": shown}
        cited, written = [], ""
        if hits and hits[0].score >= self.threshold:
            async for event in self._written(alone, hits, sentences):
                cited += [event["number"]] if event["type"] == "citation" else []
                written += event["text"] if event["type"] == "text" else ""
                yield event
        yield {
            "type": "done",
            "answered": bool(written.strip()) and not written.strip().startswith(REFUSED),
            "cited": list(dict.fromkeys(cited)),
            "seconds": round(time.perf_counter() - started, 2),
        }

    async def _written(
        self, question: str, hits: Sequence[Hit], sentences: Sequence[Sentence]
    ) -> AsyncIterator[Event]:
        """By the chat model; by the best sentences without one, or where it fails at once."""
        begun = False
        if self.endpoint is not None:
            try:
                texts = [hit.context or hit.text for hit in hits]
                pieces = self.endpoint.stream(INSTRUCTIONS, prompt(question, texts))
                async for part in cited_stream(pieces, len(hits)):
                    begun = True
                    yield _event(part)
            except EndpointError as error:
                yield {"type": "notice", "text": str(error)}
        for sentence in sentences if not begun else ():
            for part in (f"{sentence.text} ", sentence.row + 1, "\n"):
                yield _event(part)


def _event(part: str | int) -> Event:
    if isinstance(part, int):
        return {"type": "citation", "number": part}
    return {"type": "text", "text": part}


def _shown(number: int, hit: Hit) -> Event:
    title = hit.payload.get("title") or hit.document_id
    plain = {"number": number, "id": hit.id, "document_id": hit.document_id, "text": hit.text}
    return {**plain, "title": title, "file": hit.payload.get("file")}
