"""Our own routes: all three representations, search, explanation, collections, documents."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from m3connect.contract import Kind
from m3connect.errors import ConfigError, InputError
from m3connect.serving import operations
from m3connect.serving.schemas import (
    CollectionSummary,
    DeleteRequest,
    DeleteResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    IngestRequest,
    IngestResponse,
    Passage,
    PassagesRequest,
    SearchRequest,
    SearchResponse,
    SparseWeights,
    TextEmbeddings,
)
from m3connect.serving.service import Service
from m3connect.serving.waiting import embeddings_of, in_thread, item_by_item
from m3connect.types import Compression, Embeddings, Fingerprint

ARROW = "application/vnd.apache.arrow.stream"


def router(service: Service) -> APIRouter:
    """The routes over one service."""
    routes = APIRouter(tags=["m3connect"])

    @routes.post("/v1/m3/embeddings", response_model=EmbeddingsResponse)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        """Encode texts: dense vectors, lexical weights and token vectors in one pass.

        With ``Accept: application/vnd.apache.arrow.stream`` the answer is an Arrow stream with the
        columns of ``Embeddings.to_arrow``; it is smaller and exact.
        """
        texts = [body.input] if isinstance(body.input, str) else body.input
        service.limits.check(texts)
        info = service.encoder.info
        legs = info.fingerprint.legs if body.legs is None else tuple(body.legs)
        smaller = _compression(body, info.fingerprint)
        result = await embeddings_of(service, request, texts, kind=body.kind, legs=legs)
        fingerprint = info.fingerprint
        if smaller:
            result = await in_thread(_kept, service, smaller, result, body.kind)
            fingerprint = fingerprint.compressed(smaller)
        if ARROW in request.headers.get("accept", ""):
            return Response(_arrow(result, fingerprint), media_type=ARROW)
        answer = EmbeddingsResponse(model=info.name, fingerprint=fingerprint.to_json(), data=[])
        texts_embeddings = (_text_embeddings(result[row]) for row in range(len(result)))
        return await item_by_item(
            (each.model_dump() for each in texts_embeddings),
            before=answer.model_dump_json().removesuffix("]}"),
            after="]}",
        )

    @routes.get("/v1/m3/model")
    async def model() -> dict[str, Any]:
        """What a :class:`~m3connect.inference.remote.RemoteEncoder` needs to know."""
        info = service.encoder.info
        config = service.encoder.config
        return {
            "name": info.name,
            "fingerprint": info.fingerprint.to_json(),
            "weights": info.weights,
            "config": None if config is None else config.model_dump(mode="json"),
        }

    @routes.get("/v1/m3/tokenizer")
    async def tokenizer() -> Response:
        """The model's ``tokenizer.json``."""
        return Response(service.encoder.tokenizer.to_str(), media_type="application/json")

    @routes.post("/v1/search")
    async def search(body: SearchRequest, request: Request) -> SearchResponse:
        """Find passages. Every search obeys the filter that the caller's key is bound to."""
        return await operations.search(service, body, request.state.scope, request)

    @routes.post("/v1/explain")
    async def explain(body: SearchRequest, request: Request) -> SearchResponse:
        """The same, with what each leg, term and token adds to each score."""
        asked = body.model_copy(update={"explain": True})
        return await operations.search(service, asked, request.state.scope, request)

    @routes.get("/v1/collections")
    async def collections(request: Request) -> list[CollectionSummary]:
        """What can be searched; records are counted as the caller's key sees them."""
        scope = request.state.scope
        return list(
            await asyncio.gather(
                *(in_thread(operations.summary, service, name, scope) for name in service.names)
            )
        )

    @routes.post("/v1/passages")
    async def passages(body: PassagesRequest, request: Request) -> list[Passage]:
        """A document's passages in order, as far as the caller's key may see them."""
        return await in_thread(operations.passages, service, body, request.state.scope)

    @routes.post("/v1/ingest")
    async def ingest(body: IngestRequest, request: Request) -> IngestResponse:
        """Add or replace documents; off unless the service was started with ``--writable``."""
        operations.require_writable(service, request.state.scope)
        service.limits.check([document.text for document in body.documents], "documents")
        return await in_thread(operations.ingest, service, body)

    @routes.post("/v1/delete")
    async def delete(body: DeleteRequest, request: Request) -> DeleteResponse:
        """Delete documents by id; off unless the service was started with ``--writable``."""
        operations.require_writable(service, request.state.scope)
        return await in_thread(operations.delete, service, body)

    return routes


def _compression(body: EmbeddingsRequest, fingerprint: Fingerprint) -> Compression:
    """What a request asks to be kept.

    Raises:
        InputError: the service compresses already, or the model's vectors are not that wide.
    """
    if body.compression is None:
        return Compression()
    asked = Compression(**body.compression.model_dump())
    if asked and fingerprint.compression:
        raise InputError(
            f"this service compresses already ({fingerprint.compression}): leave compression out"
        )
    try:
        asked.check(fingerprint.dense_width, fingerprint.multivector_width)
    except ConfigError as error:
        raise InputError(f"compression: {error}") from error
    return asked


def _kept(_: Service, smaller: Compression, embeddings: Embeddings, kind: Kind) -> Embeddings:
    """In a thread of the service's: pooling takes time."""
    return smaller.of(embeddings, kind)


def _arrow(embeddings: Embeddings, fingerprint: Fingerprint) -> bytes:
    """An Arrow stream whose metadata says which model made it."""
    import pyarrow as pa

    metadata = {"m3connect.fingerprint": json.dumps(fingerprint.to_json())}
    table = embeddings.to_arrow().replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _text_embeddings(embedding: Embeddings) -> TextEmbeddings:
    sparse = None if embedding.sparse is None else embedding.sparse[0]
    multi = None if embedding.multivector is None else embedding.multivector[0].astype(np.float32)
    return TextEmbeddings(
        dense=None if embedding.dense is None else embedding.dense[0].tolist(),
        sparse=None
        if sparse is None
        else SparseWeights(indices=sparse.indices.tolist(), values=sparse.values.tolist()),
        multivector=None if multi is None else multi.tolist(),
        n_tokens=int(embedding.n_tokens[0]),
        truncated=bool(embedding.truncated[0]),
    )
