"""``/v1/embeddings`` as OpenAI's clients speak it: the dense vectors alone."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from m3connect.errors import InputError
from m3connect.serving.service import Service
from m3connect.serving.waiting import embeddings_of, item_by_item
from m3connect.types import FloatArray
from m3connect.types.vectors import shortened


class OpenAIEmbeddings(BaseModel):
    """OpenAI's request; keys that do not matter here, such as ``user``, are passed over."""

    input: str | list[str] | list[int] | list[list[int]]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)


def router(service: Service) -> APIRouter:
    """The routes over one service."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/embeddings", response_model=dict[str, Any])
    async def embeddings(body: OpenAIEmbeddings, request: Request) -> Response:
        """Dense vectors of passages; ``dimensions`` keeps the first so many and normalises again."""
        texts = _texts(body.input)
        service.limits.check(texts)
        encoded = await embeddings_of(service, request, texts, kind="passage", legs=("dense",))
        assert encoded.dense is not None
        vectors = narrowed(encoded.dense, body.dimensions)
        tokens = int(encoded.n_tokens.sum())
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "model": service.encoder.info.name, "usage": usage}
        items = (
            {
                "object": "embedding",
                "index": row,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
                if body.encoding_format == "base64"
                else vector.tolist(),
            }
            for row, vector in enumerate(vectors)
        )
        before = json.dumps(answer).removesuffix("}")
        return await item_by_item(items, before=f'{before}, "data": [', after="]}")

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that this service runs."""
        name = service.encoder.info.name
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "m3connect"}],
        }

    return routes


def _texts(given: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not all(isinstance(text, str) for text in texts):
        raise InputError(
            "input holds token ids of another model's tokenizer; send texts (in langchain-openai: "
            "OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    return [str(text) for text in texts]


def narrowed(vectors: FloatArray, width: int | None) -> FloatArray:
    """The first so many values of each vector, normalised again.

    >>> import numpy as np
    >>> narrowed(np.float32([[0.6, 0.0, 0.8]]), 2).tolist()
    [[1.0, 0.0]]
    """
    if width is None:
        return vectors
    if width > vectors.shape[1]:
        raise InputError(f"dimensions is {width}; this model's vectors have {vectors.shape[1]}")
    return shortened(vectors, width)
