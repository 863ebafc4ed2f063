"""Smaller multi-vectors: how they come back, and what they weigh."""

import numpy as np
import pytest

from m3connect.errors import ConfigError
from m3connect.evaluation import compression, run
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.testing import corpus
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Leg, MultiVectors


def unit(seed: int, tokens: int, width: int = 32) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("name", "error"), [("float16", 1e-3), ("int8", 5e-3), ("float32", 0)])
def test_values_come_back_nearly_as_they_were(name, error):
    """A rounded value is off by at most half a step."""
    multi = MultiVectors.from_rows([unit(0, 9), unit(1, 4)])
    back = compression.stored(multi, name)
    assert back.offsets.tolist() == [0, 9, 13]
    np.testing.assert_allclose(back.vectors.astype(np.float32), multi.vectors, atol=error)


def test_binary_keeps_signs_and_length():
    """One bit a value: the sign, scaled to unit length."""
    multi = MultiVectors.from_rows([unit(0, 9)])
    back = compression.stored(multi, "binary").vectors
    assert (np.sign(back) == np.sign(multi.vectors)).all()
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, rtol=1e-5)


def test_pooling_merges_what_is_alike():
    """Pairs of near-equal tokens become their means; a lone token stays."""
    base = unit(0, 4)
    doubled = np.repeat(base, 2, axis=0) + np.float32(1e-4) * unit(1, 8)
    back = compression.stored(MultiVectors.from_rows([doubled, base[:1]]), "pool2-float32")
    assert np.diff(back.offsets).tolist() == [4, 1]
    likeness = back[0] @ base.T
    assert sorted(likeness.argmax(axis=1)) == [0, 1, 2, 3]
    assert (likeness.max(axis=1) > 0.999).all()


@pytest.mark.parametrize("name", ["", "int4", "pool", "pool2-", "int8-pool2"])
def test_unknown_storages_are_refused(name):
    """A misspelt storage lists the known ones."""
    with pytest.raises(ConfigError, match="no storage"):
        compression.parse(name)


def test_bytes_are_counted_by_representation():
    """4 bytes a dense value, 8 a lexical weight, the storage's own a token value; two passages each."""
    embeddings = corpus.records(0, 10).embeddings
    shards = [embeddings[:4], embeddings[4:]]
    sizes = compression.bytes_per_document(shards, 5, "int8")
    assert sizes == {
        "dense": 4 * 16 * 2,
        "sparse": 8 * len(embeddings.sparse.values) / 5,
        "multivector": len(embeddings.multivector.vectors) * 8 / 5,
    }


def test_conversion_keeps_everything_else(tmp_path):
    """Dense and lexical parts, order and shards stay as they are."""
    embeddings = corpus.records(0, 10).embeddings
    source = EmbeddingStore.of([embeddings[:4], embeddings[4:]])
    smaller = compression.convert(source, "int8", tmp_path)
    rows = np.arange(10)
    legs: list[Leg] = ["dense", "sparse"]
    assert smaller.take(rows, legs) == source.take(rows, legs)
    assert [len(shard) for shard in smaller.shards] == [4, 6]


def test_storages_are_rows_of_the_evaluation(dataset):
    """Half the bytes for float16's figures, and less with pooling."""
    found = run.evaluate(dataset, HashEncoder(), modes=("multivector",), storages=("int8", "pool2"))
    whole, rounded, pooled = found.rows
    assert [row.name for row in found.rows] == [
        "multivector",
        "multivector int8",
        "multivector pool2",
    ]
    assert rounded.size < whole.size
    assert pooled.size < whole.size
    assert rounded.figures["ndcg@10"].mean() == pytest.approx(
        whole.figures["ndcg@10"].mean(), abs=0.02
    )
