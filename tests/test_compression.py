"""Smaller representations: what is kept, of what, and that the rest stays as it was."""

import builtins
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.errors import ConfigError, InputError
from m3connect.testing import corpus
from m3connect.types import Compression, Embeddings, MultiVectors, SparseVectors, TokenDtype
from m3connect.types.tokens import array_dtype, from_bytes, rounded, to_bytes, token_bytes

RECORDS = corpus.records(0, 6).embeddings
WHOLE = Compression()

seeds, sizes = st.integers(0, 2**16), st.integers(0, 12)


def unit_rows(seed: int, tokens: int, width: int = 8) -> np.ndarray[Any, Any]:
    rows = np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embeddings(seed: int, tokens: list[int]) -> Embeddings:
    rng = np.random.default_rng(seed)
    weights = [
        {int(term): float(1 + rng.integers(4)) for term in rng.permutation(40)[:count]}
        for count in tokens
    ]
    return Embeddings(
        unit_rows(seed, len(tokens)),
        SparseVectors.from_rows(weights),
        MultiVectors.from_rows(
            [unit_rows(seed + row, count) for row, count in enumerate(tokens)], width=8
        ),
        np.array(tokens, np.int32),
        np.zeros(len(tokens), np.bool_),
    )


def test_nothing_left_out_is_the_same():
    """Without a limit, and with limits that nothing reaches, all arrays are what they were."""
    assert not WHOLE
    for compression in (WHOLE, Compression(dense_width=16, sparse_top=999, multivector_width=8)):
        for kind in ("query", "passage"):
            assert compression.of(RECORDS, kind) == RECORDS


@given(seeds, st.lists(sizes, max_size=4), st.integers(2, 7), st.integers(1, 9), st.integers(2, 5))
def test_sizes_are_what_was_asked_for(seed, tokens, width, top, factor):
    """Widths, terms and token vectors of every text; vectors have length 1; a second time changes nothing."""
    compression = Compression(
        dense_width=width, sparse_top=top, multivector_width=width, multivector_pool=factor
    )
    kept = compression.of(embeddings(seed, tokens), "passage")
    assert kept.dense.shape == (len(tokens), width)
    assert np.diff(kept.sparse.indptr).tolist() == [min(count, top) for count in tokens]
    assert kept.multivector.width == width
    for count, left in zip(tokens, np.diff(kept.multivector.offsets).tolist(), strict=True):
        assert min(count, 1) <= left <= max(1, count // factor)
    for vectors in (kept.dense, kept.multivector.vectors):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    again = Compression(dense_width=width, sparse_top=top, multivector_width=width)
    assert again.of(kept, "passage") == kept


@given(seeds, st.lists(sizes, min_size=1, max_size=4), st.integers(1, 9))
def test_the_heaviest_terms_are_kept(seed, tokens, top):
    """Nothing left out weighs more than what is kept, of equal weights the lower terms stay, order is kept."""
    whole = embeddings(seed, tokens)
    kept = Compression(sparse_top=top).of(whole, "passage").sparse
    for row in range(len(tokens)):
        weights = dict(
            zip(whole.sparse[row].indices.tolist(), whole.sparse[row].values, strict=True)
        )
        best = sorted(weights, key=lambda term: (-weights[term], term))[:top]
        assert kept[row].indices.tolist() == [term for term in weights if term in best]
        assert kept[row].values.tolist() == [weights[term] for term in kept[row].indices.tolist()]


@given(seeds, sizes, sizes, st.integers(1, 8))
def test_the_scores_of_narrow_vectors_are_cosines_of_their_first_values(seed, asked, told, width):
    """A query and a passage that are cut alike score as the cosine of what is left."""
    query, passage = embeddings(seed, [asked]), embeddings(seed + 100, [told])
    compression = Compression(dense_width=width)
    score = compression.of(query, "query").dense @ compression.of(passage, "passage").dense.T
    one, other = query.dense[0, :width].astype(float), passage.dense[0, :width].astype(float)
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert score.item() == pytest.approx(expected, abs=1e-5)


def test_queries_are_made_narrow_and_otherwise_kept_whole():
    """Their terms and token vectors all count: only widths have to be the passages'."""
    query = embeddings(1, [6, 5])
    kept = Compression(dense_width=4, sparse_top=1, multivector_width=4, multivector_pool=2).of(
        query, "query"
    )
    assert kept == Compression(dense_width=4, multivector_width=4).of(query, "passage")
    assert kept.sparse == query.sparse
    assert kept.multivector.offsets.tolist() == query.multivector.offsets.tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_pooling_merges_what_is_alike(dtype):
    """Pairs of near-equal tokens become their means, in the order of the text and in its dtype."""
    base = unit_rows(0, 4, 32)
    doubled = (np.repeat(base, 2, axis=0) + 1e-3 * unit_rows(1, 8, 32)).astype(dtype)
    multi = MultiVectors.from_rows([doubled, base[:1].astype(dtype), base[:0].astype(dtype)])
    whole = Embeddings(None, None, multi, np.array([8, 1, 0], np.int32), np.zeros(3, np.bool_))
    kept = Compression(multivector_pool=2).of(whole, "passage").multivector
    assert np.diff(kept.offsets).tolist() == [4, 1, 0]
    assert kept.vectors.dtype == dtype
    np.testing.assert_allclose(kept[0], base, atol=0.01)


def test_pooling_names_what_it_needs(monkeypatch):
    """Without scipy the message is the line that installs it."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError("no scipy")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r'pip install "m3connect\[pool\]"'):
        Compression(multivector_pool=2).of(RECORDS, "passage")
    Compression(multivector_pool=2).of(RECORDS, "query")


@given(
    seeds,
    sizes,
    st.integers(1, 20),
    st.sampled_from(get_args(TokenDtype)),
    st.sampled_from([1e-20, 1e-3, 1.0, 300.0]),
)
def test_token_vectors_come_back_from_bytes_nearly_as_they_were(seed, tokens, width, dtype, size):
    """Of the stated size, off by half a step at most; stored again, they are the same to the bit."""
    vectors = np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)
    vectors = (vectors * np.float32(size)).astype(np.float32)
    stored = to_bytes(vectors, dtype)
    back = from_bytes(stored, dtype, width)
    assert len(stored) == tokens * token_bytes(width, dtype)
    assert back.shape == vectors.shape
    assert back.dtype == array_dtype(dtype)
    assert to_bytes(back, dtype) == stored
    if dtype == "int8" and tokens:
        steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
        assert (np.abs(back - vectors) <= steps * 0.502).all()
    if dtype == "binary":
        assert ((back > 0) == (vectors > 0)).all()
        np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", get_args(TokenDtype))
def test_token_values_of_passages_are_rounded_as_they_are_stored(dtype):
    """Those of queries are not; zeros stay zeros where there is a zero."""
    kept = Compression(multivector_dtype=dtype)
    passage = kept.of(RECORDS, "passage").multivector
    assert np.array_equal(passage.vectors, rounded(RECORDS.multivector.vectors, dtype))
    assert kept.of(RECORDS, "query") == RECORDS
    if dtype != "binary":
        assert not rounded(np.zeros((2, 3), np.float32), dtype).any()
    with pytest.raises(ConfigError, match="multivector_dtype is one of float32, float16, int8"):
        Compression.from_json({"multivector_dtype": "int4"})


@pytest.mark.parametrize("name", ["dense_width", "sparse_top", "multivector_width"])
def test_impossible_numbers_are_refused(name):
    """Nothing is not enough, and vectors do not grow."""
    with pytest.raises(ConfigError, match=f"{name} must be at least 1"):
        Compression.from_json({name: 0})
    with pytest.raises(ConfigError, match="multivector_pool must be at least 2"):
        Compression(multivector_pool=1)
    if name != "sparse_top":
        with pytest.raises(ConfigError, match=f"{name} is 8 and the model's vectors are 8 wide"):
            Compression.from_json({name: 8}).check(8, 8)
        Compression.from_json({name: 7}).check(8, 8)


def test_json_round_trips():
    """What is said of a compression is what was chosen, and unknown keys are refused."""
    compression = Compression(dense_width=4, multivector_pool=2)
    assert compression.to_json() == {"dense_width": 4, "multivector_pool": 2}
    assert Compression.from_json(compression.to_json()) == compression
    with pytest.raises(InputError, match="multivector_pol"):
        Compression.from_json({"multivector_pol": 2})
