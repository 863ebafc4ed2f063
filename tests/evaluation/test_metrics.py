"""Figures equal trec_eval's, ties and graded judgements included."""

import math

import numpy as np
import pytest
import pytrec_eval

from m3connect.errors import ConfigError, InputError
from m3connect.evaluation import metrics


def random_run(seed: int, queries: int):
    """Runs with many equal scores and judgements from 0 to 3, some of them of unlisted documents."""
    rng = np.random.default_rng(seed)
    run, qrels = [], {}
    for number in range(queries):
        listed = rng.choice(60, 40, replace=False)
        scores = rng.integers(0, 12, 40) / 4
        run.append((f"q{number}", {f"d{d}": float(s) for d, s in zip(listed, scores, strict=True)}))
        judged = rng.choice(60, 15, replace=False)
        qrels[f"q{number}"] = {
            f"d{d}": int(r) for d, r in zip(judged, rng.integers(0, 4, 15), strict=True)
        }
    return run, qrels


def test_equals_the_binding_on_random_runs():
    """nDCG, recall, precision, MAP and success are trec_eval's, query by query, beyond one chunk."""
    run, qrels = random_run(0, 600)
    names = {
        "ndcg@10": "ndcg_cut_10",
        "recall@30": "recall_30",
        "precision@5": "P_5",
        "map@100": "map_cut_100",
        "success@1": "success_1",
    }
    asked = {"ndcg_cut.10", "recall.30", "P.5", "map_cut.100", "success.1", "recip_rank"}
    expected = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(dict(run))
    figures = metrics.evaluate(iter(run), qrels, [*names, "mrr@1000"])
    for ours, theirs in names.items():
        assert figures[ours].tolist() == [expected[query][theirs] for query, _ in run]
    assert figures["mrr@1000"].tolist() == [expected[query]["recip_rank"] for query, _ in run]


def test_ndcg_by_hand():
    """A document of relevance 2 at rank 2 and one of relevance 1 at rank 3 of three."""
    run = [("q", {"x": 3.0, "a": 2.0, "b": 1.0})]
    gained = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 + 1 / math.log2(3)
    figures = metrics.evaluate(run, {"q": {"a": 2, "b": 1}}, ["ndcg@10"])
    assert figures["ndcg@10"].tolist() == pytest.approx([gained / ideal])


@pytest.mark.parametrize(("rank", "value"), [(1, 1.0), (10, 0.1), (11, 0.0)])
def test_mrr_is_cut_off(rank, value):
    """A first relevant document beyond the cut-off counts nothing."""
    run = [("q", {f"d{place:02}": 1.0 - place / 100 for place in range(1, 21)})]
    figures = metrics.evaluate(run, {"q": {f"d{rank:02}": 1}}, ["mrr@10"])
    assert figures["mrr@10"].tolist() == [value]


def test_a_query_that_found_nothing_scores_zero():
    """An empty answer pulls the mean down instead of vanishing from it."""
    figures = metrics.evaluate([("q", {}), ("r", {"a": 1.0})], {"q": {"a": 1}, "r": {"a": 1}})
    assert metrics.means(figures) == dict.fromkeys(metrics.DEFAULT, 0.5)


def test_judgements_below_zero_are_as_zero():
    """trec_eval reads outside its memory where a query has only those, others with grades above 0."""
    run = [("q", {"a": 1.0}), ("r", {"b": 1.0, "c": 0.5})]
    figures = metrics.evaluate(run, {"q": {"a": 1}, "r": {"b": -2}}, ["ndcg@10"])
    assert figures["ndcg@10"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("other", ["a\udc81", "a\0c"])
def test_ids_that_c_cannot_read_are_told_apart(other):
    """Halves of surrogate pairs end no process; what follows a NUL counts."""
    id_ = other.replace("\udc81", "\udc80").replace("c", "b")
    run = [(id_, {other: 1.0, id_: 0.5}), (other, {other: 1.0, id_: 0.5})]
    figures = metrics.evaluate(run, {id_: {id_: 1}, other: {other: 1}}, ["mrr@10"])
    assert figures["mrr@10"].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@ten", "bleu@4"])
def test_an_unknown_metric_is_refused(name):
    """A misspelt metric lists the known ones."""
    with pytest.raises(ConfigError, match=r"no metric|no cut-off"):
        metrics.evaluate([], {}, [name])


def test_a_query_without_judgements_is_refused():
    """A run of unjudged queries cannot be evaluated."""
    with pytest.raises(InputError, match="'q' has no judgements"):
        metrics.evaluate([("q", {})], {})
