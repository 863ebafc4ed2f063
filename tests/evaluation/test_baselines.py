"""Baselines beside the modes: BM25, and the best it can do with the dense vector."""

import numpy as np

from m3connect.evaluation import baselines, metrics
from m3connect.evaluation.run import evaluate
from m3connect.searching import fusion
from m3connect.testing.fakes import HashEncoder


def test_the_fusion_is_the_best_of_its_weights(dataset):
    """Rank fusion of BM25 and dense, worked out here for every weight, has that maximum."""
    recorded = {}
    found = evaluate(
        dataset,
        HashEncoder(width=4),
        modes=("dense",),
        beside=("bm25", "dense+bm25"),
        record=lambda row, query, answer: recorded.setdefault(row, {}).update({query: answer}),
    )
    assert [row.name for row in found.rows] == ["dense", "bm25", "dense+bm25"]
    means = []
    for weight in baselines.WEIGHTS:
        run = {
            query: fusion.rrf(
                {"dense": list(recorded["dense"][query]), "sparse": list(recorded["bm25"][query])},
                {"dense": 1.0, "sparse": weight},
            )
            for query in recorded["dense"]
        }
        means.append(metrics.evaluate(run.items(), dataset.qrels, ["ndcg@10"])["ndcg@10"].mean())
    assert found.rows[-1].figures["ndcg@10"].mean() == max(means)
    assert len({round(mean, 6) for mean in means}) > 1


def test_the_fusion_needs_no_mode(dataset):
    """The dense vector is encoded for it alone."""
    (row,) = evaluate(dataset, HashEncoder(), modes=(), beside=("dense+bm25",)).rows
    assert np.isfinite(row.figures["ndcg@10"]).all()
