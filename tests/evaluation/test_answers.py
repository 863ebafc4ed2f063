"""Answer-string recall: the published normalisation, by hand."""

import pytest

from m3connect.datasets.beir import TextQuery
from m3connect.errors import InputError
from m3connect.evaluation import answers
from m3connect.types import Document


@pytest.mark.parametrize(
    ("passage", "answer", "held"),
    [
        ("Born in Zürich.", "ZU\u0308RICH", True),
        ("It was 3.5 km", "3.5 km", True),
        ("It was 35 km", "3.5 km", False),
        ("New York City", "York", True),
        ("Newyork", "York", False),
        ("the end", "end of", False),
        ("在北京市举行", "北京", False),
        ("abc", " ", False),
        ("", "\u200b", False),
    ],
)
def test_contains(passage, answer, held):
    """Whole tokens in sequence, whatever their case or composition."""
    assert answers.contains(passage, [answer]) is held


def test_recall_counts_the_best_passages_only():
    """An answer at rank 3 counts at 3, not at 2; one of several answers is enough."""
    run = [("q", {"x": 0.9, "y": 0.8, "z": 0.7}), ("r", {})]
    queries = [TextQuery("q", "?", "", ("Ulm", "Bonn")), TextQuery("r", "?", "", ("Ulm",))]
    documents = [
        Document("x", "a"),
        Document("y", "b"),
        Document("z", "in Bonn"),
        Document("w", "Ulm"),
    ]
    figures = answers.evaluate(
        run, queries, iter(documents), ["answer_recall@2", "answer_recall@3"]
    )
    assert {name: values.tolist() for name, values in figures.items()} == {
        "answer_recall@2": [0, 0],
        "answer_recall@3": [1, 0],
    }


def test_what_a_collection_holds_beyond_the_corpus_answers_nothing():
    """Its text is not known; its rank counts."""
    run = [("q", {"other": 0.9, "x": 0.8})]
    queries = [TextQuery("q", "?", "", ("Ulm",))]
    names = ["answer_recall@1", "answer_recall@2"]
    figures = answers.evaluate(run, queries, [Document("x", "Ulm")], names)
    assert [figures[name].tolist() for name in names] == [[0], [1]]


def test_queries_need_answers():
    """A query without answers cannot be judged by them."""
    with pytest.raises(InputError, match="'q' has no answers"):
        answers.evaluate([("q", {})], [TextQuery("q", "?")], [])
