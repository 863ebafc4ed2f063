"""LlamaIndex: a vector store over any connector, a retriever, and the embedding that shares its pass.

    store, embedding = M3VectorStore.open(connector, M3Encoder.load("m3-mini"))
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)

``pip install "m3connect[llama-index]"``. LlamaIndex embeds texts before it hands them to a store; the
embedding remembers what the encoder made until the store has it, so that nothing is encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from pydantic import ConfigDict, PrivateAttr

from m3connect.contract import CollectionSchema, Connector, Encoder
from m3connect.errors import CollectionNotFound, InputError
from m3connect.filters import And, Eq, Exists, F, Filter, In, Not, Or, Range, Scalar
from m3connect.integrations.remembering import Remembered
from m3connect.searching import planner
from m3connect.searching.names import ModeName
from m3connect.searching.search import build_queries
from m3connect.types import Embeddings, Hit, RecordBatch, shown
from m3connect.types.records import text_of

_BATCH = 256
"""Nodes that are written at a time."""

_DOCUMENT = "document_id"
"""The field that LlamaIndex's nodes and ingestion's passages have with the id of their document."""

_BOUNDS = {"<": "lt", ">": "gt", "<=": "lte", ">=": "gte"}


class M3Embedding(BaseEmbedding):
    """Dense vectors for LlamaIndex, and all three representations for our store, from one pass.

    What is embedded is kept until the store has stored it, in any threads.

    Args:
        encoder: the model.
        remembered_bytes: of texts and representations that are kept. What is pushed out before it is
            stored is encoded once more: an index hands over ``insert_batch_size`` nodes at a time, of
            which a model with wide token vectors takes some megabytes each.
    """

    model_config = ConfigDict(extra="forbid")

    _remembered: Remembered = PrivateAttr()

    def __init__(self, encoder: Encoder, *, remembered_bytes: int = 2**30, **options: Any) -> None:
        super().__init__(model_name=encoder.info.name, **options)
        self._remembered = Remembered(encoder, remembered_bytes)

    @property
    def encoder(self) -> Encoder:
        """The model."""
        return self._remembered.encoder

    @property
    def remembered(self) -> Remembered:
        """What is kept of what the model made."""
        return self._remembered

    def _get_query_embedding(self, query: str) -> list[float]:
        return _dense(self.remembered.encode([query], "query")[0])

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return _dense(self.remembered.encode([text], "passage")[0])

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [_dense(embedding) for embedding in self.remembered.encode(texts, "passage")]


class M3VectorStore(BasePydanticVectorStore):
    """A collection as LlamaIndex's vector store.

    Args:
        connector: the collection; it is made with the first node.
        embedding: the index's ``embed_model``.
        mode: of queries.
    """

    model_config = ConfigDict(extra="forbid")

    stores_text: bool = True
    is_embedding_query: bool = False
    mode: ModeName = "hybrid"
    _connector: Any = PrivateAttr()
    _embedding: M3Embedding = PrivateAttr()

    def __init__(self, connector: Connector, embedding: M3Embedding, **options: Any) -> None:
        super().__init__(**options)
        self._connector = connector
        self._embedding = embedding

    @classmethod
    def open(
        cls, connector: Connector, encoder: Encoder, **options: Any
    ) -> tuple[M3VectorStore, M3Embedding]:
        """A store and the embedding that shares its passes."""
        embedding = M3Embedding(encoder)
        return cls(connector, embedding, **options), embedding

    @property
    def client(self) -> Connector:
        """The connector."""
        connector: Connector = self._connector
        return connector

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Store nodes; those with ids that are there are replaced."""
        if not nodes:
            return []
        remembered = self._embedding.remembered
        made_by = remembered.encoder.info.fingerprint
        self.client.ensure(CollectionSchema.of(made_by, self.client.capabilities.stores))
        ids = [node.node_id for node in nodes]
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        for start in range(0, len(nodes), _BATCH):
            rows = slice(start, start + _BATCH)
            vectors = Embeddings.concat(remembered.encode(texts[rows], "passage"))
            payloads = [
                node_to_metadata_dict(node, remove_text=False, flat_metadata=False)
                for node in nodes[rows]
            ]
            self.client.upsert(RecordBatch(ids[rows], payloads, vectors))
        self.client.flush()
        remembered.forget(texts, "passage")
        return ids

    def delete(self, ref_doc_id: str, **unknown: Any) -> None:
        """Delete the nodes of a document, or the passages that ingestion wrote of it."""
        _refuse(unknown)
        self._delete(F(_DOCUMENT) == ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **unknown: Any,
    ) -> None:
        """Delete the nodes that have one of the ids and meet the filter, where both are given.

        No ids, an empty list, are no nodes. Without both nothing goes: :meth:`clear` deletes all.
        """
        _refuse(unknown)
        condition = to_filter(filters)
        if node_ids is None:
            if condition is not None:
                self._delete(condition)
        elif condition is None:
            self._delete(node_ids)
        else:
            self._delete([node.node_id for node in self.get_nodes(node_ids, filters)])

    def clear(self) -> None:
        """Delete all nodes; the collection stays."""
        self._delete(And(()))

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes that have one of the ids and meet the filter; each is left out where None."""
        condition = to_filter(filters)
        try:
            if node_ids is not None:
                batches = iter([self.client.fetch(node_ids, vectors=False).matching(condition)])
            else:
                batches = self.client.scan(condition)
            return [
                _node(id_, payload)
                for batch in batches
                for id_, payload in zip(batch.ids, batch.payloads, strict=True)
            ]
        except CollectionNotFound:
            return []

    def query(self, query: VectorStoreQuery, **unknown: Any) -> VectorStoreQueryResult:
        """The best nodes for a text.

        ``filters``, ``doc_ids`` and ``node_ids`` restrict what may be found, all that are given; an empty
        list is none. (An index with IndexNodes or ImageNodes names these alone in the ``node_ids`` of
        its own retriever; :class:`M3Retriever` finds the others, too.) The query mode ``default`` is the
        store's mode.

        Raises:
            InputError: a vector and no text, or an option that has no meaning here.
        """
        _refuse(unknown)
        if not query.query_str:
            raise InputError("M3VectorStore searches by text: give query_str")
        for option in ("alpha", "sparse_top_k", "hybrid_top_k"):
            if getattr(query, option) is not None:
                raise InputError(
                    f"{option} has no meaning here: `m3connect tune` chooses weights and depths"
                )
        mode = self._mode_of(query)
        try:
            hits = self._find(query, mode)
        except CollectionNotFound:
            hits = []
        return VectorStoreQueryResult(
            nodes=[_node(hit.id, hit.payload) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def _find(self, query: VectorStoreQuery, mode: ModeName) -> list[Hit]:
        condition = to_filter(query.filters)
        if query.doc_ids:
            of_documents = In(_DOCUMENT, tuple(query.doc_ids))
            condition = of_documents if condition is None else And((condition, of_documents))
        info = self.client.describe()
        (asked,) = build_queries(
            info,
            self._embedding.encoder,
            [query.query_str or ""],
            mode=mode,
            limit=query.similarity_top_k,
            filter=condition,
        )
        if query.node_ids:
            asked = replace(asked, within=tuple(query.node_ids))
        return planner.run(self.client, [asked], schema=info.schema)[0]

    def _mode_of(self, query: VectorStoreQuery) -> ModeName:
        match query.mode:
            case VectorStoreQueryMode.DEFAULT:
                return self.mode
            case VectorStoreQueryMode.SPARSE:
                return "sparse"
            case VectorStoreQueryMode.HYBRID:
                return "hybrid"
        raise InputError(
            f"the query mode {str(query.mode.value)!r} has no meaning here: give default, sparse or "
            "hybrid, or another mode to the store"
        )

    def _delete(self, where: list[str] | Filter) -> None:
        try:
            self.client.delete(where)
        except CollectionNotFound:
            return


class M3Retriever(BaseRetriever):
    """The best nodes of a store, in any mode.

    Args:
        store: where they lie.
        mode: how they are found.
        limit: how many.
        filters: which may be found.
    """

    def __init__(
        self,
        store: M3VectorStore,
        *,
        mode: ModeName = "hybrid",
        limit: int = 10,
        filters: MetadataFilters | None = None,
    ) -> None:
        super().__init__()
        self._store = store.model_copy(update={"mode": mode})
        self._limit = limit
        self._filters = filters

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = VectorStoreQuery(
            query_str=query_bundle.query_str, similarity_top_k=self._limit, filters=self._filters
        )
        answer = self._store.query(query)
        pairs = zip(answer.nodes or [], answer.similarities or [], strict=True)
        return [NodeWithScore(node=node, score=score) for node, score in pairs]


def _node(id_: str, payload: Mapping[str, Any]) -> BaseNode:
    """What LlamaIndex stored of a node; or a passage that ingestion wrote."""
    if "_node_content" in payload:
        return metadata_dict_to_node(dict(payload))
    metadata = shown(payload)
    metadata.pop("text", None)
    return TextNode(id_=id_, text=text_of(payload), metadata=metadata)


def to_filter(filters: MetadataFilters | None) -> Filter | None:
    """LlamaIndex's filters as ours; None for none.

    Raises:
        InputError: an operator that has no meaning here.
    """
    if filters is None or not filters.filters:
        return None
    parts = tuple(
        condition
        for each in filters.filters
        if (condition := _comparison(each) if isinstance(each, MetadataFilter) else to_filter(each))
        is not None
    )
    match filters.condition:
        case FilterCondition.OR:
            return Or(parts)
        case FilterCondition.NOT:
            return Not(Or(parts))
        case _:
            return And(parts)


def _comparison(each: MetadataFilter) -> Filter:
    field, value = each.key, each.value
    match each.operator:
        case FilterOperator.EQ:
            return Eq(field, value)  # type: ignore[arg-type]  # checked by Eq
        case FilterOperator.NE:
            return Not(Eq(field, value))  # type: ignore[arg-type]  # checked by Eq
        case FilterOperator.GT | FilterOperator.GTE | FilterOperator.LT | FilterOperator.LTE:
            return Range(field, **{_BOUNDS[each.operator.value]: value})
        case FilterOperator.IN | FilterOperator.ANY:
            return F(field).isin(_listed(each))
        case FilterOperator.NIN:
            return Not(F(field).isin(_listed(each)))
        case FilterOperator.CONTAINS:  # a list of the metadata has this element
            return Eq(field, value)  # type: ignore[arg-type]  # checked by Eq
        case FilterOperator.IS_EMPTY:
            return Not(Exists(field))
    raise InputError(f"the operator {each.operator.value!r} of field {field!r} has no meaning here")


def _listed(each: MetadataFilter) -> Sequence[Scalar]:
    if not isinstance(each.value, list):
        raise InputError(
            f"the operator {each.operator.value!r} of field {each.key!r} takes a list, got {each.value!r}"
        )
    return each.value


def _refuse(unknown: Mapping[str, Any]) -> None:
    if unknown:
        raise InputError(f"M3VectorStore has no option {', '.join(sorted(unknown))}")


def _dense(embedding: Embeddings) -> list[float]:
    assert embedding.dense is not None
    return [float(value) for value in embedding.dense[0]]
