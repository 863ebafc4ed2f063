"""The passages of a collection by id: read in pages, compared by digest, encoded in groups, marked anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from m3connect.connecting.portions import portions
from m3connect.contract import Connector
from m3connect.errors import InputError
from m3connect.filters import EVERY_TENANT
from m3connect.ingestion.chunking import chunk_id, chunk_ids
from m3connect.ingestion.ledger import FIELD, content_hash, encoded_hash
from m3connect.types import Payload, stored_text

# A page is short, for a server keeps a scan open no longer than some minutes from page to page.
PAGE, GROUP_PASSAGES, GROUP_CHARACTERS = 128, 128, 1 << 16


def pages(collection: Connector) -> Iterator[dict[str, Payload]]:
    """All payloads by id, a page at a time."""
    for batch in collection.scan(EVERY_TENANT, batch_size=PAGE):
        yield dict(zip(batch.ids, batch.payloads, strict=True))


def digests(collection: Connector, *, marks: bool = True) -> dict[str, int]:
    """Digests of all payloads, by id; without their marks they tell what was ingested, and by no run."""
    return {
        id_: digest(payload if marks else {**payload, FIELD: None})
        for page in pages(collection)
        for id_, payload in page.items()
    }


def portions_of(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ids, a page at a time."""
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


def digest_of(held: Mapping[str, int]) -> str:
    """One for all payloads of a collection, from those that :func:`digests` gives."""
    return content_hash(sorted(held.items()))


def payloads(collection: Connector, ids: Sequence[str]) -> Iterator[tuple[str, Payload]]:
    """The payloads of those records that are there, by id."""
    for part in portions_of(ids):
        batch = collection.fetch(part, vectors=False)
        yield from zip(batch.ids, batch.payloads, strict=True)


def digest(payload: Payload) -> int:
    """A number for a payload, the same for the old and the new record of a passage.

    What its mark says of the vectors is left out.

    >>> old = {"text": "a", "_ingest": {"hash": "1", "encoded": "x"}}
    >>> new = {"text": "a", "_ingest": {"hash": "1", "encoded": "y"}}
    >>> digest(old) == digest(new) != digest({**new, "text": "b"})
    True
    """
    mark = payload.get(FIELD)
    if isinstance(mark, Mapping):
        payload = {**payload, FIELD: {**mark, "encoded": None}}
    return int(content_hash(payload)[:16], 16)


def text_of(id_: str, payload: Payload) -> str:
    """What is encoded of a passage: its context and its text.

    Raises:
        InputError: there is no text.
    """
    if not isinstance(payload.get("text"), str):
        raise InputError(
            f"record {id_!r} has no text in its payload to encode again: ingest its source with the new "
            "model into a new collection (--collection NAME)"
        )
    return stored_text(payload)


def groups(news: Mapping[str, Payload]) -> Iterator[dict[str, Payload]]:
    """Passages that are encoded together."""
    ids = [*news]
    sizes = (len(text_of(id_, payload)) for id_, payload in news.items())
    for part in portions(sizes, count=GROUP_PASSAGES, weight=GROUP_CHARACTERS):
        yield {id_: news[id_] for id_ in ids[part]}


def marked_anew(
    news: Mapping[str, Payload], collection: Connector, weights: str
) -> dict[str, Payload]:
    """The payloads with marks that say what the new vectors were made of.

    So the next run of ingestion finds that it need not encode these texts. It is left open where the
    collection does not hold the document's passages whole, of one version.

    Args:
        news: payloads by id.
        collection: where the other passages of their documents are.
        weights: of the model.
    """
    siblings = {
        id_: chunk_ids(payload["document_id"], 0, payload[FIELD]["chunks"])
        for id_, payload in news.items()
        if _carries_mark(id_, payload)
    }
    further = sorted({other for ids in siblings.values() for other in ids} - news.keys())
    known = {**news, **dict(payloads(collection, further))}
    return {
        id_: _remarked(payload, [known.get(other) for other in siblings[id_]], weights)
        if id_ in siblings
        else payload
        for id_, payload in news.items()
    }


def _carries_mark(id_: str, payload: Payload) -> bool:
    """Whether it is one of the first two passages of a document that ingestion cut."""
    document, position = payload.get("document_id"), payload.get("position")
    if not isinstance(document, str) or position not in (0, 1):
        return False
    return id_ == chunk_id(document, position) and "chunks" in (payload.get(FIELD) or ())


def _remarked(payload: Payload, passages: Sequence[Payload | None], weights: str) -> Payload:
    mark = payload[FIELD]
    marks = [(each or {}).get(FIELD) or {} for each in passages]
    whole = [
        each
        for each, other in zip(passages, marks, strict=True)
        if each is not None and other.get("hash") == mark["hash"]
    ]
    texts = [stored_text(each) for each in whole]
    encoded = encoded_hash(weights, texts) if len(whole) == len(passages) else None
    return {**payload, FIELD: {**mark, "encoded": encoded}}
