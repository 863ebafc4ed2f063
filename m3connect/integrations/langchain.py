"""LangChain: a vector store and a retriever over any connector, one encoder pass a text.

    store = M3VectorStore(connect("qdrant", collection="handbook"), M3Encoder.load("m3-mini"))
    retriever = M3Retriever(store=store, mode="all", limit=5)

Needs ``langchain-core`` alone: ``pip install "m3connect[langchain]"``. For those who keep another
store, :class:`M3Embeddings` is dense and sparse embeddings in one object.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict

from m3connect.contract import CollectionSchema, Connector, Encoder
from m3connect.errors import CollectionNotFound, InputError
from m3connect.filters import AnyFilter
from m3connect.integrations.remembering import Remembered
from m3connect.searching.names import ModeName
from m3connect.searching.search import encode_as_stored, search
from m3connect.types import BOOKKEEPING, Hit, Leg, RecordBatch, shown
from m3connect.types import Embeddings as M3Vectors
from m3connect.types.records import text_of

_TEXT = "text"


class M3VectorStore(VectorStore):
    """A collection as LangChain's vector store. Texts are stored as they are, one record each.

    Args:
        connector: the collection; it is made with the first text if it does not exist.
        encoder: the model; every text goes through it once for all three representations.
        mode: of searches that do not say another.
    """

    def __init__(
        self, connector: Connector, encoder: Encoder, *, mode: ModeName = "hybrid"
    ) -> None:
        self.connector = connector
        self.encoder = encoder
        self.mode = mode
        self._ensured = False

    @property
    def embeddings(self) -> Embeddings | None:
        """None: the store encodes by itself, with more than dense vectors."""
        return None

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int = 256,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts, ``batch_size`` at a time; those with ids that are there are replaced.

        Raises:
            InputError: as many ids or metadata as texts are needed; a metadata field is named as
                what is stored beside it (``text``).
        """
        _refuse(kwargs)
        listed = list(texts)
        payloads = metadatas if metadatas is not None else [{} for _ in listed]
        given = ids if ids is not None else [None] * len(listed)
        if not len(listed) == len(payloads) == len(given):
            raise InputError(f"{len(listed)} texts, {len(payloads)} metadata, {len(given)} ids")
        for row, payload in enumerate(payloads):
            if taken := [name for name in (_TEXT, *BOOKKEEPING) if name in payload]:
                raise InputError(
                    f"text {row + 1} of {len(listed)} (id {given[row]!r}): its metadata has a field "
                    f"{taken[0]!r}, under which the store keeps what is not metadata; rename the field"
                )
        names = [str(uuid.uuid4()) if name is None else name for name in given]
        if not listed:
            return []
        self._ensure()
        records = [{**payload, _TEXT: text} for payload, text in zip(payloads, listed, strict=True)]
        for start in range(0, len(listed), batch_size):
            rows = slice(start, start + batch_size)
            vectors = self.encoder.encode(listed[rows], kind="passage")
            self.connector.upsert(RecordBatch(names[rows], records[rows], vectors))
        self.connector.flush()
        return names

    def add_documents(
        self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any
    ) -> list[str]:
        """Store documents under ``ids``, or under their own."""
        return self.add_texts(
            [document.page_content for document in documents],
            [document.metadata for document in documents],
            ids=ids if ids is not None else [document.id for document in documents],  # type: ignore[misc]
            **kwargs,
        )

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete by ids; None deletes nothing."""
        _refuse(kwargs)
        try:
            self.connector.delete(ids or [])
        except CollectionNotFound:
            return False
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids; missing ones are left out."""
        try:
            batch = self.connector.fetch(ids, vectors=False)
        except CollectionNotFound:
            return []
        return [_document(*row) for row in zip(batch.ids, batch.payloads, strict=True)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The best ``k`` documents; options as of :meth:`similarity_search_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: AnyFilter | None = None,  # noqa: A002 - LangChain's word
        mode: ModeName | None = None,
        min_scores: Mapping[Leg, float] | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The best ``k`` documents with their scores, higher is better.

        Args:
            query: the text.
            k: how many at most.
            filter: which may be found, as conditions or as text such as ``lang == "de"``.
            mode: the store's own by default.
            min_scores: by leg, the score that a document has at least, such as ``{"dense": 0.5}``.
        """
        _refuse(kwargs)
        try:
            hits = search(
                self.connector,
                self.encoder,
                query,
                mode=mode or self.mode,
                filter=filter,
                limit=k,
                min_scores=min_scores,
            )
        except CollectionNotFound:
            return []
        return [(_found(hit), hit.score) for hit in hits]

    async def asimilarity_search_with_score(
        self, *args: Any, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same in a thread."""
        return await asyncio.to_thread(self.similarity_search_with_score, *args, **kwargs)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Of the best ``fetch_k``, the ``k`` that are relevant and unlike each other."""
        from langchain_core.vectorstores.utils import maximal_marginal_relevance

        scored = self.similarity_search_with_score(query, fetch_k, **kwargs)
        if not scored:
            return []
        documents = {document.id: document for document, _ in scored}
        batch = self.connector.fetch([str(id_) for id_ in documents], vectors=("dense",))
        if batch.embeddings.dense is None or not len(batch):
            return list(documents.values())[:k]
        info = self.connector.describe()
        asked = encode_as_stored(info, self.encoder, [query], kind="query", legs=("dense",)).dense
        assert asked is not None
        rows = maximal_marginal_relevance(asked[0], list(batch.embeddings.dense), lambda_mult, k)
        return [documents[batch.ids[row]] for row in rows]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Refused: a dense vector is a part of a query.

        Raises:
            InputError: always.
        """
        del embedding, k, kwargs
        raise InputError("M3VectorStore searches by text: use similarity_search(query)")

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        raise InputError(
            "scores here are sums of dense, lexical and MaxSim scores, not parts of 1, so there is no "
            "search_type 'similarity_score_threshold': use 'similarity' with "
            "search_kwargs={'min_scores': {'dense': 0.5}}"
        )

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        connector: Connector | None = None,
        **kwargs: Any,
    ) -> M3VectorStore:
        """A store with these texts.

        Args:
            texts: to store.
            embedding: an :class:`M3Embeddings`, whose encoder is used.
            metadatas, ids: of the texts.
            connector: the collection; in memory by default.

        Raises:
            InputError: ``embedding`` is another kind.
        """
        if not isinstance(embedding, M3Embeddings):
            raise InputError("M3VectorStore needs M3Embeddings(encoder): it stores all three")
        if connector is None:
            from m3connect.connecting.registry import connect

            connector = connect("memory", collection="langchain")
        store = cls(connector, embedding.encoder, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def _ensure(self) -> None:
        if not self._ensured:
            made_by, stores = self.encoder.info.fingerprint, self.connector.capabilities.stores
            self.connector.ensure(CollectionSchema.of(made_by, stores))
            self._ensured = True


class M3Retriever(BaseRetriever):
    """The best passages of a store for a question, in any mode.

    Args:
        store: where they lie.
        mode: how they are found.
        limit: how many.
        filter: which may be found.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: M3VectorStore
    mode: ModeName = "hybrid"
    limit: int = 4
    filter: AnyFilter | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        del run_manager
        limit = kwargs.pop("k", self.limit)
        return self.store.similarity_search(
            query, limit, filter=self.filter, mode=self.mode, **kwargs
        )


class M3Embeddings(Embeddings):
    """Dense and sparse embeddings in one object that encodes each text once.

    For stores that ask an object for dense vectors and another for sparse ones: give both of them
    this one. The last texts' embeddings are kept, so that the second question costs nothing. Any
    threads may ask it at once.

    Args:
        encoder: the model.
        remembered_bytes: of texts and their embeddings that are kept.
    """

    def __init__(self, encoder: Encoder, *, remembered_bytes: int = 2**28) -> None:
        self.encoder = encoder
        self._remembered = Remembered(encoder, remembered_bytes, ("dense", "sparse"))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Dense vectors of passages."""
        return [_dense(embedding) for embedding in self._remembered.encode(texts, "passage")]

    def embed_query(self, text: str) -> list[float]:
        """The dense vector of a query."""
        return _dense(self._remembered.encode([text], "query")[0])

    def sparse_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Lexical weights of passages by term id."""
        return [_sparse(embedding) for embedding in self._remembered.encode(texts, "passage")]

    def sparse_query(self, text: str) -> dict[int, float]:
        """Lexical weights of a query by term id."""
        return _sparse(self._remembered.encode([text], "query")[0])


def _dense(embedding: M3Vectors) -> list[float]:
    assert embedding.dense is not None
    return [float(value) for value in embedding.dense[0]]


def _sparse(embedding: M3Vectors) -> dict[int, float]:
    assert embedding.sparse is not None
    row = embedding.sparse[0]
    return dict(zip(row.indices.tolist(), np.asarray(row.values).tolist(), strict=True))


def _found(hit: Hit) -> Document:
    return _document(hit.id, hit.payload)


def _document(id_: str, payload: Any) -> Document:
    metadata = shown(payload)
    metadata.pop(_TEXT, None)
    return Document(id=id_, page_content=text_of(payload), metadata=metadata)


def _refuse(unknown: dict[str, Any]) -> None:
    if unknown:
        raise InputError(f"M3VectorStore has no option {', '.join(sorted(unknown))}")
