"""Smaller representations measured: what they cost, and what they weigh."""

from dataclasses import replace

import numpy as np
import pytest

from m3connect.errors import ConfigError
from m3connect.evaluation import compression, run
from m3connect.evaluation.reports import tables
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.testing import corpus
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Compression, Leg


@pytest.mark.parametrize("name", ["", "int4", "pool", "pool2-", "pool1", "dense0", "48", "top-3"])
def test_unknown_storages_are_refused(name):
    """A misspelt storage lists the known parts; an impossible number is named."""
    with pytest.raises(ConfigError, match=r"no storage|must be at least"):
        compression.parse(name)


def test_bytes_are_counted_by_representation():
    """4 bytes a dense value, 8 a lexical weight, the storage's own a token; two passages each."""
    embeddings = corpus.records(0, 10).embeddings
    shards = [embeddings[:4], embeddings[4:]]
    sizes = compression.bytes_per_document(shards, 5, "int8")
    assert sizes == {
        "dense": 4 * 16 * 2,
        "sparse": 8 * len(embeddings.sparse.values) / 5,
        "multivector": len(embeddings.multivector.vectors) * (8 + 4) / 5,
    }


def test_conversion_keeps_everything_else(tmp_path):
    """Dense and lexical parts, order and shards stay as they are."""
    embeddings = corpus.records(0, 10).embeddings
    source = EmbeddingStore.of([embeddings[:4], embeddings[4:]])
    kept = Compression(multivector_dtype="int8")
    smaller = compression.convert(source, kept, tmp_path)
    rows = np.arange(10)
    legs: list[Leg] = ["dense", "sparse"]
    assert smaller.take(rows, legs) == source.take(rows, legs)
    assert [len(shard) for shard in smaller.shards] == [4, 6]
    assert smaller.take(rows, ["multivector"]) == kept.of(embeddings, "passage").only(
        ["multivector"]
    )


def test_storages_are_rows_of_the_evaluation(dataset):
    """Each in the mode that it changes, as an encoder would score that compresses by itself."""
    names = ("int8", "pool2", "dense4", "top1", "dense4-top1-width4-pool2-binary")
    found = run.evaluate(dataset, HashEncoder(), modes=("multivector", "all"), storages=names)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == [
        "multivector",
        "all",
        "multivector int8",
        "multivector pool2",
        "dense dense4",
        "sparse top1",
        "all dense4-top1-width4-pool2-binary",
    ]
    sizes = {name: row.size for name, row in rows.items()}
    assert max(sizes["multivector int8"], sizes["multivector pool2"]) < sizes["multivector"]
    assert sizes["dense dense4"] == 16
    assert 0 < sizes["sparse top1"] <= 8
    assert sizes["all dense4-top1-width4-pool2-binary"] < sizes["all"] / 5
    assert rows["multivector int8"].figures["ndcg@10"].mean() == pytest.approx(
        rows["multivector"].figures["ndcg@10"].mean(), abs=0.02
    )
    ideal = run.evaluate(dataset, Narrow(), modes=("dense",))
    np.testing.assert_array_equal(
        ideal.rows[0].figures["ndcg@10"], rows["dense dense4"].figures["ndcg@10"]
    )
    table = tables.sizes([found, replace(found, dataset="other")], "ndcg@10")
    assert table.head == ["ndcg@10", found.dataset, "bytes", "other", "bytes", "mean", "bytes"]
    line = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}["dense dense4"]
    assert line[1::2] == ["16"] * 3
    assert line[0] == line[2] == line[4] == f"{rows['dense dense4'].figures['ndcg@10'].mean():.3f}"
    with pytest.raises(ConfigError, match="dense_width is 16 and"):
        run.evaluate(dataset, HashEncoder(), storages=("dense16",))


class Narrow(HashEncoder):
    """Keeps four values of a dense vector."""

    def encode(self, texts, *, kind="passage", legs=("dense", "sparse", "multivector")):
        return Compression(dense_width=4).of(super().encode(texts, kind=kind, legs=legs), kind)
