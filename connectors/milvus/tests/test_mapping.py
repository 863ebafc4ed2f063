"""Records become rows and rows the same records, within every limit of a server."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus import DataType

from m3connect.contract import CollectionSchema
from m3connect.errors import InputError
from m3connect.testing import corpus
from m3connect.types import Embeddings, MultiVectors, RecordBatch, SparseVectors
from m3connect_milvus.engine.engine import Engine
from m3connect_milvus.mapping import NO_TERM, check_rows, record_batch, rows
from m3connect_milvus.storing.layout import Layout, parts_definition, records_definition

SERVER = Engine.parse("v2.6.4")
LAYOUT = Layout(corpus.SCHEMA, "array", "HNSW", "float32", None, struct_array=False)
LENGTHS = (1, 100, 65_535, 65_536, 200_000)
CHARACTERS = ("x", "ü", "語", "😀", '"', "\n")


def stored(batch, layout):
    """What is read back after a batch was written."""
    made = rows(batch, layout)
    parts = {part["id"]: part["text"] for one in made for part in one.parts}
    return record_batch([one.record for one in made], parts, layout, layout.schema.legs)


def with_tokens(batch, lengths, width=8):
    """A batch whose texts have so many token vectors."""
    rng = np.random.default_rng(5)
    tokens = [rng.normal(size=(length, width)).astype(np.float16) for length in lengths]
    multi = MultiVectors.from_rows(tokens)
    return replace(batch, embeddings=replace(batch.embeddings, multivector=multi))


def test_rows_hold_a_whole_record():
    """Ids, payloads, all three representations and the token counts survive."""
    batch = corpus.records(1, 50)
    back = stored(batch, LAYOUT)
    assert (back.ids, back.payloads) == (batch.ids, batch.payloads)
    assert np.array_equal(back.embeddings.dense, batch.embeddings.dense)
    assert back.embeddings.multivector.vectors.dtype == np.float16
    assert np.array_equal(back.embeddings.multivector.vectors, batch.embeddings.multivector.vectors)
    for at in range(len(batch)):
        one, other = back.embeddings.sparse[at], batch.embeddings.sparse[at]
        assert dict(zip(one.indices, one.values, strict=True)) == dict(
            zip(other.indices, other.values, strict=True)
        )
    assert np.array_equal(back.embeddings.n_tokens, batch.embeddings.n_tokens)
    assert np.array_equal(back.embeddings.truncated, batch.embeddings.truncated)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_thousand_tokens_are_kept_in_parts(dtype):
    """A passage of 1,000 tokens, 1,024 wide, comes back bit by bit from texts that fit a server."""
    schema = CollectionSchema(None, False, 1024, multivector_dtype=dtype)
    batch = with_tokens(corpus.records(2, 2, schema), [1000, 3], 1024)
    layout = replace(LAYOUT, schema=schema)
    back = stored(batch, layout)
    assert back.embeddings.multivector.vectors.dtype == dtype
    assert np.array_equal(back.embeddings.multivector.vectors, batch.embeddings.multivector.vectors)
    long, short = rows(batch, layout)
    in_base64 = 1000 * 1024 * np.dtype(dtype).itemsize * 4 / 3
    assert len(long.parts) == math.ceil(in_base64 / 65_535)
    assert short.parts == []


@settings(derandomize=True, deadline=None)
@given(st.sampled_from(LENGTHS), st.sampled_from(CHARACTERS), st.integers(0, 3))
def test_no_text_exceeds_a_field(length, character, offset):
    """Every VARCHAR of every row fits its field in bytes, wherever a long payload is cut."""
    batch = corpus.records(3, 1)
    payload = {"text": "." * offset + character * length}
    batch = RecordBatch(["ö" * 500], [payload], batch.embeddings)
    (made,) = rows(batch, LAYOUT)
    check_lengths([made.record], records_definition(LAYOUT, SERVER))
    check_lengths(made.parts, parts_definition())
    assert stored(batch, LAYOUT).payloads == [payload]


def check_lengths(made, definition):
    """Assert that every text of these rows fits its field in bytes."""
    texts = [field for field in definition.fields.fields if field.dtype == DataType.VARCHAR]
    for row in made:
        for field in texts:
            assert len(row[field.name].encode()) <= field.params["max_length"], field.name


def test_a_new_version_has_new_parts():
    """Parts of two versions of a record never mix, and writing one again changes nothing."""
    first = with_tokens(corpus.records(4, 1), [5000])
    second = with_tokens(corpus.records(4, 1), [5001])
    ids = [{part["id"] for part in rows(batch, LAYOUT)[0].parts} for batch in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert rows(first, LAYOUT)[0].parts == rows(first, LAYOUT)[0].parts


def test_an_empty_sparse_vector_is_kept_by_a_term_of_its_own():
    """Milvus takes no empty sparse vector; the stand-in is not part of the record."""
    batch = corpus.records(5, 1)
    sparse = SparseVectors.from_rows([{}])
    batch = replace(batch, embeddings=replace(batch.embeddings, sparse=sparse))
    (made,) = rows(batch, LAYOUT)
    assert made.record["sparse"] == {NO_TERM: 1.0}
    assert len(stored(batch, LAYOUT).embeddings.sparse[0]) == 0


def test_float16_dense_vectors_come_back_rounded():
    """A server gives float16 vectors as bytes."""
    layout = replace(LAYOUT, dense_dtype="float16")
    batch = corpus.records(6, 4)
    made = [one.record for one in rows(batch, layout)]
    read = [{**row, "dense": [row["dense"].tobytes()]} for row in made]
    back = record_batch(read, {}, layout, layout.schema.legs)
    assert made[0]["dense"].dtype == np.float16
    assert np.array_equal(back.embeddings.dense, batch.embeddings.dense.astype(np.float16))


def bad_sparse(index):
    """A batch whose fourth text has this term."""
    batch = corpus.records(7, 6)
    found = [batch.embeddings.sparse[row] for row in range(6)]
    sparse = SparseVectors.from_rows([*found[:3], {index: 1.0}, *found[4:]])
    return replace(batch, embeddings=replace(batch.embeddings, sparse=sparse))


def bad_dense():
    """A batch whose fourth text has a value beyond float16."""
    batch = corpus.records(7, 6)
    dense = batch.embeddings.dense.copy()
    dense[3, 5] = -70_000
    return replace(batch, embeddings=replace(batch.embeddings, dense=dense))


@pytest.mark.parametrize(
    ("batch", "options", "says"),
    [
        (bad_sparse(NO_TERM), {}, "sparse index 1048575"),
        (bad_sparse(2**32 - 1), {}, "sparse index 4294967295"),
        (bad_dense(), {"dense_dtype": "float16"}, "float16"),
        (
            with_tokens(corpus.records(7, 6), [1, 1, 1, 4097, 1, 1]),
            {"struct_array": True},
            "4097 token vectors",
        ),
    ],
    ids=["reserved term", "largest term", "float16", "struct array"],
)
def test_what_milvus_cannot_hold_is_named(batch, options, says):
    """A record that only Milvus cannot take is refused by id and reason."""
    with pytest.raises(InputError, match=says) as caught:
        check_rows(batch, replace(LAYOUT, **options))
    assert repr(batch.ids[3]) in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "options", "says"),
    [
        ({"list": list(range(5000))}, {}, "too many values to filter by"),
        ({"year": 2024}, {"partition_key": "tenant"}, "partition key 'tenant' must be a string"),
        ({"tenant": ["a"]}, {"partition_key": "tenant"}, "partition key 'tenant'"),
        ({"n": (1 << 20_000) + 1}, {}, "too many values to filter by"),
    ],
)
def test_a_payload_that_cannot_be_filtered_is_named(payload, options, says):
    """A payload beyond an array's elements, or without a partition, is refused by id."""
    batch = corpus.records(8, 1)
    batch = RecordBatch(["the id"], [payload], batch.embeddings)
    with pytest.raises(InputError, match=says) as caught:
        rows(batch, replace(LAYOUT, **options))
    assert "'the id'" in str(caught.value)


def test_records_without_vectors_have_no_legs():
    """Reading without vectors gives payloads and token counts only."""
    made = [one.record for one in rows(corpus.records(9, 3), LAYOUT)]
    back = record_batch(made, {}, LAYOUT, ())
    assert back.embeddings == Embeddings(
        None, None, None, back.embeddings.n_tokens, back.embeddings.truncated
    )
