"""The numbers in the README of BAAI/bge-m3, for machines that have its weights."""

import os

import numpy as np
import pytest

from m3connect.inference import M3Encoder

pytestmark = pytest.mark.weights

QUERIES = ["What is BGE M3?", "Defination of BM25"]
PASSAGES = [
    (
        "BGE M3 is an embedding model supporting dense retrieval, lexical matching and "
        "multi-vector interaction."
    ),
    (
        "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the "
        "query terms appearing in each document"
    ),
]
# Its numbers are of half precision.
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def encoder():
    """BAAI/bge-m3, from the cache alone."""
    if "M3CONNECT_BGE_M3" not in os.environ:
        pytest.skip("set M3CONNECT_BGE_M3 to the folder or name of BAAI/bge-m3")
    return M3Encoder.load(os.environ["M3CONNECT_BGE_M3"])


def test_dense_similarities(encoder):
    """Dense similarities are the published ones."""
    queries, passages = encoder.encode(QUERIES, kind="query"), encoder.encode(PASSAGES)
    published = [[0.6265, 0.3477], [0.3499, 0.678]]
    np.testing.assert_allclose(queries.dense @ passages.dense.T, published, atol=TOLERANCE)


def test_lexical_weights(encoder):
    """Lexical weights are the published ones."""
    found = encoder.encode(QUERIES, kind="query", legs=["sparse"]).sparse
    published = [
        {
            "▁What": 0.08356,
            "▁is": 0.0814,
            "▁B": 0.1296,
            "GE": 0.252,
            "▁M": 0.1702,
            "3": 0.2695,
            "?": 0.04092,
        },
        {
            "▁De": 0.05005,
            "fin": 0.1368,
            "ation": 0.04498,
            "▁of": 0.0633,
            "▁BM": 0.2515,
            "25": 0.3335,
        },
    ]
    for row, expected in enumerate(published):
        terms = [encoder.term(int(index)) for index in found[row].indices]
        weights = dict(zip(terms, found[row].values.tolist(), strict=True))
        assert weights == pytest.approx(expected, abs=TOLERANCE)


def test_pair_scores(encoder):
    """All five pair scores are the published ones."""
    pairs = [(query, passage) for query in QUERIES for passage in PASSAGES]
    found = encoder.compute_score(pairs, weights=(0.4, 0.2, 0.4))
    published = {
        "multivector": [0.77965, 0.46215, 0.45238, 0.78986],
        "sparse": [0.19556, 0.00880, 0.0, 0.18030],
        "dense": [0.62598, 0.34741, 0.34985, 0.67822],
        "hybrid": [0.48250, 0.23454, 0.23324, 0.51225],
        "all": [0.60136, 0.32558, 0.32089, 0.62329],
    }
    for kind, expected in published.items():
        np.testing.assert_allclose(found[kind], expected, atol=TOLERANCE, err_msg=kind)
