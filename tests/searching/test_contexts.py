"""What an answer is written from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.contract import CollectionSchema
from m3connect.errors import InputError
from m3connect.ingestion import ingest
from m3connect.searching.contexts import (
    apart,
    best_sentences,
    by_document,
    contexts,
    diverse,
    highlights,
)
from m3connect.searching.search import search
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Document, Hit, RecordBatch

WORDS = ("river", "engine", "violin", "harvest", "planet", "castle")


@pytest.fixture(scope="module")
def encoder():
    """The fake encoder."""
    return HashEncoder()


@pytest.fixture(scope="module")
def manual(encoder):
    """Two documents of six paragraphs, one passage each."""
    connector = MemoryConnector(collection="manual")
    documents = [
        Document(name, "\n\n".join(f"{name} {word} " * 10 for word in WORDS))
        for name in ("one", "two")
    ]
    ingest(documents, encoder, connector, chunk_tokens=24)
    return connector


def hit_on(manual, encoder, text):
    """The best hit for a text."""
    return search(manual, encoder, text, mode="sparse", limit=1)[0]


def test_one_hit_a_document(manual, encoder):
    """The best passage of each document, ranked from 1."""
    hits = search(manual, encoder, "one two violin", limit=12)
    grouped = by_document(hits)
    assert [hit.rank for hit in grouped] == [1, 2]
    assert {hit.document_id for hit in grouped} == {"one", "two"}
    assert grouped[0].id == hits[0].id
    assert len(by_document(hits, 1)) == 1


def test_neighbours_fill_the_budget_and_no_more(manual, encoder):
    """Passages before and after are added by turns while they fit, in the document's order."""
    hit = hit_on(manual, encoder, "one violin")
    counts = [len(encoder.tokenizer.encode(hit.text, add_special_tokens=False))]
    for room, (first, last) in ((1, (2, 2)), (2, (2, 3)), (3, (1, 3)), (4, (1, 4)), (99, (0, 5))):
        context = contexts([hit], manual, encoder, tokens=room * counts[0])[0]
        assert (context.first, context.last) == (first, last)
        words = [word for word in WORDS if word in context.text]
        assert words == list(WORDS[first : last + 1])
        assert "two" not in context.text


def test_a_passage_is_never_cut(manual, encoder):
    """A budget below the passage gives the passage."""
    hit = hit_on(manual, encoder, "one violin")
    assert contexts([hit], manual, encoder, tokens=1)[0].text == hit.text
    assert contexts([hit], manual, encoder, expand="nothing")[0].text == hit.text


def test_the_parent_is_the_whole_document_where_it_fits(manual, encoder):
    """With room for it, all passages."""
    hit = hit_on(manual, encoder, "two castle")
    context = contexts([hit], manual, encoder, expand="parent", tokens=1000)[0]
    assert (context.first, context.last) == (0, 5)


def test_a_record_of_no_document_stands_alone(encoder):
    """Records that ingestion did not write have no neighbours."""
    hit = Hit("x", 1.0, 1, {"text": "alone"})
    connector = MemoryConnector(collection="none")
    assert contexts([hit], connector, encoder)[0].text == "alone"


def records(encoder, *payloads):
    """A collection of records that came with vectors, and hits on all of them."""
    connector = MemoryConnector(collection="foreign")
    connector.ensure(CollectionSchema.of(encoder.info.fingerprint, LEGS))
    ids = [f"r{row}" for row in range(len(payloads))]
    connector.upsert(RecordBatch(ids, list(payloads), encoder.encode(["alpha"] * len(ids))))
    return connector, search(connector, encoder, "alpha", mode="dense")


@pytest.mark.parametrize("expand", ["neighbours", "parent"])
@pytest.mark.parametrize("document", ["d", 5])
def test_records_that_came_with_vectors_are_read_as_they_are(encoder, expand, document):
    """A passage without a text adds none, and the document's id may be a number."""
    texts: list[dict[str, Any]] = [{"text": "one"}, {}, {"text": None}, {"text": "four"}]
    payloads = [
        {"document_id": document, "position": place, **text} for place, text in enumerate(texts)
    ]
    connector, hits = records(encoder, *payloads)
    found = contexts(hits, connector, encoder, expand=expand)
    assert [(each.text, each.first, each.last) for each in found] == [("one\n\nfour", 0, 3)] * 4


def test_what_is_no_id_no_place_and_no_text_counts_as_none(encoder):
    """Whatever JSON stands in these fields, each record is a document of its own, perhaps without a text."""
    odd = [["d", "e"], {"d": 1}, True, None, ""]
    payloads = [{"document_id": value, "position": value, "text": value} for value in odd]
    connector, hits = records(encoder, *payloads)
    assert {hit.document_id for hit in hits} == {f"r{row}" for row in range(len(odd))}
    assert [hit.text for hit in hits] == [""] * len(odd)
    assert by_document(hits) == list(hits)
    found = contexts(hits, connector, encoder)
    assert [each.hit for each in apart(found)] == list(hits)
    refined = search(connector, encoder, "alpha", group_by="document", expand="parent", highlight=1)
    assert [hit.context for hit in refined] == [""] * len(odd)


def test_diversity_prefers_what_is_unlike(encoder):
    """Twins of the best hit wait behind an unlike one; without diversity the order stays."""
    connector = MemoryConnector(collection="notes")
    texts = {"a": "keys rotate daily", "b": "keys rotate daily.", "c": "keys of castles"}
    ingest([Document(name, text) for name, text in texts.items()], encoder, connector)
    hits = search(connector, encoder, "keys rotate daily", mode="dense", limit=3)
    assert [h.document_id for h in diverse(hits, connector, 3, diversity=0)] == ["a", "b", "c"]
    mixed = diverse(hits, connector, 2, diversity=0.9)
    assert [h.document_id for h in mixed] == ["a", "c"]
    assert [h.rank for h in mixed] == [1, 2]
    with pytest.raises(InputError, match="between 0 and 1"):
        diverse(hits, connector, 2, diversity=2)


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(1, 5))
def test_grouping_keeps_the_order_of_the_best(documents, limit):
    """No document twice, in the order of first appearance."""
    hits = [
        Hit(f"{name}#{n}", 1 - n / 100, n + 1, {"document_id": name})
        for n, name in enumerate(documents)
    ]
    names = [hit.document_id for hit in by_document(hits, limit)]
    assert names == list(dict.fromkeys(documents))[:limit]


def test_the_best_sentences_come_in_the_order_of_the_texts(encoder):
    """Sentences that share the query's words are chosen, each with the text that it stands in first."""
    texts = [
        "The castle is old. " * 20 + "Ask for\nkeys. " + "The river is long. " * 20,
        "",
        "# Keys rotated\n\nThe violin is small. Keys are rotated. Ask for keys.",
    ]
    chosen = best_sentences("keys rotated", texts, encoder, limit=2)
    assert [(each.text, each.row) for each in chosen] == [
        ("Ask for keys.", 0),
        ("Keys are rotated.", 2),
    ]
    assert chosen[1].score > chosen[0].score > 0
    assert best_sentences("keys", ["", "# Keys"], encoder) == []
    assert best_sentences("keys", [], encoder) == []


def test_sentences_end_in_chinese_without_a_blank(encoder):
    """Full-width marks end a sentence; a decimal point does not, and no text is left out."""
    chosen = best_sentences("x", ["水很深。山很高。 3.5 bar? Yes"], encoder, limit=9)
    assert [each.text for each in chosen] == ["水很深。", "山很高。", "3.5 bar?", "Yes"]
    words = [f"word{number}" for number in range(200)]
    long = best_sentences("x", [" ".join(words)], encoder, limit=9)
    assert max(len(each.text) for each in long) <= 400
    assert " ".join(each.text for each in long).split() == words


WRAPPED = """\
# Keys

A key is rotated every ninety days, which the service does by itself at
night. Ask for keys at the desk!
1. First ask.
2. Then wait.

| a table | of keys |

今日は良い天気です。明日は雨です。
"""


def test_highlights_are_the_sentences_in_their_places(encoder):
    """Without headings and marks of lists; wrapped lines go on."""
    (found,) = highlights("keys", [WRAPPED], encoder, limit=99)
    assert [WRAPPED[mark.start : mark.stop] for mark in found] == [
        "A key is rotated every ninety days, which the service does by itself at\nnight.",
        "Ask for keys at the desk!",
        "First ask.",
        "Then wait.",
        "a table | of keys",
        "今日は良い天気です。",
        "明日は雨です。",
    ]


@given(st.lists(st.text(max_size=30), max_size=4), st.integers(0, 3))
def test_highlights_are_disjoint_places_of_the_text(texts, limit):
    """Whatever the text: at most so many, in order, none over another, none blank."""
    for text, found in zip(
        texts, highlights("a query", texts, HashEncoder(), limit=limit), strict=True
    ):
        assert len(found) <= limit
        ends = [0]
        for mark in found:
            assert ends[-1] <= mark.start < mark.stop <= len(text)
            assert text[mark.start : mark.stop].strip()
            ends.append(mark.stop)
