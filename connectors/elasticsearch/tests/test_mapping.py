"""What is written for a collection and a record, and that it reads back."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from m3connect.connecting.collection import Place, Stored
from m3connect.contract import CollectionSchema
from m3connect.testing import corpus
from m3connect.types import LEGS, Embeddings, MultiVectors, RecordBatch, SparseVectors
from m3connect_elasticsearch.mapping import (
    SMALL,
    Layout,
    documents,
    key,
    mappings,
    page_size,
    records,
    returned,
)

LAYOUT = Layout(corpus.SCHEMA, "int8_hnsw", rank_vectors=False)


def as_hits(written):
    """Documents as a search returns them: small fields in _source, bytes in fields."""
    return [
        {
            "_id": key(document["id"]),
            "_source": {name: document[name] for name in SMALL},
            "fields": {f"exact.{leg}": [text] for leg, text in document["exact"].items()},
        }
        for document in written
    ]


def test_a_mapping_is_strict_and_knows_itself():
    """Unknown fields are refused, _source keeps the small ones, _meta reads back as the layout."""
    made = mappings(LAYOUT)
    assert made["dynamic"] == "strict"
    assert made["_source"] == {"includes": ["id", "payload", "n_tokens", "truncated"]}
    stored = Stored.from_json(made["_meta"]["m3connect"], Place("elasticsearch", "c"), "describe")
    assert Layout.of(stored) == LAYOUT
    assert made["properties"]["dense"] == {
        "type": "dense_vector",
        "dims": 16,
        "similarity": "max_inner_product",
        "index_options": {"type": "int8_hnsw"},
    }
    assert made["properties"]["sparse"] == {"type": "sparse_vector"}
    assert set(made["properties"]["exact"]["properties"]) == {"dense", "sparse", "multivector"}
    assert "tokens" not in made["properties"]


def test_a_mapping_has_only_what_the_schema_has():
    """A collection without dense vectors has no dense field, and so on."""
    schema = CollectionSchema(dense_width=None, sparse=True, multivector_width=None)
    fields = mappings(Layout(schema, "int8_hnsw", rank_vectors=True))["properties"]
    assert {"dense", "tokens"}.isdisjoint(fields)
    assert set(fields["exact"]["properties"]) == {"sparse"}


def test_rank_vectors_are_mapped_and_written_when_asked_for():
    """With rank_vectors the token vectors are also written as numbers, in their stored precision."""
    layout = replace(LAYOUT, rank_vectors=True)
    assert mappings(layout)["properties"]["tokens"] == {"type": "rank_vectors", "dims": 8}
    batch = corpus.records(1, 2)
    for row, document in enumerate(documents(batch, layout, packed=True)):
        tokens = batch.embeddings.multivector[row]
        assert np.array_equal(document["tokens"], tokens.astype(np.float16).astype(np.float64))


def test_a_record_is_written_as_documented():
    """One record, field by field."""
    embeddings = Embeddings(
        np.array([[1.0, -2.0]], np.float32),
        SparseVectors.from_rows([{7: 0.5, 4_000_000_000: 1e-40}]),
        MultiVectors.from_rows([np.array([[0.1]], np.float32)]),
        np.array([3], np.int32),
        np.array([True]),
    )
    batch = RecordBatch(["ä"], [{"lang": "de", "n": None}], embeddings)
    layout = Layout(CollectionSchema(2, sparse=True, multivector_width=1), "hnsw", False)
    (document,) = documents(batch, layout, packed=False)
    smallest = float(np.finfo(np.float32).tiny)
    assert document == {
        "id": "ä",
        "payload": '{"lang": "de", "n": null}',
        "n_tokens": 3,
        "truncated": True,
        "facts": ["4:lang=sde", "4:lange"],
        "dense": [1.0, -2.0],
        "sparse": {"7": 0.5, "4000000000": smallest},
        "exact": {
            "dense": _text(np.array([1, -2], "<f4")),
            "sparse": base64.b64encode(
                np.array([7, 4_000_000_000], "<u4").tobytes()
                + np.array([0.5, 1e-40], "<f4").tobytes()
            ).decode(),
            "multivector": _text(np.array([0.1], "<f2")),
        },
    }
    (packed,) = documents(batch, layout, packed=True)
    assert packed["dense"] == _text(np.array([1, -2], ">f4"))


def _text(array):
    return base64.b64encode(array.tobytes()).decode()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_records_read_back_as_they_were_written(dtype):
    """Vectors, payloads, token counts, empty sparse rows: a written page reads back equal."""
    schema = replace(corpus.SCHEMA, multivector_dtype=dtype)
    batch = corpus.records(2, 40, schema)
    hits = as_hits(documents(batch, Layout(schema, "hnsw", False), packed=True))
    read = records(hits, schema, schema.legs)
    assert (list(read.ids), list(read.payloads)) == (list(batch.ids), list(batch.payloads))
    assert read.embeddings == batch.embeddings
    bare = records(hits, schema, ()).embeddings
    assert bare.legs == ()
    assert np.array_equal(bare.n_tokens, batch.embeddings.n_tokens)


def test_an_empty_page_is_an_empty_batch():
    """No hit makes a batch of no record, with the collection's legs."""
    read = records([], corpus.SCHEMA, corpus.SCHEMA.legs)
    assert len(read) == 0
    assert read.embeddings.legs == corpus.SCHEMA.legs
    assert read.embeddings.multivector.vectors.dtype == np.float16


def test_a_search_returns_bytes_only_when_vectors_are_wanted():
    """Without vectors nothing but the small fields is read."""
    assert returned(())["docvalue_fields"] == []
    assert returned(corpus.SCHEMA.legs) == {
        "_source": list(SMALL),
        "docvalue_fields": ["exact.dense", "exact.sparse", "exact.multivector"],
    }


def test_pages_are_sized_by_what_a_record_weighs():
    """A page of long multi-vectors holds few records, a page of payloads many."""
    wide = CollectionSchema(1024, sparse=True, multivector_width=1024)
    assert page_size(wide, LEGS) == 23
    assert page_size(replace(wide, multivector_dtype="float32"), LEGS) == 11
    assert page_size(wide, ("dense", "sparse")) == 1000
    assert page_size(wide, ()) == 1000


def test_keys_are_the_same_in_every_run():
    """The key of an id is fixed for ever: another one would write every record twice."""
    assert key("handbook.md#0") == "fbcca7e5-58ea-57ba-b823-a2670fc94926"
    assert len(key("x" * 100_000)) == 36
