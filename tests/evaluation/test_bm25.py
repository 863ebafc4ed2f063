"""BM25 by hand, and an analyser that knows scripts and stems."""

import math

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from m3connect.datasets.beir import TextQuery
from m3connect.evaluation.bm25 import Bm25, tokens, words
from m3connect.types import Document


@pytest.mark.parametrize(
    ("text", "language", "terms"),
    [
        ("Straßen laufen", "de", ["strass", "lauf"]),
        ("Straßen laufen", "de-AT", ["strass", "lauf"]),
        ("Straßen laufen", "", ["strassen", "laufen"]),
        ("हिन्दी की किताबें", "", ["हिन्दी", "की", "किताबें"]),
        ("서울특별시 Seoul의", "ko", ["서울", "울특", "특별", "별시", "seoul", "의"]),
        ("ภาษา", "th", ["ภา", "าษ", "ษา"]),
        ("\uff26\uff35\uff2c\uff2c \u2460", "en", ["full", "1"]),
        ("猫", "zh", ["猫"]),
        ("... !", "en", []),
    ],
)
def test_words(text, language, terms):
    """Case, width and inflection vanish; unspaced scripts give pairs; vowel signs stay in words."""
    assert words(text, language) == terms


def test_scores_are_the_formula():
    """Lucene's BM25 with k1 0.9 and b 0.4 on three documents, worked out by hand."""
    documents = [
        Document("a", "cat cat dog", {"lang": "en"}),
        Document("b", "dog", {"lang": "en"}),
        Document("c", "bird fish", {"lang": "en"}),
    ]
    (found,) = Bm25(documents, 3).run([TextQuery("q", "Cats", "en")], 10)
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 / (2 + 0.9 * (1 - 0.4 + 0.4 * 3 / 2))
    assert found == {"a": pytest.approx(expected, rel=1e-6)}


def test_only_documents_that_share_a_term_are_found():
    """Unknown words, empty queries and empty documents find nothing; a limit beyond N is fine."""
    documents = [Document("a", "sky", {}), Document("b", "", {}), Document("c", "sky sea", {})]
    queries = [TextQuery("1", "ground"), TextQuery("2", ""), TextQuery("3", "ground sky")]
    nothing, empty, found = Bm25(documents, 3).run(queries, 100)
    assert (nothing, empty) == ({}, {})
    assert list(found) == ["a", "c"]


def test_a_corpus_without_a_word_has_no_answers():
    """Punctuation alone is no reason to lose what else was measured."""
    index = Bm25([Document("a", "!!!")], 1)
    assert list(index.run([TextQuery("q", "word"), TextQuery("p", "?")], 10)) == [{}, {}]


def test_the_models_tokens_can_be_the_terms():
    """With a tokenizer the terms are its ids, whatever the language."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "SKY": 1, "sea": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    documents = [Document("a", "SKY", {}), Document("b", "sea", {}), Document("c", "x \ud800", {})]
    index = Bm25(documents, 3, tokens(tokenizer))
    assert [
        list(found) for found in index.run([TextQuery("q", "SKY"), TextQuery("r", "zzz")], 3)
    ] == [
        ["a"],
        ["c"],
    ]


def test_indexing_says_nothing(caplog):
    """The library's own debugging lines do not reach the user."""
    with caplog.at_level("DEBUG"):
        Bm25([Document("a", "sky", {})], 1)
    assert caplog.records == []
