"""LlamaIndex end to end, on memory and the embedded engines. Run in an environment of its own."""

import pytest

pytest.importorskip("llama_index.core")
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

from m3connect import connect
from m3connect.contract import CollectionSchema
from m3connect.errors import InputError
from m3connect.ingestion import ingest
from m3connect.integrations.llama_index import M3Embedding, M3Retriever, M3VectorStore
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, RecordBatch
from m3connect.types import Document as M3Document

TEXTS = {"keys": "keys are rotated", "backups": "backups run at two", "desk": "ask the desk"}


class CountingEncoder(HashEncoder):
    """Counts the texts that go through it."""

    texts = 0

    def encode(self, texts, **options):
        self.texts += len(texts)
        return super().encode(texts, **options)


@pytest.fixture(params=["memory", "qdrant", "milvus"])
def store(request, tmp_path):
    """A store and its embedding in each engine that needs no server."""
    options = {} if request.param == "memory" else {"path": str(tmp_path / "data")}
    with connect(request.param, collection="llama", **options) as connector:
        yield M3VectorStore.open(connector, CountingEncoder())


@pytest.fixture
def index(store):
    """An index over three documents."""
    vector_store, embedding = store
    context = StorageContext.from_defaults(vector_store=vector_store)
    documents = [
        Document(text=text, doc_id=name, metadata={"year": 2020 + row, "tags": ["x", name]})
        for row, (name, text) in enumerate(TEXTS.items())
    ]
    return VectorStoreIndex.from_documents(
        documents, storage_context=context, embed_model=embedding
    )


def test_every_text_is_encoded_once(store, index):
    """LlamaIndex's own embedding of the texts is the store's: one pass, and none is kept after it."""
    assert store[1].encoder.texts == len(TEXTS)
    assert store[1].remembered.kept_bytes == 0


def test_many_nodes_are_written_in_parts(monkeypatch):
    """What the embedding could not keep is encoded for the store, and no write holds all of it."""
    with connect("memory", collection="many") as connector:
        written = []
        plain = connector.upsert
        monkeypatch.setattr(connector, "upsert", lambda b: written.append(len(b)) or plain(b))
        encoder = CountingEncoder()
        store = M3VectorStore(connector, M3Embedding(encoder, remembered_bytes=0))
        nodes = [TextNode(id_=f"n{row}", text=f"keys {row}") for row in range(300)]
        assert store.add(nodes) == [node.node_id for node in nodes]
        assert (written, encoder.texts, connector.count()) == ([256, 44], 300, 300)


def test_an_unknown_option_is_refused():
    """A misspelt option of the store or its embedding is named, not ignored."""
    with connect("memory", collection="llama") as connector:
        with pytest.raises(ValueError, match="modus"):
            M3VectorStore.open(connector, HashEncoder(), modus="all")
        with pytest.raises(ValueError, match="remembered"):
            M3Embedding(HashEncoder(), remembered=8)


@pytest.mark.parametrize("mode", ["dense", "sparse", "multivector", "hybrid", "all"])
def test_the_index_finds_in_every_mode(store, index, mode):
    """The retriever's best node is the right one; a query is encoded once."""
    before = store[1].encoder.texts
    nodes = M3Retriever(store[0], mode=mode, limit=1).retrieve("rotated keys")
    assert [node.node.get_content() for node in nodes] == ["keys are rotated"]
    assert store[1].encoder.texts == before + 1
    assert (
        index.as_retriever(similarity_top_k=1).retrieve("rotated keys")[0].text
        == "keys are rotated"
    )


@pytest.mark.parametrize(
    ("key", "operator", "value", "expected"),
    [
        ("year", FilterOperator.GTE, 2021, {"backups", "desk"}),
        ("year", FilterOperator.NE, 2021, {"keys", "desk"}),
        ("year", FilterOperator.IN, [2020, 2022], {"keys", "desk"}),
        ("year", FilterOperator.NIN, [2020, 2022], {"backups"}),
        ("tags", FilterOperator.CONTAINS, "desk", {"desk"}),
        ("none", FilterOperator.IS_EMPTY, None, set(TEXTS)),
    ],
)
def test_filters_mean_the_same(store, index, key, operator, value, expected):
    """Every operator that has a meaning here has LlamaIndex's."""
    filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])
    nodes = store[0].get_nodes(filters=filters)
    assert {node.ref_doc_id for node in nodes} == expected


def test_filters_combine_and_refuse(store, index):
    """Or and not nest; what has no meaning is refused by name."""
    year = MetadataFilter(key="year", operator=FilterOperator.EQ, value=2020)
    tag = MetadataFilter(key="tags", operator=FilterOperator.CONTAINS, value="desk")
    either = MetadataFilters(filters=[year, tag], condition=FilterCondition.OR)
    neither = MetadataFilters(filters=[either], condition=FilterCondition.NOT)
    assert {node.ref_doc_id for node in store[0].get_nodes(filters=either)} == {"keys", "desk"}
    assert {node.ref_doc_id for node in store[0].get_nodes(filters=neither)} == {"backups"}
    for operator in (
        FilterOperator.IN,
        FilterOperator.NIN,
    ):  # of a text they would take its letters
        one = MetadataFilter(key="tags", operator=operator, value="desk")
        with pytest.raises(InputError, match="takes a list, got 'desk'"):
            store[0].get_nodes(filters=MetadataFilters(filters=[one]))
    text = MetadataFilter(key="tags", operator=FilterOperator.TEXT_MATCH, value="desk")
    with pytest.raises(InputError, match="text_match"):
        store[0].get_nodes(filters=MetadataFilters(filters=[text]))


def test_nodes_go(store, index):
    """Deleting a document, a node and everything."""
    vector_store = store[0]
    index.delete_ref_doc("keys")
    assert {node.ref_doc_id for node in vector_store.get_nodes()} == {"backups", "desk"}
    vector_store.delete_nodes([vector_store.get_nodes()[0].node_id])
    assert len(vector_store.get_nodes()) == 1
    vector_store.clear()
    assert vector_store.get_nodes() == []
    assert vector_store.query(VectorStoreQuery(query_str="keys")).nodes == []


def test_ids_and_a_filter_are_both_met(store, index):
    """Nodes by ids and a filter are those that meet both; no ids are no nodes."""
    vector_store = store[0]
    ids = {node.ref_doc_id: node.node_id for node in vector_store.get_nodes()}
    late = MetadataFilters(
        filters=[MetadataFilter(key="year", operator=FilterOperator.GTE, value=2021)]
    )

    def names(*arguments):
        return {node.ref_doc_id for node in vector_store.get_nodes(*arguments)}

    assert names([ids["keys"], ids["desk"]], late) == {"desk"}
    assert names([], late) == set()
    vector_store.delete_nodes([], late)
    vector_store.delete_nodes()
    assert names() == set(TEXTS)
    vector_store.delete_nodes([ids["keys"], ids["desk"]], late)
    assert names() == {"keys", "backups"}
    vector_store.delete_nodes(filters=late)
    assert names() == {"keys"}


def test_a_retriever_keeps_to_documents_and_nodes(store, index):
    """``doc_ids`` and ``node_ids`` restrict, beside the filter; empty ones do not."""
    ids = {node.ref_doc_id: node.node_id for node in store[0].get_nodes()}
    late = MetadataFilters(
        filters=[MetadataFilter(key="year", operator=FilterOperator.GTE, value=2021)]
    )

    def found(**options):
        retriever = VectorIndexRetriever(index, similarity_top_k=3, **options)
        return {node.node.ref_doc_id for node in retriever.retrieve("rotated keys")}

    assert found(doc_ids=["desk", "keys"]) == {"desk", "keys"}
    assert found(doc_ids=["desk", "keys"], filters=late) == {"desk"}
    assert found(node_ids=[ids["desk"], ids["keys"]]) == {"desk", "keys"}
    assert found(node_ids=[ids["desk"], ids["keys"]], doc_ids=["backups", "desk"]) == {"desk"}
    assert found(node_ids=[], doc_ids=[]) == set(TEXTS)


def test_query_modes_are_ours_or_refused(store, index):
    """Sparse finds what shares a word alone; what has no meaning here is refused by name."""

    def found(**options):
        return index.as_retriever(similarity_top_k=3, **options).retrieve("rotated keys")

    assert [node.text for node in found(vector_store_query_mode="sparse")] == ["keys are rotated"]
    assert len(found(vector_store_query_mode="hybrid")) == 3
    for mode in ("mmr", "text_search", "svm"):
        with pytest.raises(InputError, match=mode):
            found(vector_store_query_mode=mode)
    with pytest.raises(InputError, match="alpha"):
        found(vector_store_query_mode="hybrid", alpha=0.5)
    with pytest.raises(InputError, match="where"):
        found(vector_store_kwargs={"where": "year == 2020"})


def test_a_vector_alone_is_refused(store):
    """A dense vector is a third of a query."""
    with pytest.raises(InputError, match="query_str"):
        store[0].query(VectorStoreQuery(query_embedding=[0.0] * 16))


def test_what_ingestion_wrote_is_read(store):
    """Found or listed, a passage has its id, text and metadata, and nothing of the ledger."""
    documents = [M3Document("a", "Keys are rotated yearly.", {"lang": "en"})]
    ingest(documents, HashEncoder(), store[0].client)
    hits = store[0].query(VectorStoreQuery(query_str="keys", doc_ids=["a"])).nodes
    assert store[0].query(VectorStoreQuery(query_str="keys", doc_ids=["b"])).nodes == []
    for (node,) in (hits, store[0].get_nodes()):
        assert (node.node_id, node.get_content()) == ("a#0", "Keys are rotated yearly.")
        assert set(node.metadata) == {"lang", "document_id", "position", "span"}
    store[0].delete("a")
    assert store[0].get_nodes() == []


def test_records_without_a_text_have_none(store):
    """What came with vectors and something else under ``text`` is no text of that."""
    client, encoder = store[0].client, HashEncoder()
    client.ensure(CollectionSchema.of(encoder.info.fingerprint, LEGS))
    client.upsert(RecordBatch(["a"], [{"text": None, "n": 1}], encoder.encode(["keys"])))
    (node,) = store[0].get_nodes()
    assert (node.get_content(), node.metadata) == ("", {"n": 1})
