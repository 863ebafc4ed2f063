"""What a caller may do with a service, whatever protocol they speak: search, read, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from m3connect.errors import ConnectorError, InputError
from m3connect.filters import F, Filter, parse
from m3connect.ingestion import ingest as ingest_documents
from m3connect.searching.contexts import by_document, contexts, diverse
from m3connect.searching.explain import explain
from m3connect.searching.modes import parse_mode
from m3connect.searching.search import search as search_collection
from m3connect.serving.access import narrowed
from m3connect.serving.schemas import (
    CollectionSummary,
    DeleteRequest,
    DeleteResponse,
    IngestRequest,
    IngestResponse,
    Passage,
    PassagesRequest,
    SearchHit,
    SearchRequest,
    SearchResponse,
)
from m3connect.serving.service import Service
from m3connect.types import LEGS, Document, Hit

_CHOICE = 5
"""Hits that are searched for each one that is kept when documents or unlike ones are chosen."""


class NotEnabled(InputError):
    """Something that this service does not offer."""


def require_writable(service: Service, scope: Filter | None) -> None:
    """Refuse changes where they are off, or by a key that sees a part only.

    Raises:
        NotEnabled: says how to enable them.
    """
    if not service.writable:
        raise NotEnabled("this service is read-only; start it with --writable to change documents")
    if scope is not None:
        raise NotEnabled("a key that is bound to a filter cannot change documents")


def search(service: Service, body: SearchRequest, scope: Filter | None) -> SearchResponse:
    """Find passages within a scope; with explanations where asked for."""
    service.limits.check([body.query], "query")
    if max(body.limit, body.depth or 0) > service.limits.hits:
        raise InputError(f"limit and depth go up to {service.limits.hits} here")
    condition = narrowed(scope, parse(body.filter) if body.filter else None)
    chosen = body.group_by_document or body.diversity is not None
    with service.collection(body.collection) as connector:
        answer = search_collection(
            connector,
            service.encoder,
            body.query,
            mode=body.mode,
            filter=condition,
            limit=min(body.limit * _CHOICE, service.limits.hits) if chosen else body.limit,
            depth=body.depth,
            offset=body.offset,
            leg_scores=True,
        )
        hits: Sequence[Hit] = answer
        if body.group_by_document:
            hits = by_document(hits)
        if body.diversity is not None:
            hits = diverse(hits, connector, body.limit, diversity=body.diversity)
        kept = hits[: body.limit]
        reasons: Sequence[dict[str, Any] | None] = [None] * len(kept)
        if body.explain:
            explained = explain(connector, service.encoder, body.query, answer.query, kept)
            reasons = [reason.to_json() for reason in explained]
        around = contexts(
            kept,
            connector,
            service.encoder,
            expand=body.expand,
            tokens=body.expand_tokens,
        )
        return SearchResponse(
            collection=connector.collection,
            mode=parse_mode(body.mode),
            hits=[
                _hit(context.hit, reason).model_copy(
                    update={"context": None if body.expand == "nothing" else context.text}
                )
                for context, reason in zip(around, reasons, strict=True)
            ],
        )


def _hit(hit: Hit, explanation: dict[str, Any] | None) -> SearchHit:
    scores = hit.scores
    return SearchHit(
        id=hit.id,
        score=hit.score,
        rank=hit.rank,
        text=hit.text,
        document_id=hit.document_id,
        metadata=dict(hit.metadata),
        scores={} if scores is None else {leg: getattr(scores, leg) for leg in LEGS},
        explanation=explanation,
    )


def passages(service: Service, body: PassagesRequest, scope: Filter | None) -> list[Passage]:
    """A document's passages in order."""
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


def summary(service: Service, name: str, scope: Filter | None) -> CollectionSummary:
    """A collection; what is wrong with it, if it cannot be read."""
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


def ingest(service: Service, body: IngestRequest) -> IngestResponse:
    """Add or replace documents."""
    documents = [Document(d.id, d.text, d.metadata, d.format) for d in body.documents]
    with service.collection(body.collection) as connector, TemporaryDirectory() as folder:
        letters = Path(folder) / "dead-letters.jsonl"
        report = ingest_documents(documents, service.encoder, connector, dead_letters=letters)
        lines = letters.read_text(encoding="utf-8").splitlines() if letters.exists() else []
    failed = [json.loads(line) for line in lines]
    return IngestResponse(
        written=report.written,
        unchanged=report.unchanged,
        failed=[{"id": f.get("id") or "", "reason": f["reason"]} for f in failed],
    )


def delete(service: Service, body: DeleteRequest) -> DeleteResponse:
    """Delete documents by id."""
    with service.collection(body.collection) as connector:
        return DeleteResponse(deleted=connector.delete(F("document_id").isin(body.document_ids)))


def count(service: Service, collection: str | None, text: str | None, scope: Filter | None) -> int:
    """How many records meet a filter within a scope."""
    with service.collection(collection) as connector:
        return connector.count(narrowed(scope, parse(text) if text else None))
