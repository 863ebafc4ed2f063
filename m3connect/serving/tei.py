"""The routes of text-embeddings-inference, so that its clients need no change, and ``/v1/rerank``.

``/embed_all`` gives token vectors; ``/rerank`` scores by the service's reranker, and where it has none by the
fused score of the one encoder. Shapes: https://huggingface.github.io/text-embeddings-inference
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from m3connect.contract import Kind, Reranker
from m3connect.errors import InputError
from m3connect.model.tokenize import whole_characters
from m3connect.searching import modes, scoring
from m3connect.searching.refining import scores_of
from m3connect.serving import schemas
from m3connect.serving.openai import narrowed
from m3connect.serving.service import Service
from m3connect.serving.waiting import embeddings_of, in_thread, item_by_item
from m3connect.types import LEGS, Embeddings, FloatArray, Leg

PATHS = {
    "/", "/embed", "/embed_sparse", "/embed_all", "/tokenize", "/rerank", "/similarity", "/info",
}  # fmt: skip
ERROR_TYPES = {413: "Validation", 422: "Validation", 400: "Validation", 429: "Overloaded"}


class ErrorResponse(BaseModel):
    """An error as its clients read it."""

    error: str
    error_type: str


class Embed(BaseModel):
    """Texts to encode. ``prompt_name`` "query" encodes them as queries; dense vectors are of length 1."""

    model_config = ConfigDict(extra="ignore")

    inputs: str | list[str]
    truncate: bool = True
    prompt_name: str | None = None
    dimensions: int | None = Field(default=None, ge=1)


class Tokenize(BaseModel):
    """Texts to count the tokens of; ``prompt_name`` as in :class:`Embed`."""

    model_config = ConfigDict(extra="ignore")

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class Rerank(BaseModel):
    """A query and the texts to order."""

    model_config = ConfigDict(extra="ignore")

    query: str
    texts: list[str]
    return_text: bool = False
    truncate: bool = True


class Sentences(BaseModel):
    """One text, and those to compare it with."""

    source_sentence: str
    sentences: list[str]


class Similarity(BaseModel):
    """A request of ``/similarity``."""

    inputs: Sentences


class CohereRerank(BaseModel):
    """Cohere's and Jina's request."""

    model_config = ConfigDict(extra="ignore")

    query: str
    documents: list[str | dict[str, Any]]
    model: str = ""
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


def router(service: Service) -> APIRouter:
    """The routes over one service."""
    failed: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorResponse}}
    routes = APIRouter(tags=["text-embeddings-inference"], responses=failed)

    async def encoded(
        request: Request,
        texts: list[str],
        legs: tuple[Leg, ...],
        body: Embed,
    ) -> Embeddings:
        service.limits.check(texts, "inputs")
        kind = _kind(body.prompt_name)
        result = await embeddings_of(service, request, texts, kind=kind, legs=legs)
        if not body.truncate:
            _check_whole(service, "inputs", result)
        return result

    @routes.post("/", response_model=list[list[float]])
    @routes.post("/embed", response_model=list[list[float]])
    async def embed(body: Embed, request: Request) -> Response:
        """Dense vectors; ``/`` is for clients that know the address alone, as huggingface_hub's does."""
        result = await encoded(request, _listed(body.inputs), ("dense",), body)
        assert result.dense is not None
        vectors = narrowed(result.dense, body.dimensions)
        return await item_by_item(vector.tolist() for vector in vectors)

    @routes.post("/embed_sparse", response_model=list[list[dict[str, Any]]])
    async def embed_sparse(body: Embed, request: Request) -> Response:
        """Lexical weights by term id."""
        result = await encoded(request, _listed(body.inputs), ("sparse",), body)
        assert result.sparse is not None
        rows = [result.sparse[row] for row in range(len(result))]
        return await item_by_item(
            [
                {"index": int(index), "value": float(value)}
                for index, value in zip(row.indices, row.values, strict=True)
            ]
            for row in rows
        )

    @routes.post("/embed_all", response_model=list[list[list[float]]])
    async def embed_all(body: Embed, request: Request) -> Response:
        """One vector a token."""
        result = await encoded(request, _listed(body.inputs), ("multivector",), body)
        multi = result.multivector
        assert multi is not None
        rows = range(len(result))
        return await item_by_item(multi[row].astype(np.float32).tolist() for row in rows)

    @routes.post("/tokenize")
    async def tokenize(body: Tokenize) -> list[list[dict[str, Any]]]:
        """The tokens of each text, none left out."""
        texts = _listed(body.inputs)
        service.limits.check(texts, "inputs")
        kind = _kind(body.prompt_name)
        return await in_thread(_tokens, service, texts, kind, special=body.add_special_tokens)

    @routes.post("/rerank")
    async def rerank(body: Rerank, request: Request) -> list[dict[str, Any]]:
        """Texts by the service's reranker, or by the fused score of all three; best first."""
        scores = await _pair_scores(
            service, request, body.query, body.texts, truncate=body.truncate
        )
        return [
            {"index": row, "score": float(scores[row])}
            | ({"text": body.texts[row]} if body.return_text else {})
            for row in np.argsort(-scores, kind="stable").tolist()
        ]

    @routes.post("/similarity")
    async def similarity(body: Similarity, request: Request) -> list[float]:
        """Inner products of dense vectors."""
        texts = [body.inputs.source_sentence, *body.inputs.sentences]
        service.limits.check(texts, "inputs")
        result = await embeddings_of(service, request, texts, kind="passage", legs=("dense",))
        assert result.dense is not None
        return scoring.dense_scores(result.dense[0], result.dense[1:]).tolist()  # type: ignore[no-any-return]

    @routes.post("/v1/rerank", responses={"default": {"model": schemas.ErrorResponse}})
    async def cohere(body: CohereRerank, request: Request) -> dict[str, Any]:
        """The same for Cohere's and Jina's clients."""
        texts = [_document_text(row, given) for row, given in enumerate(body.documents)]
        scores = await _pair_scores(service, request, body.query, texts)
        best = np.argsort(-scores, kind="stable").tolist()[: body.top_n]
        return {
            "model": body.model or ("reranker" if service.reranker else service.encoder.info.name),
            "results": [
                {"index": row, "relevance_score": float(scores[row])}
                | ({"document": {"text": texts[row]}} if body.return_documents else {})
                for row in best
            ],
        }

    @routes.get("/info")
    async def info() -> dict[str, Any]:
        """What runs here."""
        model = service.encoder.info
        return {
            "model_id": model.name,
            "model_sha": model.fingerprint.weights,
            "model_dtype": model.fingerprint.precision,
            "max_input_length": model.max_length,
            "max_client_batch_size": service.limits.texts,
            "max_batch_tokens": service.encoder.batch_tokens,
            "max_concurrent_requests": service.threads.most,
            "tokenization_workers": 1,
            "auto_truncate": True,
            "model_type": {"embedding": {"pooling": model.fingerprint.pooling}},
            "fingerprint": model.fingerprint.to_json(),
            "version": version("m3connect"),
        }

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health")
    async def health() -> Response:
        """200 while it runs."""
        return Response(status_code=200)

    return routes


async def _pair_scores(
    service: Service, request: Request, query: str, texts: list[str], *, truncate: bool = True
) -> FloatArray:
    """The reranker's scores, on its own scale.

    Without one the fused scores with the model's own weights, between 0 and 1 for most models.
    """
    service.limits.check([query], "query")
    service.limits.check(texts, "texts")
    if service.reranker is not None:
        given = await in_thread(_reranked, service, service.reranker, query, texts)
        return np.array(given, np.float32)
    legs = service.encoder.info.fingerprint.legs
    asked = await embeddings_of(service, request, [query], kind="query", legs=legs)
    many = await embeddings_of(service, request, texts, kind="passage", legs=legs)
    if not truncate:
        _check_whole(service, "query", asked)
        _check_whole(service, "texts", many)
    rows = [str(row) for row in range(len(texts))]
    by_leg = scoring.leg_scores(modes.vectors(asked), rows, many)
    weights = {
        leg: w for leg, w in zip(LEGS, service.encoder.info.weights, strict=True) if leg in by_leg
    }
    total = sum(weights.values())
    summed = [sum(w * by_leg[leg][row] for leg, w in weights.items()) / total for row in rows]
    return np.array(summed, np.float32)


def _kind(prompt_name: str | None) -> Kind:
    return "query" if prompt_name == "query" else "passage"


def _tokens(
    service: Service, texts: list[str], kind: Kind, *, special: bool
) -> list[list[dict[str, Any]]]:
    encoder = service.encoder
    prefix = encoder.config.prefix(kind) if encoder.config else ""
    whole = [(prefix + whole_characters(text)).rstrip() for text in texts]  # as they are encoded
    found = encoder.tokenizer.encode_batch(whole, add_special_tokens=special)
    return [
        [
            {"id": id_, "text": token, "special": True, "start": None, "stop": None}
            if is_special
            else {
                "id": id_,
                "text": text[start:stop],
                "special": False,
                "start": start,
                "stop": stop,
            }
            for id_, token, is_special, (start, stop) in zip(
                each.ids, each.tokens, each.special_tokens_mask, each.offsets, strict=True
            )
        ]
        for text, each in zip(whole, found, strict=True)
    ]


def _check_whole(service: Service, name: str, embeddings: Embeddings) -> None:
    """Refuse what was cut, where the caller does not want that."""
    if embeddings.truncated.any():
        row = int(embeddings.truncated.argmax())
        limit = service.encoder.info.max_length
        raise InputError(f"{name}[{row}] has more than {limit} tokens; truncate is false")


def _reranked(_: Service, reranker: Reranker, query: str, texts: list[str]) -> list[float]:
    return scores_of(reranker, query, texts)


def _listed(inputs: str | list[str]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else inputs


def _document_text(row: int, document: str | dict[str, Any]) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        raise InputError(f"documents[{row}] has no text")
    return text
