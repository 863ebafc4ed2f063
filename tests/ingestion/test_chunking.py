"""Passages cover their document, fit the encoder and are the same in every run."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.errors import ConfigError
from m3connect.ingestion.chunking import Chunker, added_tokens
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document

ENCODER = HashEncoder(max_length=64)
TOKENIZER = ENCODER.tokenizer
CHUNKERS = {tokens: Chunker(ENCODER, tokens=tokens) for tokens in (1, 4, 20)}

marks = st.sampled_from("ab. \n\t#*-`>|!1\u00a0日本é👩\u200d👩\u0627")
any_text = st.text(st.one_of(marks, st.characters(exclude_categories=["Cs"])), max_size=300)


def tokens_of(text):
    return len(TOKENIZER.encode(text, add_special_tokens=False).ids)


@given(any_text, st.sampled_from(["text", "markdown"]), st.sampled_from(list(CHUNKERS)))
def test_passages_cover_the_text_and_fit(text, format_, limit):
    """No character but white space is lost, order is kept, and none exceeds the limit."""
    chunks = CHUNKERS[limit].chunks(Document("d", text, format=format_))
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
    assert all(tokens_of(chunk.text) <= limit for chunk in chunks)
    assert [chunk.id for chunk in chunks] == [f"d#{at}" for at in range(len(chunks))]
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert CHUNKERS[limit].chunks(Document("d", text, format=format_)) == chunks


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
    """Size and overlap are part of a collection's fingerprint."""
    described = {Chunker(ENCODER, tokens=t, overlap=o).description for t in (4, 5) for o in (0, 1)}
    assert len(described) == 4
