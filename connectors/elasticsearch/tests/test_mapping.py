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
    OUTLINE,
    SMALL,
    Layout,
    documents,
    key,
    mappings,
    page_size,
    readable,
    records,
    returned,
)

LAYOUT = Layout(corpus.SCHEMA, "int8_hnsw", rank_vectors=False)


def as_hits(written):
    """Documents as a search returns them: small fields from doc values, token vectors in _source."""
    return [
        {
            "_source": {"exact": document["exact"]},
            "fields": {
                **{name: [document[name]] for name in SMALL},
                "exact.sparse": [document["exact"]["sparse"]],
                "dense": np.frombuffer(base64.b64decode(document["dense"]), ">f4").tolist(),
            },
        }
        for document in written
    ]


def test_a_mapping_is_strict_and_knows_itself():
    """Unknown fields are refused, _source is not filtered, _meta reads back as the layout."""
    made = mappings(LAYOUT)
    assert made["dynamic"] == "strict"
    assert "_source" not in made
    stored = Stored.from_json(made["_meta"]["m3connect"], Place("elasticsearch", "c"), "describe")
    assert Layout.of(stored) == LAYOUT
    assert made["properties"]["dense"] == {
        "type": "dense_vector",
        "dims": 16,
        "similarity": "max_inner_product",
        "index_options": {"type": "int8_hnsw"},
    }
    assert made["properties"]["sparse"] == {"type": "sparse_vector"}
    assert made["properties"]["exact"]["properties"] == {
        "sparse": {"type": "binary", "doc_values": True},
        "multivector": {"type": "binary"},
    }
    assert "tokens" not in made["properties"]


def test_a_mapping_has_only_what_the_schema_has():
    """A collection without dense vectors has no dense field, and so on."""
    schema = CollectionSchema(dense_width=None, sparse=True, multivector_width=None)
    fields = mappings(Layout(schema, "int8_hnsw", rank_vectors=True))["properties"]
    assert {"dense", "tokens", "multivector_bytes"}.isdisjoint(fields)
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
        "payload": base64.b64encode(b'{"lang": "de", "n": null}').decode(),
        "n_tokens": 3,
        "truncated": True,
        "facts": ["4:lang=sde", "4:lange"],
        "dense": [1.0, -2.0],
        "sparse": {"7": 0.5, "4000000000": smallest},
        "exact": {
            "sparse": base64.b64encode(
                np.array([7, 4_000_000_000], "<u4").tobytes()
                + np.array([0.5, 1e-40], "<f4").tobytes()
            ).decode(),
            "multivector": _text(np.array([0.1], "<f2")),
        },
        "multivector_bytes": 4,
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


def test_only_what_is_wanted_is_returned():
    """Small fields and lexical weights come without any stored document."""
    bare = {"_source": False, "stored_fields": "_none_", "docvalue_fields": list(SMALL)}
    assert returned(()) == bare
    assert returned(("sparse",)) == bare | {"docvalue_fields": [*SMALL, "exact.sparse"]}
    assert returned(("dense",)) == {
        "_source": False,
        "docvalue_fields": list(SMALL),
        "fields": ["dense"],
    }
    assert returned(("multivector",)) == {"_source": True, "docvalue_fields": list(SMALL)}
    assert OUTLINE["docvalue_fields"] == ["id", "multivector_bytes"]


def test_pages_are_sized_by_what_a_record_weighs():
    """A thousand records, or fewer where dense vectors are wide; multi-vectors are cut by bytes."""
    wide = CollectionSchema(1024, sparse=True, multivector_width=1024)
    assert page_size(wide, LEGS) == page_size(wide, ()) == 1000
    assert page_size(replace(wide, dense_width=4096), LEGS) == 495


def test_multivectors_are_read_by_weight():
    """Neither more than 24 MiB at once nor more than asked for, but at least one."""
    mega = 2**20
    weights = {"a": 20 * mega, "b": 4 * mega, "c": 1, "d": 40 * mega, "e": 1, "f": 1, "g": 1}
    outline = [
        {"fields": {"id": [id_], "multivector_bytes": [weight]}} for id_, weight in weights.items()
    ]
    assert [*readable(outline, 2)] == [["a", "b"], ["c"], ["d"], ["e", "f"], ["g"]]
    assert [*readable(outline, 9)] == [["a", "b"], ["c"], ["d"], ["e", "f", "g"]]
    assert [*readable([], 9)] == []


def test_keys_are_the_same_in_every_run():
    """The key of an id is fixed for ever: another one would write every record twice."""
    assert key("handbook.md#0") == "fbcca7e5-58ea-57ba-b823-a2670fc94926"
    assert len(key("x" * 100_000)) == 36
