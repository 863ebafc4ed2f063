"""What a caller may do with a service, whatever protocol they speak: search, read, write."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from m3connect.contract import Connector, FieldKind
from m3connect.errors import ConnectorError, InputError
from m3connect.filters import EVERY_TENANT, F, Filter, parse
from m3connect.ingestion import delete_documents
from m3connect.ingestion import ingest as ingest_documents
from m3connect.searching.modes import parse_mode
from m3connect.searching.search import search as search_collection
from m3connect.serving.access import narrowed, told
from m3connect.serving.batching import QueryEncoder
from m3connect.serving.schemas import (
    CollectionSummary,
    DeleteRequest,
    DeleteResponse,
    IngestRequest,
    IngestResponse,
    Passage,
    PassagesRequest,
    SearchHighlight,
    SearchHit,
    SearchRequest,
    SearchResponse,
)
from m3connect.serving.service import Service
from m3connect.serving.waiting import embeddings_of, in_thread
from m3connect.types import LEGS, Document, Hit
from m3connect.types.records import position_of, text_of

if TYPE_CHECKING:
    from fastapi import Request


_SOME = 32
"""Records that tell what fields a collection has."""
_KINDS: dict[type, FieldKind] = {str: "keyword", bool: "boolean", int: "integer", float: "float"}
_AT_A_TIME = 16
"""Documents that are ingested in one turn of the collection."""


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


async def search(
    service: Service, body: SearchRequest, scope: Filter | None, request: Request | None = None
) -> SearchResponse:
    """Find passages within a scope; with explanations where asked for.

    The query is encoded before it is the collection's turn, together with others that wait.
    """
    service.limits.check([body.query], "query")
    if max(body.offset + body.limit, body.depth or 0, body.pool or 0) > service.limits.hits:
        raise InputError(f"offset + limit, depth and pool go up to {service.limits.hits} here")
    condition = narrowed(scope, _parsed(service, body.filter))
    if body.rerank and service.reranker is None:
        raise NotEnabled("this service has no cross-encoder; start it with --reranker NAME")
    legs = service.encoder.info.fingerprint.legs
    made = await embeddings_of(service, request, [body.query], kind="query", legs=legs)
    encoder = QueryEncoder(service.encoder, body.query, made)
    return await in_thread(_searched, service, body, condition, encoder)


def _searched(
    service: Service, body: SearchRequest, condition: Filter | None, encoder: QueryEncoder
) -> SearchResponse:
    with service.collection(body.collection) as connector:
        hits = search_collection(
            connector,
            encoder,
            body.query,
            mode=body.mode,
            filter=condition,
            limit=body.limit,
            depth=body.depth,
            offset=body.offset,
            leg_scores=True,
            min_scores=body.min_scores,
            reranker=service.reranker if body.rerank else None,
            group_by="document" if body.group_by_document else None,
            diversity=body.diversity,
            pool=body.pool,
            expand=body.expand,
            expand_tokens=body.expand_tokens,
            highlight=body.highlight,
        )
        reasons = [why.to_json() for why in hits.explain()] if body.explain else [None] * len(hits)
        return SearchResponse(
            collection=connector.collection,
            mode=parse_mode(body.mode),
            hits=[_hit(hit, reason) for hit, reason in zip(hits, reasons, strict=True)],
        )


def _hit(hit: Hit, explanation: dict[str, Any] | None) -> SearchHit:
    scores = hit.scores
    read = hit.text if hit.context is None else hit.context
    return SearchHit(
        id=hit.id,
        score=hit.score,
        rank=hit.rank,
        text=hit.text,
        document_id=hit.document_id,
        metadata=dict(hit.metadata),
        scores={} if scores is None else {leg: getattr(scores, leg) for leg in LEGS},
        explanation=explanation,
        context=hit.context,
        highlights=[
            SearchHighlight(**asdict(mark), text=read[mark.start : mark.stop])
            for mark in hit.highlights
        ],
    )


def passages(service: Service, body: PassagesRequest, scope: Filter | None) -> list[Passage]:
    """A document's passages in order."""
    condition = EVERY_TENANT & (F("document_id") == body.document_id)
    if body.first is not None:
        condition &= F("position") >= body.first
    if body.last is not None:
        condition &= F("position") <= body.last
    with service.collection(body.collection) as connector:
        records = [
            Passage(id=id_, position=position_of(payload) or 0, text=text_of(payload))
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
                records=connector.count(narrowed(scope, EVERY_TENANT)),
                legs=list(schema.legs),
                model=schema.fingerprint.model if schema.fingerprint else None,
                fields={**_fields(connector, scope), **schema.payload_fields},
            )
    except ConnectorError as error:  # one that is missing or down does not hide the others
        return CollectionSummary(
            name=name, records=None, legs=[], model=None, fields={}, error=told(error, scope)
        )


def _fields(connector: Connector, scope: Filter | None) -> dict[str, FieldKind]:
    """Metadata fields to filter by, with their kinds, as some records within a scope have them."""
    some = next(iter(connector.scan(narrowed(scope, EVERY_TENANT), batch_size=_SOME)), None)
    payloads = [] if some is None else some.payloads
    values = [item for each in payloads for item in Hit("", 0.0, 1, each).metadata.items()]
    return {name: _KINDS[type(value)] for name, value in values if type(value) in _KINDS}


def ingest(service: Service, body: IngestRequest) -> IngestResponse:
    """Add or replace documents, a few at a time: searches of the collection take turns with them."""
    documents = [Document(d.id, d.text, d.metadata, d.format) for d in body.documents]
    answer = IngestResponse(written=0, unchanged=0, failed=[])
    for start in range(0, len(documents), _AT_A_TIME):
        few = documents[start : start + _AT_A_TIME]
        with TemporaryDirectory() as folder, service.collection(body.collection) as connector:
            letters = Path(folder) / "dead-letters.jsonl"
            try:
                report = ingest_documents(few, service.encoder, connector, dead_letters=letters)
            except InputError:
                failed = _failed(letters)
                if len(failed) < len(few):
                    raise
            else:
                failed = _failed(letters)
                answer.written += report.written
                answer.unchanged += report.unchanged
        answer.failed += failed
    return answer


def _failed(letters: Path) -> list[dict[str, str]]:
    """Which documents failed, and why."""
    lines = letters.read_text(encoding="utf-8").splitlines() if letters.exists() else []
    told = [json.loads(line) for line in lines]
    return [{"id": each.get("id") or "", "reason": each["reason"]} for each in told]


def delete(service: Service, body: DeleteRequest) -> DeleteResponse:
    """Delete documents by id."""
    with service.collection(body.collection) as connector:
        return DeleteResponse(deleted=delete_documents(connector, body.document_ids))


def count(service: Service, collection: str | None, text: str | None, scope: Filter | None) -> int:
    """How many records meet a filter within a scope."""
    condition = _parsed(service, text)
    with service.collection(collection) as connector:
        return connector.count(narrowed(scope, condition))


def _parsed(service: Service, text: str | None) -> Filter | None:
    if not text:
        return None
    size, limit = len(text.encode(errors="replace")), service.limits.filter_bytes
    if size > limit:
        raise InputError(f"filter has {size} bytes; the limit is {limit}")
    return parse(text)
