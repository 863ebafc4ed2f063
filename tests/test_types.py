"""The columnar value types: views, concatenation, Arrow."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.errors import InputError
from m3connect.filters import F
from m3connect.types import Embeddings, MultiVectors, RecordBatch, SparseVectors


@st.composite
def embeddings(draw):
    """Batches of 0 to 6 texts with any subset of the representations."""
    n = draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    legs = draw(st.sets(st.sampled_from(["dense", "sparse", "multivector"])))
    half = draw(st.booleans())
    tokens: list[Any] = [
        rng.normal(size=(rng.integers(1, 5), 3)).astype(np.float16 if half else np.float32)
        for _ in range(n)
    ]
    weights = [
        {int(t): float(rng.random()) for t in rng.choice(50, rng.integers(0, 4), replace=False)}
        for _ in range(n)
    ]
    return Embeddings(
        rng.normal(size=(n, 4)).astype(np.float32) if "dense" in legs else None,
        SparseVectors.from_rows(weights) if "sparse" in legs else None,
        MultiVectors.from_rows(tokens, width=3) if "multivector" in legs else None,
        rng.integers(1, 9, n).astype(np.int32),
        rng.random(n) < 0.5,
    )


@given(embeddings())
def test_arrow_round_trip_is_exact(batch):
    """What goes into an Arrow table comes out equal."""
    if len(batch) == 0 and batch.multivector is not None:
        return  # an empty ragged column is covered below
    assert Embeddings.from_arrow(batch.to_arrow()) == batch


@given(embeddings(), st.data())
def test_slices_and_concat_undo_each_other(batch, data):
    """Cutting a batch anywhere and joining the parts gives the batch again."""
    cut = data.draw(st.integers(0, len(batch)))
    joined = Embeddings.concat([batch[:cut], batch[cut:]])
    assert joined == batch
    table = batch.to_arrow()
    if len(batch):
        assert Embeddings.from_arrow(table.slice(cut)) == batch[cut:]


@given(embeddings(), st.data())
def test_take_is_one_row_after_the_other(batch, data):
    """Taking rows equals concatenating them one by one."""
    rows = data.draw(st.lists(st.integers(0, max(len(batch) - 1, 0)), max_size=5))
    if not len(batch) or not rows:
        return
    taken = batch.take(np.array(rows))
    assert taken == Embeddings.concat([batch[row] for row in rows])
    assert batch[::-1] == batch.take(np.arange(len(batch))[::-1])


def test_large_buffers_are_shared_with_arrow():
    """The dense matrix is not copied on the way to Arrow and back."""
    dense = np.ones((3, 4), np.float32)
    batch = Embeddings(dense, None, None, np.ones(3, np.int32), np.zeros(3, np.bool_))
    back = Embeddings.from_arrow(batch.to_arrow()).dense
    assert np.shares_memory(dense, back)


def test_an_empty_batch_survives_arrow():
    """Zero texts keep their widths."""
    empty = MultiVectors.from_rows([], width=3)
    batch = Embeddings(None, None, empty, np.zeros(0, np.int32), np.zeros(0, np.bool_))
    back = Embeddings.from_arrow(batch.to_arrow()).multivector
    assert back.vectors.shape == (0, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"dense": [[1.0]]}, "n_tokens"),
        ({"dense": [1.0], "n_tokens": [1], "truncated": [False]}, "expected a list"),
        ({"dense": [["a"]], "n_tokens": [1], "truncated": [False]}, "expected floats"),
        ({"dense": [[1.0, None]], "n_tokens": [1], "truncated": [False]}, "nulls"),
        (
            {"dense": [[1.0], [1.0, 2.0]], "n_tokens": [1, 1], "truncated": [False] * 2},
            r"several widths: \[1, 2\]",
        ),
        (
            {
                "sparse_indices": [[-1]],
                "sparse_values": [[1.0]],
                "n_tokens": [1],
                "truncated": [False],
            },
            "-1, which is no index of a term",
        ),
        (
            {
                "sparse_indices": [[1 << 32]],
                "sparse_values": [[1.0]],
                "n_tokens": [1],
                "truncated": [False],
            },
            "4294967296, which is no index",
        ),
        ({"sparse_indices": [[1]], "n_tokens": [1], "truncated": [False]}, "belong together"),
        ({"n_tokens": [None], "truncated": [False]}, "nulls"),
        (
            {
                "sparse_indices": [[1, 2]],
                "sparse_values": [[1.0]],
                "n_tokens": [1],
                "truncated": [False],
            },
            "differ",
        ),
    ],
)
def test_a_table_of_another_shape_is_refused(table, message):
    """A foreign table gives an error that names the column."""
    with pytest.raises(InputError, match=message):
        Embeddings.from_arrow(pa.table(table))


def test_parts_of_different_lengths_are_refused():
    """Three dense rows cannot go with two token counts."""
    with pytest.raises(InputError, match="dense has 3 rows"):
        Embeddings(np.ones((3, 2), np.float32), None, None, np.ones(2, np.int32), np.ones(2, bool))


def test_records_of_different_lengths_are_refused():
    """Ids, payloads and embeddings belong together."""
    one = Embeddings(None, None, None, np.ones(1, np.int32), np.zeros(1, np.bool_))
    with pytest.raises(InputError, match="2 ids, 1 payloads"):
        RecordBatch(["a", "b"], [{}], one)


def test_the_matching_records_of_a_batch():
    """Those that a filter or its text matches, with their own vectors; all where there is none."""
    counts, cut = np.array([3, 1, 2], np.int32), np.zeros(3, np.bool_)
    batch = RecordBatch(
        ["a", "b", "c"], [{"n": 1}, {}, {"n": 2}], Embeddings(None, None, None, counts, cut)
    )
    for where in (F("n") >= 1, "n >= 1"):
        some = batch.matching(where)
        assert (some.ids, some.payloads) == (["a", "c"], [{"n": 1}, {"n": 2}])
        assert some.embeddings.n_tokens.tolist() == [3, 2]
    assert len(batch.matching("n > 2")) == 0
    assert batch.matching(None) is batch


def test_concat_of_nothing_or_of_different_legs_is_refused():
    """Widths must be known and representations equal."""
    one = Embeddings(None, None, None, np.ones(1, np.int32), np.zeros(1, np.bool_))
    two = Embeddings(
        np.ones((1, 2), np.float32), None, None, np.ones(1, np.int32), np.zeros(1, np.bool_)
    )
    with pytest.raises(InputError, match="at least one"):
        Embeddings.concat([])
    with pytest.raises(InputError, match="differ in their legs"):
        Embeddings.concat([one, two])
