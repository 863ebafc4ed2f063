"""Haystack's own suites, on memory and the embedded engines. Run in an environment of its own."""

import dataclasses

import pytest

pytest.importorskip("haystack")
from haystack import Document, Pipeline
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing.document_store import (
    CountDocumentsByFilterTest,
    DocumentStoreBaseExtendedTests,
)
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    WriteDocumentsAsyncTest,
)

from m3connect.contract import CollectionSchema
from m3connect.errors import InputError
from m3connect.ingestion import ingest
from m3connect.integrations.haystack import M3DocumentStore, M3HybridRetriever
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document as M3Document
from m3connect.types import RecordBatch


@pytest.fixture(params=["memory", "qdrant", "milvus"])
def document_store(request, tmp_path):
    """An empty store in each engine that needs no server."""
    options = {} if request.param == "memory" else {"path": str(tmp_path / "data")}
    store = M3DocumentStore(
        request.param, collection="haystack", options=options, encoder=HashEncoder()
    )
    yield store
    store.connector.close()


class Ours:
    """What Haystack asks every store to say for itself."""

    @pytest.fixture
    def document_store(self, document_store):
        """That of the module."""
        return document_store

    @staticmethod
    def assert_documents_are_equal(received, expected):
        """Order is not promised, and the foreign embedding is not kept."""
        plain = [dataclasses.replace(document, embedding=None) for document in expected]
        assert sorted(received, key=lambda d: d.id) == sorted(plain, key=lambda d: d.id)

    def test_write_documents(self, document_store):
        """Without a policy documents are overwritten."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        assert document_store.write_documents([document]) == 1
        assert document_store.count_documents() == 1


class TestDocumentStore(Ours, DocumentStoreBaseExtendedTests, CountDocumentsByFilterTest):
    """The base and the extended suite."""


class TestDocumentStoreAsync(
    Ours,
    CountDocumentsAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    WriteDocumentsAsyncTest,
):
    """The asynchronous suite."""

    @pytest.mark.asyncio
    async def test_write_documents_async(self, document_store):
        """Without a policy documents are overwritten."""
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        assert await document_store.write_documents_async([document]) == 1
        assert await document_store.count_documents_async() == 1


def test_a_pipeline_finds_in_every_mode(document_store):
    """A retriever in a pipeline finds the document, in a pass a text."""
    encoder = document_store.encoder
    passes = []
    plain = encoder.encode
    encoder.encode = lambda texts, **options: passes.append(len(texts)) or plain(texts, **options)
    texts = ["keys are rotated", "backups run at two"]
    document_store.write_documents([Document(content=text) for text in texts], DuplicatePolicy.SKIP)
    assert passes == [2]
    for mode in ("dense", "sparse", "multivector", "hybrid", "all"):
        pipeline = Pipeline()
        pipeline.add_component("retriever", M3HybridRetriever(document_store, mode=mode, top_k=1))
        found = pipeline.run({"retriever": {"query": "rotated keys"}})["retriever"]["documents"]
        assert [document.content for document in found] == ["keys are rotated"]
    assert passes == [2, 1, 1, 1, 1, 1]


def test_many_documents_are_encoded_and_changed_in_parts(monkeypatch):
    """No more vectors are held at once than those of a part, and every document is written."""
    store = M3DocumentStore("memory", collection="many", encoder=HashEncoder())
    written = []
    plain = store.connector.upsert
    monkeypatch.setattr(store.connector, "upsert", lambda b: written.append(len(b)) or plain(b))
    assert store.write_documents([Document(content=f"keys {row}") for row in range(300)]) == 300
    assert store.update_by_filter({}, {"seen": True}) == 300
    assert written == [256, 44, 256, 44]
    seen = {"field": "meta.seen", "operator": "==", "value": True}
    assert store.count_documents_by_filter(seen) == 300


def test_no_hits_at_all_are_refused():
    """A ``top_k`` of 0 is not the retriever's own."""
    store = M3DocumentStore("memory", collection="few", encoder=HashEncoder())
    store.write_documents([Document(content="keys")])
    with pytest.raises(InputError, match="limit must be at least 1"):
        M3HybridRetriever(store).run("keys", top_k=0)


def test_a_pipeline_can_be_saved():
    """Store and retriever come back from their description."""
    store = M3DocumentStore("memory", collection="saved", model="m3-mini")
    again = M3HybridRetriever.from_dict(M3HybridRetriever(store, mode="all").to_dict())
    assert again.mode == "all"
    assert again.document_store.to_dict() == store.to_dict()


def test_what_ingestion_wrote_is_read(document_store):
    """Found or listed, a passage has its id, text and metadata, and nothing of the ledger."""
    documents = [M3Document("a", "Keys are rotated yearly.", {"lang": "en"})]
    ingest(documents, HashEncoder(), document_store.connector)
    hits = document_store.search("keys", mode="hybrid", limit=1)
    for (document,) in (hits, document_store.filter_documents()):
        assert (document.id, document.content) == ("a#0", "Keys are rotated yearly.")
        assert set(document.meta) == {"lang", "document_id", "position", "span"}
    assert document_store.update_by_filter({}, {"lang": "de", "seen": True}) == 1
    (changed,) = document_store.filter_documents()
    assert changed.content == "Keys are rotated yearly."
    assert changed.meta == {**document.meta, "lang": "de", "seen": True}


def test_records_without_a_text_have_none(document_store):
    """What came with vectors and something else under ``text`` is no text of that."""
    connector, encoder = document_store.connector, HashEncoder()
    connector.ensure(CollectionSchema.of(encoder.info.fingerprint, connector.capabilities.stores))
    connector.upsert(RecordBatch(["a"], [{"text": None, "n": 1}], encoder.encode(["keys"])))
    (document,) = document_store.filter_documents()
    assert (document.content, document.meta) == ("", {"n": 1})
