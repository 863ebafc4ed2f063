"""The main path: every mode and baseline measured, cached, and recorded."""

from dataclasses import replace

import numpy as np
import pytest

from m3connect.errors import ConfigError
from m3connect.evaluation import metrics, requires
from m3connect.evaluation.run import evaluate
from m3connect.searching.modes import MIRACL
from m3connect.searching.names import MODES
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS


class Counting(HashEncoder):
    """Counts the texts it encodes."""

    encoded = 0

    def encode(self, texts, *, kind="passage", legs=LEGS):
        self.encoded += len(texts)
        return super().encode(texts, kind=kind, legs=legs)


def test_measures_every_mode_and_baseline(dataset):
    """One row each, one figure a query, with the figures that the recorded answers have."""
    recorded = {}
    result = evaluate(
        dataset,
        HashEncoder(),
        beside=("bm25",),
        record=lambda row, query, answer: recorded.setdefault(row, {}).update({query: answer}),
    )
    assert [row.name for row in result.rows] == [*MODES, "bm25"]
    assert (result.documents, len(result.queries)) == (36, 12)
    for row in result.rows:
        expected = metrics.evaluate(recorded[row.name].items(), dataset.qrels)
        for name in metrics.DEFAULT:
            np.testing.assert_array_equal(row.figures[name], expected[name])
        assert metrics.means(row.figures)["recall@100"] > 0.9


def test_languages_are_told_apart(dataset):
    """The queries of each language can be averaged by themselves."""
    result = evaluate(dataset, HashEncoder(), modes=("dense",))
    assert result.languages() == {"de": [8, 9, 10, 11], "en": list(range(8))}


def test_a_cache_spares_encoding_and_changes_nothing(dataset, tmp_path):
    """The second run encodes nothing, and a changed corpus is encoded anew."""
    first = evaluate(dataset, HashEncoder(), cache=tmp_path / "cache")
    encoder = Counting()
    second = evaluate(dataset, encoder, cache=tmp_path / "cache")
    assert encoder.encoded == 0
    for one, two in zip(first.rows, second.rows, strict=True):
        assert one.figures["ndcg@10"].tolist() == two.figures["ndcg@10"].tolist()


def test_a_cache_of_all_modes_serves_each_of_them(dataset, tmp_path):
    """After a run of every mode, one mode or a fusion with BM25 encodes nothing."""
    cache = tmp_path / "cache"
    every = evaluate(dataset, HashEncoder(), cache=cache)
    encoder = Counting()
    for mode in ("dense", "sparse", "hybrid", "multivector"):
        (row,) = evaluate(dataset, encoder, modes=(mode,), cache=cache).rows
        (same,) = (each for each in every.rows if each.name == mode)
        assert row.figures["ndcg@10"].tolist() == same.figures["ndcg@10"].tolist()
        assert row.size == same.size
    evaluate(dataset, encoder, modes=(), beside=("dense+bm25",), cache=cache)
    assert encoder.encoded == 0


def test_queries_cached_with_more_representations_than_a_new_corpus_are_searched(dataset, tmp_path):
    """A storage of the one that is needed looks for no others in the corpus."""
    evaluate(dataset, HashEncoder(), modes=("sparse", "dense"), cache=tmp_path)
    changed = replace(dataset, content="changed")
    found = evaluate(changed, HashEncoder(), modes=("dense",), storages=("dense4",), cache=tmp_path)
    assert [row.name for row in found.rows] == ["dense", "dense dense4"]


def test_baselines_need_no_encoding(dataset):
    """Without modes nothing is encoded."""
    encoder = Counting()
    result = evaluate(dataset, encoder, modes=(), beside=("bm25", "bm25-model"))
    assert encoder.encoded == 0
    assert [row.name for row in result.rows] == ["bm25", "bm25-model"]


def test_answer_recall_is_a_metric_like_others(dataset):
    """Answers are looked for in the texts of the documents found."""
    names = ("ndcg@10", "answer_recall@1", "answer_recall@20")
    result = evaluate(dataset, HashEncoder(), modes=("sparse",), names=names)
    (row,) = result.rows
    assert tuple(row.figures) == names
    assert row.figures["answer_recall@1"].sum() < row.figures["answer_recall@20"].sum()


def test_cut_texts_are_reported(dataset):
    """How many texts exceed the model's length stands among the warnings."""
    result = evaluate(dataset, HashEncoder(max_length=6), modes=("dense",), preset=MIRACL)
    assert result.warnings == ("36 of 36 documents are longer than the model reads and were cut",)
    assert result.settings["preset"]["name"] == "miracl"


def test_bad_metrics_are_refused_before_anything_is_encoded(dataset):
    """A metric without cut-off, or without answers, is an error."""
    encoder = Counting()
    with pytest.raises(ConfigError, match="no cut-off"):
        evaluate(dataset, encoder, names=("ndcg",))
    with pytest.raises(ConfigError, match="no metric 'bleu@4'"):
        evaluate(dataset, encoder, names=("bleu@4",))
    assert encoder.encoded == 0


def test_a_missing_extra_prints_the_pip_line(monkeypatch):
    """Without the extra the error says how to get it."""
    monkeypatch.setattr(requires, "_MODULES", ("scipy", "no_such_module"))
    with pytest.raises(ConfigError, match=r'no_such_module: pip install "m3connect\[eval\]"'):
        requires.check()
