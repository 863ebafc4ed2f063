"""LlamaIndex: a vector store over any connector, a retriever, and the embedding that shares its pass.

    store, embedding = M3VectorStore.open(connector, M3Encoder.load("m3-mini"))
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)

``pip install "m3connect[llama-index]"``. LlamaIndex embeds texts before it hands them to a store; the
embedding remembers what the encoder made, so that the store does not encode them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
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
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from pydantic import PrivateAttr

from m3connect.contract import CollectionSchema, Connector, Encoder, Kind
from m3connect.errors import CollectionNotFound, InputError
from m3connect.filters import And, Eq, Exists, F, Filter, In, Not, Or, Range
from m3connect.searching.names import ModeName
from m3connect.searching.search import search
from m3connect.types import Embeddings, Hit, RecordBatch, shown

_BOUNDS = {"<": "lt", ">": "gt", "<=": "lte", ">=": "gte"}


class M3Embedding(BaseEmbedding):
    """Dense vectors for LlamaIndex, and all three representations for our store, from one pass.

    Args:
        encoder: the model.
        remembered: texts whose representations are kept for the store.
    """

    _encoder: Any = PrivateAttr()
    _kept: OrderedDict[tuple[str, str], Embeddings] = PrivateAttr(default_factory=OrderedDict)
    _remembered: int = PrivateAttr()

    def __init__(self, encoder: Encoder, *, remembered: int = 4096, **options: Any) -> None:
        super().__init__(model_name=encoder.info.name, **options)
        self._encoder = encoder
        self._remembered = remembered

    @property
    def encoder(self) -> Encoder:
        """The model."""
        encoder: Encoder = self._encoder
        return encoder

    def representations(self, texts: Sequence[str], kind: Kind) -> list[Embeddings]:
        """One batch of one a text; encoded now unless remembered."""
        new = [text for text in dict.fromkeys(texts) if (kind, text) not in self._kept]
        if new:
            made = self._encoder.encode(new, kind=kind)
            for row, text in enumerate(new):
                self._kept[kind, text] = made[row]
        rows = [self._kept[kind, text] for text in texts]
        while len(self._kept) > self._remembered:
            self._kept.popitem(last=False)
        return rows

    def _get_query_embedding(self, query: str) -> list[float]:
        return _dense(self.representations([query], "query")[0])

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return _dense(self.representations([text], "passage")[0])

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [_dense(embedding) for embedding in self.representations(texts, "passage")]


class M3VectorStore(BasePydanticVectorStore):
    """A collection as LlamaIndex's vector store.

    Args:
        connector: the collection; it is made with the first node.
        embedding: the index's ``embed_model``.
        mode: of queries.
    """

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
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        vectors = Embeddings.concat(self._embedding.representations(texts, "passage"))
        made_by = self._embedding.encoder.info.fingerprint
        self.client.ensure(CollectionSchema.of(made_by, self.client.capabilities.stores))
        ids = [node.node_id for node in nodes]
        payloads = [
            node_to_metadata_dict(node, remove_text=False, flat_metadata=False) for node in nodes
        ]
        self.client.upsert(RecordBatch(ids, payloads, vectors))
        self.client.flush()
        return ids

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a document."""
        self._delete(F("ref_doc_id") == ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **_: Any,
    ) -> None:
        """Delete nodes by ids, and by a filter."""
        if node_ids:
            self._delete(node_ids)
        condition = to_filter(filters)
        if condition is not None:
            self._delete(condition)

    def clear(self) -> None:
        """Delete all nodes; the collection stays."""
        self._delete(And(()))

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by ids, or by a filter."""
        try:
            if node_ids is not None:
                batches = iter([self.client.fetch(node_ids, vectors=False)])
            else:
                batches = self.client.scan(to_filter(filters))
            return [
                _node(id_, payload)
                for batch in batches
                for id_, payload in zip(batch.ids, batch.payloads, strict=True)
            ]
        except CollectionNotFound:
            return []

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        """The best nodes for a text.

        Raises:
            InputError: the query has a vector and no text.
        """
        if not query.query_str:
            raise InputError("M3VectorStore searches by text: give query_str")
        condition = to_filter(query.filters)
        hits: Sequence[Hit] = ()
        try:
            hits = search(
                self.client,
                self._embedding.encoder,
                query.query_str,
                mode=self.mode,
                limit=query.similarity_top_k,
                filter=condition,
            )
        except CollectionNotFound:
            hits = ()
        return VectorStoreQueryResult(
            nodes=[_node(hit.id, hit.payload) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
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
    return TextNode(id_=id_, text=str(metadata.pop("text", "")), metadata=metadata)


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
            return In(field, tuple(value))  # type: ignore[arg-type]  # checked by In
        case FilterOperator.NIN:
            return Not(In(field, tuple(value)))  # type: ignore[arg-type]  # checked by In
        case FilterOperator.CONTAINS:  # a list of the metadata has this element
            return Eq(field, value)  # type: ignore[arg-type]  # checked by Eq
        case FilterOperator.IS_EMPTY:
            return Not(Exists(field))
    raise InputError(f"the operator {each.operator.value!r} of field {field!r} has no meaning here")


def _dense(embedding: Embeddings) -> list[float]:
    assert embedding.dense is not None
    return [float(value) for value in embedding.dense[0]]
