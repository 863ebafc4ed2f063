"""Our own routes: all three representations, search, explanation, collections, documents."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request, Response

from m3connect.errors import ConnectorError, InputError
from m3connect.filters import F, Filter, parse
from m3connect.serving.access import narrowed
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
    SearchHit,
    SearchRequest,
    SearchResponse,
    SparseWeights,
    TextEmbeddings,
)
from m3connect.serving.service import Service
from m3connect.serving.waiting import embeddings_of, in_thread
from m3connect.types import LEGS, PASSAGE_FIELDS, Document, Embeddings, Hit

if TYPE_CHECKING:
    from m3connect.contract import Connector

ARROW = "application/vnd.apache.arrow.stream"


class NotEnabled(InputError):
    """A route that this service does not offer."""


def router(service: Service) -> APIRouter:
    """The routes over one service."""
    routes = APIRouter(tags=["m3connect"])

    @routes.post("/v1/m3/embeddings", response_model=EmbeddingsResponse)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Any:
        """Encode texts: dense vectors, lexical weights and token vectors in one pass.

        With ``Accept: application/vnd.apache.arrow.stream`` the answer is an Arrow stream with the
        columns of ``Embeddings.to_arrow``; it is smaller and exact.
        """
        texts = [body.input] if isinstance(body.input, str) else body.input
        service.limits.check(texts)
        legs = LEGS if body.legs is None else tuple(body.legs)
        result = await embeddings_of(service, request, texts, kind=body.kind, legs=legs)
        if ARROW in request.headers.get("accept", ""):
            return Response(_arrow(result), media_type=ARROW)
        info = service.encoder.info
        return EmbeddingsResponse(
            model=info.name,
            fingerprint=info.fingerprint.to_json(),
            data=[_text_embeddings(result[row]) for row in range(len(result))],
        )

    @routes.post("/v1/search")
    async def search(body: SearchRequest, request: Request) -> SearchResponse:
        """Find passages. Every search obeys the filter that the caller's key is bound to."""
        return await in_thread(_search, service, body, request.state.scope)

    @routes.post("/v1/explain")
    async def explain(body: SearchRequest, request: Request) -> SearchResponse:
        """The same, with what each leg, term and token adds to each score."""
        asked = body.model_copy(update={"explain": True})
        return await in_thread(_search, service, asked, request.state.scope)

    @routes.get("/v1/collections")
    async def collections(request: Request) -> list[CollectionSummary]:
        """What can be searched; records are counted as the caller's key sees them."""
        scope = request.state.scope
        return list(
            await asyncio.gather(
                *(in_thread(_summary, service, name, scope) for name in service.names)
            )
        )

    @routes.post("/v1/passages")
    async def passages(body: PassagesRequest, request: Request) -> list[Passage]:
        """A document's passages in order, as far as the caller's key may see them."""
        return await in_thread(_passages, service, body, request.state.scope)

    @routes.post("/v1/ingest")
    async def ingest(body: IngestRequest, request: Request) -> IngestResponse:
        """Add or replace documents; off unless the service was started with ``--writable``."""
        _require_writable(service, request)
        service.limits.check([document.text for document in body.documents], "documents")
        return await in_thread(_ingest, service, body)

    @routes.post("/v1/delete")
    async def delete(body: DeleteRequest, request: Request) -> DeleteResponse:
        """Delete documents by id; off unless the service was started with ``--writable``."""
        _require_writable(service, request)
        return await in_thread(_delete, service, body)

    return routes


def _arrow(embeddings: Embeddings) -> bytes:
    import pyarrow as pa

    table = embeddings.to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _text_embeddings(one: Embeddings) -> TextEmbeddings:
    sparse = None if one.sparse is None else one.sparse[0]
    multi = None if one.multivector is None else one.multivector[0].astype(np.float32)
    return TextEmbeddings(
        dense=None if one.dense is None else one.dense[0].tolist(),
        sparse=None
        if sparse is None
        else SparseWeights(indices=sparse.indices.tolist(), values=sparse.values.tolist()),
        multivector=None if multi is None else multi.tolist(),
        n_tokens=int(one.n_tokens[0]),
        truncated=bool(one.truncated[0]),
    )


def _search(service: Service, body: SearchRequest, scope: Filter | None) -> SearchResponse:
    from m3connect.searching.search import search

    service.limits.check([body.query], "query")
    if max(body.limit, body.depth or 0) > service.limits.hits:
        raise InputError(f"limit and depth go up to {service.limits.hits} here")
    condition = narrowed(scope, parse(body.filter) if body.filter else None)
    with service.collection(body.collection) as connector:
        answer = search(
            connector,
            service.encoder,
            body.query,
            mode=body.mode,
            filter=condition,
            limit=body.limit,
            depth=body.depth,
        )
        reasons = (
            [reason.to_json() for reason in answer.explain()]
            if body.explain
            else [None] * len(answer)
        )
        return SearchResponse(
            collection=connector.collection,
            mode=body.mode,
            hits=[_hit(hit, reason) for hit, reason in zip(answer, reasons, strict=True)],
        )


def _hit(hit: Hit, explanation: dict[str, Any] | None) -> SearchHit:
    scores = hit.scores
    return SearchHit(
        id=hit.id,
        score=hit.score,
        rank=hit.rank,
        text=hit.payload.get("text"),
        document_id=hit.payload.get("document_id"),
        metadata={k: v for k, v in hit.payload.items() if k not in PASSAGE_FIELDS},
        scores={} if scores is None else {leg: getattr(scores, leg) for leg in LEGS},
        explanation=explanation,
    )


def _passages(service: Service, body: PassagesRequest, scope: Filter | None) -> list[Passage]:
    condition: Filter = F("document_id") == body.document_id
    if body.first is not None:
        condition &= F("position") >= body.first
    if body.last is not None:
        condition &= F("position") <= body.last
    with service.collection(body.collection) as connector:
        records = [
            Passage(id=id_, position=payload.get("position", 0), text=payload.get("text", ""))
            for batch in connector.scan(narrowed(scope, condition))
            for id_, payload in zip(batch.ids, batch.payloads, strict=True)
        ]
    return sorted(records, key=lambda passage: passage.position)[: service.limits.hits]


def _summary(service: Service, name: str, scope: Filter | None) -> CollectionSummary:
    try:
        with service.collection(name) as connector:
            schema = connector.describe().schema
            return CollectionSummary(
                name=name,
                records=connector.count(scope),
                legs=list(schema.legs),
                model=schema.fingerprint.model if schema.fingerprint else None,
                fields=dict(schema.payload_fields),
            )
    except ConnectorError as error:  # one that is missing or down does not hide the others
        return CollectionSummary(
            name=name, records=None, legs=[], model=None, fields={}, error=str(error)
        )


def _require_writable(service: Service, request: Request) -> None:
    if not service.writable:
        raise NotEnabled("this service is read-only; start it with --writable to change documents")
    if request.state.scope is not None:
        raise NotEnabled("a key that is bound to a filter cannot change documents")


def _ingest(service: Service, body: IngestRequest) -> IngestResponse:
    from m3connect.ingestion import ingest

    documents = [Document(d.id, d.text, d.metadata, d.format) for d in body.documents]
    with service.collection(body.collection) as connector, TemporaryDirectory() as folder:
        letters = Path(folder) / "dead-letters.jsonl"
        report = ingest(documents, service.encoder, connector, dead_letters=letters)
        lines = letters.read_text(encoding="utf-8").splitlines() if letters.exists() else []
    failed = [json.loads(line) for line in lines]
    return IngestResponse(
        written=report.written,
        unchanged=report.unchanged,
        failed=[{"id": f.get("id") or "", "reason": f["reason"]} for f in failed],
    )


def _delete(service: Service, body: DeleteRequest) -> DeleteResponse:
    with service.collection(body.collection) as connector:
        deleted = _delete_documents(connector, body.document_ids)
    return DeleteResponse(deleted=deleted)


def _delete_documents(connector: Connector, document_ids: list[str]) -> int:
    return connector.delete(F("document_id").isin(document_ids))
