"""LangChain's own suites, on memory and the embedded engines, or on a server of Elasticsearch.

Run in an environment of its own; ``SUITE_ELASTICSEARCH`` there is the server's address.
"""

import os
import uuid

import pytest

pytest.importorskip("langchain_tests")
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

from m3connect import F, connect
from m3connect.contract import CollectionSchema
from m3connect.errors import InputError
from m3connect.ingestion import ingest
from m3connect.integrations.langchain import M3Embeddings, M3Retriever, M3VectorStore
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document as M3Document
from m3connect.types import RecordBatch


class CountingEncoder(HashEncoder):
    """Counts its passes."""

    passes = 0

    def encode(self, texts, **options):
        self.passes += 1
        return super().encode(texts, **options)


SERVER = os.environ.get("SUITE_ELASTICSEARCH")


@pytest.fixture(params=["elasticsearch"] if SERVER else ["memory", "qdrant", "milvus"])
def connector(request, tmp_path):
    """An empty collection in each engine that needs no server, or on the server."""
    place = {"path": str(tmp_path / "data")} if SERVER is None else {"url": SERVER}
    options = {} if request.param == "memory" else place
    name = f"langchain_{uuid.uuid4().hex}"
    with connect(request.param, collection=name, **options) as connector:
        yield connector


class TestVectorStore(VectorStoreIntegrationTests):
    """The standard suite of vector stores, sync and async."""

    @pytest.fixture
    def vectorstore(self, connector):
        """Empty, encoding with the fake encoder."""
        return M3VectorStore(connector, HashEncoder())


class TestRetriever(RetrieversIntegrationTests):
    """The standard suite of retrievers."""

    @property
    def retriever_constructor(self):
        """A function that fills a store first."""

        def make(**options):
            texts = [f"document number {number} about keys" for number in range(10)]
            store = M3VectorStore.from_texts(texts, M3Embeddings(HashEncoder()))
            if "k" in options:
                options["limit"] = options.pop("k")
            return M3Retriever(store=store, **options)

        return make

    @property
    def retriever_constructor_params(self):
        """No options are needed."""
        return {}

    @property
    def retriever_query_example(self):
        """A question that has an answer."""
        return "keys"


def test_every_text_is_encoded_once(connector):
    """Storing and searching in every mode costs one pass each."""
    encoder = CountingEncoder()
    store = M3VectorStore(connector, encoder)
    store.add_texts(["one", "two", "three"])
    assert encoder.passes == 1
    for number, mode in enumerate(("dense", "sparse", "multivector", "hybrid", "all"), 2):
        assert store.similarity_search("two", 1, mode=mode)[0].page_content == "two"
        assert encoder.passes == number


def test_filters_in_both_spellings(connector):
    """A filter as text and as an object find the same."""
    store = M3VectorStore(connector, HashEncoder())
    store.add_texts(["keys of a", "keys of b"], [{"tenant": "a"}, {"tenant": "b"}])
    for condition in ('tenant == "b"', F("tenant") == "b"):
        assert [d.page_content for d in store.similarity_search("keys", filter=condition)] == [
            "keys of b"
        ]


def test_a_collection_that_is_not_there_has_nothing(connector):
    """Every kind of search finds nothing before the first text, and is no error."""
    store = M3VectorStore(connector, HashEncoder())
    assert store.similarity_search("keys") == []
    assert store.max_marginal_relevance_search("keys") == []
    assert store.get_by_ids(["a"]) == []


@pytest.mark.parametrize("name", ["text", "_context"])
def test_metadata_under_a_name_of_ours_are_refused(connector, name):
    """A field that the text would replace is named with its record, and nothing is written."""
    store = M3VectorStore(connector, HashEncoder())
    with pytest.raises(InputError, match=rf"text 2 of 2 \(id 'b'\).*'{name}'"):
        store.add_texts(["one", "two"], [{"n": 1}, {name: "my own"}], ids=["a", "b"])
    assert store.get_by_ids(["a", "b"]) == []


def test_a_score_of_a_leg_is_a_threshold(connector):
    """There are no relevances from 0 to 1: those who ask are told of ``min_scores``, which holds."""
    store = M3VectorStore(connector, HashEncoder())
    store.add_texts(["keys", "another desk"])
    options = {"search_type": "similarity_score_threshold"}
    threshold = store.as_retriever(**options, search_kwargs={"score_threshold": 0.5})
    with pytest.raises(InputError, match="min_scores"):
        threshold.invoke("keys")
    with pytest.raises(InputError, match="by text"):
        store.similarity_search_by_vector([0.0] * 16)
    retriever = store.as_retriever(search_kwargs={"min_scores": {"dense": 0.9}})
    assert [found.page_content for found in retriever.invoke("keys")] == ["keys"]


def test_dense_and_sparse_share_a_pass():
    """One object is both kinds of embeddings; the second question costs nothing."""
    encoder = CountingEncoder()
    both = M3Embeddings(encoder)
    dense = both.embed_documents(["one", "two"])
    sparse = both.sparse_documents(["one", "two"])
    assert encoder.passes == 1
    assert dense[0] == encoder.encode(["one"]).dense[0].tolist()
    assert set(sparse[0]) == set(encoder.encode(["one"]).sparse[0].indices.tolist())


def test_indexing_deletes_what_is_gone(connector):
    """LangChain's index() adds, skips and deletes through the store."""
    store = M3VectorStore(connector, HashEncoder())
    records = InMemoryRecordManager("notes")
    records.create_schema()

    def run(*texts):
        documents = [Document(page_content=text, metadata={"source": text[:3]}) for text in texts]
        return index(
            documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256"
        )

    assert run("one text", "two text")["num_added"] == 2
    assert run("one text", "two text")["num_skipped"] == 2
    assert run("one text")["num_deleted"] == 1
    assert connector.count() == 1


def test_what_ingestion_wrote_is_read(connector):
    """Found or fetched, a passage has its text and metadata, and nothing of the ledger."""
    documents = [M3Document("a", "Keys are rotated yearly.", {"lang": "en"})]
    ingest(documents, HashEncoder(), connector)
    store = M3VectorStore(connector, HashEncoder())
    for (document,) in (store.similarity_search("keys", 1), store.get_by_ids(["a#0"])):
        assert document.page_content == "Keys are rotated yearly."
        assert set(document.metadata) == {"lang", "document_id", "position", "span"}


def test_records_without_a_text_have_none(connector):
    """What came with vectors and something else under ``text`` is no text of that."""
    encoder = HashEncoder()
    connector.ensure(CollectionSchema.of(encoder.info.fingerprint, connector.capabilities.stores))
    connector.upsert(RecordBatch(["a"], [{"text": None, "n": 1}], encoder.encode(["keys"])))
    (document,) = M3VectorStore(connector, encoder).get_by_ids(["a"])
    assert (document.page_content, document.metadata) == ("", {"n": 1})
