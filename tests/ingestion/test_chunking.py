"""Passages cover their document, fit the encoder and are the same in every run."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from m3connect.errors import ConfigError
from m3connect.ingestion import chunking
from m3connect.ingestion.chunking import Chunker, added_tokens, blocks
from m3connect.ingestion.headings import Sections
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document

ENCODER = HashEncoder(max_length=64)
TOKENIZER = ENCODER.tokenizer
CHUNKERS = {tokens: Chunker(ENCODER, tokens=tokens) for tokens in (1, 4, 20)}

marks = st.sampled_from("ab. \n\t#*-`>|!1\u00a0日本é👩\u200d👩\u0627")
any_text = st.text(st.one_of(marks, st.characters(exclude_categories=["Cs"])), max_size=300)


def tokens_of(text):
    return len(TOKENIZER.encode(text, add_special_tokens=False).ids)


MARKS = re.compile(r"[\s`~\-*_=|:#>+]*|\s*(`{3,}|~{3,}).{0,40}")


@given(any_text, st.sampled_from(["text", "markdown"]), st.sampled_from(list(CHUNKERS)))
@example("\x1f", "text", 1)
@example("\x1f\n\n\x1c", "markdown", 4)
def test_passages_cover_the_text_and_fit(text, format_, limit):
    """Nothing is lost but white space and, of Markdown, lone marks and headings; none is too long."""
    chunks = CHUNKERS[limit].chunks(Document("d", text, format=format_))
    assert all(tokens_of(chunk.text) <= limit for chunk in chunks)
    assert all(tokens_of(chunk.encoded) <= 62 for chunk in chunks)
    assert [chunk.id for chunk in chunks] == [f"d#{at}" for at in range(len(chunks))]
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert CHUNKERS[limit].chunks(Document("d", text, format=format_)) == chunks
    assert bool(chunks) == bool(text.strip())
    at, lost = 0, []
    for chunk in chunks:
        start, stop = chunk.place["span"]
        assert at <= start < stop
        assert text[start:stop] == chunk.text
        lost.append((at, start))
        at = stop
    lost = [span for span in [*lost, (at, len(text))] if text[slice(*span)].strip()]
    assert format_ == "markdown" or not lost
    headings = {
        part
        for chunk in chunks
        for heading in chunk.place.get("headings", ())
        for part in heading.split()
    }
    for start, stop in lost:
        for line in text[start:stop].splitlines():
            assert MARKS.fullmatch(line) or set(line.split()) - set("#=-") <= headings | {
                "#" * level for level in range(7)
            }


@given(any_text, st.sampled_from(list(CHUNKERS)), st.booleans())
def test_a_text_that_fits_is_looked_at_whole_and_cut_as_ever(text, limit, overlapping):
    """The short way gives what the splitter gives, but for separators alone."""
    chunker = Chunker(ENCODER, tokens=limit, overlap=limit // 2 if overlapping else 0)
    splitter = TextSplitter.from_huggingface_tokenizer(TOKENIZER, limit, chunker.overlap)
    found = splitter.chunk_indices(text)
    spans = [(at, at + len(part)) for at, part in found if part.strip()]
    assert list(chunker._spans(Document("d", text))) == spans


@given(st.integers(1, 60), st.integers(3, 12), st.integers(1, 2))
def test_passages_overlap_by_no_more_than_asked(words, limit, overlap):
    """Every word is there, and a passage repeats at most the overlap of the one before it."""
    numbered = [f"w{at}" for at in range(words)]
    chunker = Chunker(ENCODER, tokens=limit, overlap=overlap)
    parts = [chunk.text.split() for chunk in chunker.chunks(Document("d", " ".join(numbered)))]
    assert list(dict.fromkeys(word for part in parts for word in part)) == numbered
    for before, after in pairwise(parts):
        assert len(set(before) & set(after)) <= overlap


def test_markdown_is_cut_at_its_headings():
    """A section stays together where plain text would fill the passage up."""
    text = "# One\n\na b c\n\n# Two\n\nd e f g h"
    chunker = Chunker(ENCODER, tokens=8)
    markdown = [chunk.text for chunk in chunker.chunks(Document("d", text, format="markdown"))]
    assert markdown == ["# One\n\na b c", "# Two\n\nd e f g h"]


MANUAL = "# Pumps\n\n" + "".join(
    f"## Pump {name}\n\n### Torque\n\n{name}1 {name}2 {name}3 {name}4 {name}5. {name}6 {name}7\n\n"
    for name in "AB"
)


def manual(**options):
    document = Document("d", MANUAL, {"title": "Manual"}, "markdown")
    return Chunker(ENCODER, tokens=6, **options).chunks(document)


def test_a_heading_is_no_passage_but_context():
    """It is encoded with what stands below it, and stored beside the text, which stays clean."""
    chunks = manual()
    assert [chunk.text for chunk in chunks] == [
        "A1 A2 A3 A4 A5.",
        "A6 A7",
        "B1 B2 B3 B4 B5.",
        "B6 B7",
    ]
    assert [chunk.place["headings"] for chunk in chunks[1:3]] == [
        ["Pumps", "Pump A", "Torque"],
        ["Pumps", "Pump B", "Torque"],
    ]
    assert chunks[2].encoded == "Manual Pumps Pump B Torque B1 B2 B3 B4 B5."


@pytest.mark.parametrize(
    ("context", "encoded"),
    [
        (["title"], "Manual B6 B7"),
        (["headings"], "Pumps Pump B Torque B6 B7"),
        ([], "B6 B7"),
    ],
)
def test_the_context_can_be_chosen(context, encoded):
    """Without headings as context, no heading is left out of the passages."""
    chunks = manual(context=context)
    assert chunks[-1].encoded == encoded
    lone = any("### Torque" in chunk.text for chunk in chunks)
    assert lone == ("headings" not in context)


def test_a_context_that_does_not_fit_loses_its_outer_end():
    """The encoder cuts nothing off the passage."""
    text = "# " + "far " * 30 + "\n\n## near\n\n" + " ".join(f"w{at}" for at in range(50))
    chunk, *_ = Chunker(ENCODER, tokens=40).chunks(Document("d", text, {}, "markdown"))
    assert chunk.encoded.startswith("near w")


def test_a_cut_paragraph_leaves_no_small_rest():
    """Its last two passages share it at the end of a sentence; whole paragraphs stay whole."""
    text = "# H\n\n" + "a b c. " * 6
    chunks = Chunker(ENCODER, tokens=20).chunks(Document("d", text, format="markdown"))
    assert [chunk.text for chunk in chunks] == [
        "# H\n\na b c. a b c. a b c.",
        "a b c. a b c. a b c.",
    ]
    text = "a b c d e f g h i j k l m n o\n\np q r s t u"
    assert [each.text for each in Chunker(ENCODER, tokens=15).chunks(Document("d", text))] == (
        text.split("\n\n")
    )


def test_a_title_that_the_passage_shows_is_not_repeated():
    """Nor one that is a heading above it."""
    document = Document("d", "# Manual\n\n" + "a b c. " * 20, {"title": "Manual"}, "markdown")
    chunks = Chunker(ENCODER, tokens=20).chunks(document)
    assert chunks[-1].encoded.count("Manual") == 1
    whole = Chunker(ENCODER, tokens=62).chunks(
        Document("d", "# M\n\na", {"title": "M"}, "markdown")
    )
    assert [chunk.encoded for chunk in whole] == ["# M\n\na"]


def test_a_title_is_encoded_as_test_collections_have_it():
    """Title, blank, text: what a live evaluation finds is what the offline one encodes."""
    (chunk,) = Chunker(ENCODER).chunks(Document("d", "It is done.", {"title": "Keys"}))
    assert (chunk.encoded, chunk.text) == ("Keys It is done.", "It is done.")
    (chunk,) = Chunker(ENCODER).chunks(Document("d", "It is done.", {"title": 5}))
    assert chunk.encoded == "It is done."


def test_fences_and_tiny_passages_do_not_stand_alone():
    """Marks are dropped, and a short passage joins its neighbour."""
    code = "```\n" + "x = 1\n" * 30 + "```\n\nEnd.\n"
    chunks = Chunker(ENCODER, tokens=40).chunks(Document("d", code, format="markdown"))
    assert all("x = 1" in chunk.text for chunk in chunks)
    assert chunks[-1].text.endswith("End.")


@pytest.mark.parametrize("text", ["```", "---\n***", "# Only\n\n## headings\n\n### here", "!"])
@pytest.mark.parametrize("tokens", [1, 3, 62])
def test_a_document_of_nothing_else_is_still_found(text, tokens):
    """What would be dropped elsewhere stays where there is nothing else."""
    assert Chunker(ENCODER, tokens=tokens).chunks(Document("d", text, format="markdown"))


def test_headings_are_those_of_markdown():
    """Underlined ones too; none in code, none that is a line of text."""
    text = (
        "Title\n=====\n\nx\n\nSub *one*\n---\n\n```\n# no\n```\n\n### [L](http://x) `c` ###\n\n"
        "#no\n\n" + "# " + "long " * 100 + "\n"
    )
    assert [heading.path for heading in Sections(text).headings] == [
        ("Title",),
        ("Title", "Sub *one*"),
        ("Title", "Sub *one*", "L c"),
    ]


def test_pages_are_numbered():
    """By the form feeds between them."""
    text = "\f".join(" ".join(f"p{page}w{at}" for at in range(8)) for page in range(1, 4))
    chunks = Chunker(ENCODER, tokens=4).chunks(Document("d", text))
    assert [(chunk.text[1], str(chunk.place["page"])) for chunk in chunks] == [
        (chunk.text[1], chunk.text[1]) for chunk in chunks
    ]


@pytest.mark.parametrize(
    "text", ["a" * 9000, "日本。" * 3000, "x " + "b" * 5000 + " y", "w " * 200_000]
)
def test_long_texts_are_cut_in_parts_that_cover_them(text):
    """So that time grows with length and not with its square; nothing is lost between parts."""
    parts = list(blocks(text))
    assert "".join(text[start:stop] for start, stop in parts) == text
    longest = max(stop - start for start, stop in parts)
    assert longest <= (1024 if max(map(len, text.split())) > 4096 else 1 << 18)
    assert all(text[stop - 1] == "。" for _, stop in parts[:-1]) or "。" not in text


@pytest.mark.parametrize("mark", ["> ", ">", "1. ", "- > * "])
def test_a_hundred_quotes_inside_of_each_other_are_cut_as_plain_text(monkeypatch, mark):
    """Twice as many took four times as long, 32,000 of them seconds; a long line of dashes is none."""
    asked = []
    splitter = chunking._markdown_splitter
    monkeypatch.setattr(chunking, "_markdown_splitter", lambda *a: asked.append(a) or splitter(*a))
    nested = Document("d", f"# A\n\nb c\n\n{mark * 100}d e f g h i\n", {}, "markdown")
    letters = filter(str.isalpha, "".join(chunk.text for chunk in CHUNKERS[4].chunks(nested)))
    assert "".join(letters) == "Abcdefghi"
    assert asked == []
    usual = f"# A\n\n{'-' * 100}\n\n{mark}b c d e f\n"
    assert CHUNKERS[4].chunks(Document("d", usual, {}, "markdown"))
    assert len(asked) == 1


def test_the_default_is_256_tokens_or_what_the_encoder_takes():
    """The encoder's own tokens, two here, count against its maximum."""
    assert added_tokens(ENCODER) == 2
    assert Chunker(ENCODER).tokens == 62
    assert Chunker(HashEncoder(max_length=512)).tokens == 256


@pytest.mark.parametrize(("tokens", "overlap"), [(0, 0), (63, 0), (8, 8), (8, -1)])
def test_sizes_that_cannot_work_are_refused(tokens, overlap):
    """Too many tokens for the encoder, none at all, or an overlap that never ends."""
    with pytest.raises(ConfigError, match="--chunk-"):
        Chunker(ENCODER, tokens=tokens, overlap=overlap)


def test_the_description_tells_chunkers_apart():
    """Size, overlap and context are part of a collection's fingerprint."""
    described = {
        Chunker(ENCODER, tokens=t, overlap=o, context=c).description
        for t in (4, 5)
        for o in (0, 1)
        for c in ((), ("title",), ("headings", "title"))
    }
    assert len(described) == 12
    with pytest.raises(ConfigError, match="--context is of title, headings, got author"):
        Chunker(ENCODER, context=["author"])  # type: ignore[list-item]


def test_a_splitter_is_made_once_a_process(monkeypatch):
    """By tokenizer and size, whichever encoder object it came with."""
    made = []
    build = TextSplitter.from_huggingface_tokenizer

    class Counting:
        from_huggingface_tokenizer = staticmethod(lambda *a: made.append(a) or build(*a))

    monkeypatch.setattr(chunking, "TextSplitter", Counting)
    for _ in range(3):
        assert Chunker(HashEncoder(), tokens=37).chunks(Document("d", "a b"))
    assert len(made) == 1
    Chunker(HashEncoder(), tokens=36).chunks(Document("d", "a b"))
    assert len(made) == 2
