"""Haystack: a document store over any connector and a retriever, one encoder pass a text.

    store = M3DocumentStore("qdrant", collection="handbook", model="m3-mini")
    pipeline.add_component("retriever", M3HybridRetriever(document_store=store, mode="all"))

``pip install "m3connect[haystack]"``. The store is described by names, so that pipelines can be saved;
connector and model are opened on first use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError

from m3connect.connecting.registry import connect
from m3connect.contract import CollectionSchema, Connector, Encoder
from m3connect.errors import CollectionNotFound
from m3connect.filters import And, Eq, Exists, Filter, In, Not, Or, Range, parse_date
from m3connect.searching.names import ModeName
from m3connect.searching.search import search
from m3connect.types import RecordBatch, shown
from m3connect.types.records import text_of

_BATCH = 256
"""Documents that are encoded or read with their vectors at a time."""

_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


class M3DocumentStore:
    """A collection as Haystack's document store.

    Args:
        target: the database, see :func:`m3connect.connect`.
        collection: the collection, made with the first document.
        model: see :meth:`m3connect.M3Encoder.load`.
        options: of the connector, such as ``url`` or ``path``; keys are better in the environment.
        encoder: in place of loading ``model``.
    """

    def __init__(
        self,
        target: str = "qdrant",
        *,
        collection: str = "documents",
        model: str = "m3-mini",
        options: dict[str, Any] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self.target = target
        self.collection = collection
        self.model = model
        self.options = options or {}
        self._given = encoder

    @cached_property
    def connector(self) -> Connector:
        """The collection."""
        return connect(self.target, collection=self.collection, **self.options)

    @cached_property
    def encoder(self) -> Encoder:
        """The model."""
        if self._given is not None:
            return self._given
        from m3connect.inference import M3Encoder

        return M3Encoder.load(self.model)

    def to_dict(self) -> dict[str, Any]:
        """For saved pipelines."""
        return default_to_dict(
            self,
            target=self.target,
            collection=self.collection,
            model=self.model,
            options=self.options,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> M3DocumentStore:
        """From :meth:`to_dict`."""
        return default_from_dict(cls, data)

    def count_documents(self) -> int:
        """How many there are."""
        return self.count_documents_by_filter({})

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many meet a filter."""
        condition = to_filter(filters)
        try:
            return self.connector.count(condition)
        except CollectionNotFound:
            return 0

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """All that meet a filter, ordered by id."""
        condition = to_filter(filters)
        try:
            rows = [
                _document(id_, payload)
                for batch in self.connector.scan(condition)
                for id_, payload in zip(batch.ids, batch.payloads, strict=True)
            ]
        except CollectionNotFound:
            return []
        return sorted(rows, key=lambda document: document.id)

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Store documents, each encoded once; NONE means OVERWRITE.

        Raises:
            DuplicateDocumentError: with FAIL, an id is there already; nothing is written.
            ValueError: something is no Document.
        """
        if not isinstance(documents, list) or not all(isinstance(d, Document) for d in documents):
            raise ValueError("documents is a list of haystack Documents")
        if policy in {DuplicatePolicy.FAIL, DuplicatePolicy.SKIP}:
            existing = self._existing([document.id for document in documents])
            if existing and policy is DuplicatePolicy.FAIL:
                raise DuplicateDocumentError(f"these ids are stored already: {sorted(existing)}")
            documents = [document for document in documents if document.id not in existing]
        unique = {document.id: document for document in documents}  # the last of equal ids wins
        if not unique:
            return 0
        made_by, stores = self.encoder.info.fingerprint, self.connector.capabilities.stores
        self.connector.ensure(CollectionSchema.of(made_by, stores))
        listed = list(unique.values())
        for start in range(0, len(listed), _BATCH):
            batch = listed[start : start + _BATCH]
            vectors = self.encoder.encode([each.content or "" for each in batch], kind="passage")
            payloads = [_payload(each) for each in batch]
            self.connector.upsert(RecordBatch([each.id for each in batch], payloads, vectors))
        self.connector.flush()
        return len(unique)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete by ids; missing ones are no error."""
        try:
            self.connector.delete(document_ids)
        except CollectionNotFound:
            return

    def delete_all_documents(self) -> None:
        """Delete every document; the collection stays."""
        self.delete_by_filter({})

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete what meets a filter; how many went."""
        condition = to_filter(filters)
        try:
            return self.connector.delete(And(()) if condition is None else condition)
        except CollectionNotFound:
            return 0

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Change metadata of what meets a filter; vectors stay, nothing is encoded."""
        ids = [document.id for document in self.filter_documents(filters)]
        for start in range(0, len(ids), _BATCH):
            batch = self.connector.fetch(ids[start : start + _BATCH], vectors=True)
            changed = [_with_meta(payload, meta) for payload in batch.payloads]
            self.connector.upsert(RecordBatch(batch.ids, changed, batch.embeddings))
        if ids:
            self.connector.flush()
        return len(ids)

    def search(
        self, query: str, *, mode: ModeName, limit: int, filters: dict[str, Any] | None = None
    ) -> list[Document]:
        """The best documents for a query, with their scores."""
        condition = to_filter(filters)
        try:
            hits = search(
                self.connector, self.encoder, query, mode=mode, limit=limit, filter=condition
            )
        except CollectionNotFound:
            return []
        return [_document(hit.id, hit.payload, hit.score) for hit in hits]

    async def count_documents_async(self) -> int:
        """:meth:`count_documents` in a thread."""
        return await asyncio.to_thread(self.count_documents)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """:meth:`filter_documents` in a thread."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """:meth:`write_documents` in a thread."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """:meth:`delete_documents` in a thread."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    def _existing(self, ids: list[str]) -> set[str]:
        try:
            return set(self.connector.fetch(ids, vectors=False).ids)
        except CollectionNotFound:
            return set()


@component
class M3HybridRetriever:
    """The best documents of an :class:`M3DocumentStore` for a query, in any mode.

    Args:
        document_store: where they lie.
        mode: how they are found.
        top_k: how many.
        filters: which may be found, in Haystack's form.
    """

    def __init__(
        self,
        document_store: M3DocumentStore,
        mode: ModeName = "hybrid",
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> None:
        self.document_store = document_store
        self.mode = mode
        self.top_k = top_k
        self.filters = filters

    def to_dict(self) -> dict[str, Any]:
        """For saved pipelines."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            mode=self.mode,
            top_k=self.top_k,
            filters=self.filters,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> M3HybridRetriever:
        """From :meth:`to_dict`."""
        options = data["init_parameters"]
        options["document_store"] = M3DocumentStore.from_dict(options["document_store"])
        return default_from_dict(cls, data)  # type: ignore[no-any-return]

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """Documents with scores, best first."""
        limit = self.top_k if top_k is None else top_k
        documents = self.document_store.search(
            query, mode=self.mode, limit=limit, filters=filters or self.filters
        )
        return {"documents": documents}


def to_filter(filters: dict[str, Any] | None) -> Filter | None:
    """Haystack's filter as ours; None for an empty one.

    >>> to_filter({"field": "meta.lang", "operator": "==", "value": "de"})
    Eq(field='meta.lang', value='de')

    Raises:
        FilterError: a missing key, an unknown operator or a value that cannot be compared.
    """
    if not filters:
        return None
    if "conditions" in filters:
        return _group(filters)
    for key in ("field", "operator", "value"):
        if key not in filters:
            raise FilterError(f"a condition has {key!r}; got {sorted(filters)}")
    return _comparison(filters["field"], filters["operator"], filters["value"])


def _group(filters: dict[str, Any]) -> Filter:
    if "operator" not in filters:
        raise FilterError(f"a group has 'operator'; got {sorted(filters)}")
    parts = tuple(part for each in filters["conditions"] if (part := to_filter(each)) is not None)
    match filters["operator"]:
        case "AND":
            return And(parts)
        case "OR":
            return Or(parts)
        case "NOT":  # Haystack negates the conjunction
            return Not(And(parts))
    raise FilterError(f"{filters['operator']!r} is no operator of a group")


def _comparison(field: str, operator: str, value: Any) -> Filter:
    match operator:
        case "==" | "!=":
            same: Filter = Not(Exists(field)) if value is None else _equal(field, value)
            return same if operator == "==" else Not(same)
        case "in" | "not in":
            if not isinstance(value, list):
                raise FilterError(f"{operator!r} takes a list, got {type(value).__name__}")
            within = In(field, tuple(value))
            return within if operator == "in" else Not(within)
        case ">" | ">=" | "<" | "<=":
            if value is None:
                return Or(())  # nothing is greater or less than nothing
            return Range(field, **{_BOUNDS[operator]: _bound(value)})
    raise FilterError(f"{operator!r} is no operator of a comparison")


def _equal(field: str, value: Any) -> Filter:
    if isinstance(value, list):
        raise FilterError("a list is compared with 'in'")
    return Eq(field, value)


def _bound(value: Any) -> Any:
    if isinstance(value, str):
        moment = parse_date(value)
        if moment is None:
            raise FilterError(f"{value!r} is no ISO date: other strings have no order")
        return moment
    if isinstance(value, list):
        raise FilterError("a list has no order")
    return value


def _payload(document: Document) -> dict[str, Any]:
    """Everything but the foreign embedding, which is not ours to keep."""
    values = document.to_dict(flatten=False)
    kept = {name: value for name, value in values.items() if value is not None}
    for name in ("embedding", "sparse_embedding", "score"):
        kept.pop(name, None)
    return kept


def _document(id_: str, payload: Mapping[str, Any], score: float | None = None) -> Document:
    """What :func:`_payload` made of a document; or a passage that ingestion wrote."""
    if _was_document(payload):
        return Document.from_dict({**payload, "score": score})
    meta = shown(payload)
    meta.pop("text", None)
    return Document(id=id_, content=text_of(payload), meta=meta, score=score)


def _with_meta(payload: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """A payload whose document has more metadata, see :func:`_document`."""
    if _was_document(payload):
        return {**payload, "meta": {**payload.get("meta", {}), **meta}}
    return {**payload, **meta}


def _was_document(payload: Mapping[str, Any]) -> bool:
    """Whether :func:`_payload` made it."""
    return "id" in payload and "text" not in payload
