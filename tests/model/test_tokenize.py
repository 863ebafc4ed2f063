"""Text to token ids."""

import numpy as np
import pytest

from m3connect.errors import ConfigError
from m3connect.model.checkpoint import open_checkpoint, read_tokenizer
from m3connect.model.tokenize import TextTokenizer, TokenIds


@pytest.fixture
def tokenizer(tiny_m3):
    """The tiny model's own."""
    return read_tokenizer(tiny_m3)[0]


@pytest.fixture
def config(tiny_m3):
    """The tiny model's own."""
    return open_checkpoint(tiny_m3).config


def test_a_cut_text_is_the_tokenizers_own_truncation(tokenizer, config):
    """Cutting after tokenising gives what the tokenizer's truncation gives."""
    texts = ["x", "many words " * 9, "the river ends in the sea " * 4]
    found = TextTokenizer(tokenizer, config, 17)(texts, "passage")
    tokenizer.enable_truncation(17)
    for row, text in enumerate(texts):
        expected = tokenizer.encode(text.rstrip()).ids
        assert found.ids[found.offsets[row] : found.offsets[row + 1]].tolist() == expected
    assert found.truncated.tolist() == [False, True, True]


def test_padded_is_right_padded(tokenizer, config):
    """Rows keep their order, padding stands on the right up to the longest."""
    text = TextTokenizer(tokenizer, config, 128)
    tokens = text(["the river", "x", "sea"], "passage")
    padded = tokens.padded(np.array([1, 0]), padding=1)
    assert padded.shape == (2, tokens.lengths[[1, 0]].max())
    for row, source in zip(padded, (1, 0), strict=True):
        own = tokens.ids[tokens.offsets[source] : tokens.offsets[source + 1]]
        assert row[: len(own)].tolist() == own.tolist()
        assert (row[len(own) :] == 1).all()


def test_concat_joins_texts(tokenizer, config):
    """Tokenising in parts changes nothing."""
    text = TextTokenizer(tokenizer, config, 128)
    texts = ["the river", "", "x", "sea and hills"]
    whole = text(texts, "passage")
    joined = TokenIds.concat([text(texts[:1], "passage"), text(texts[1:], "passage")])
    for name in ("offsets", "ids", "truncated"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_leading_counts_the_prefix(tokenizer, config):
    """The first special token, and as many as the prefix has."""
    prefixed = config.model_copy(update={"query_prefix": "the river: "})
    text = TextTokenizer(tokenizer, prefixed, 128)
    assert text.leading("passage") == 1
    prefix = tokenizer.encode("the river:").ids[1:-1]
    assert text.leading("query") == 1 + len(prefix)
    assert text(["sea"], "query").ids[1 : text.leading("query")].tolist() == prefix


def test_a_limit_must_leave_room_for_text(tokenizer, config):
    """The message names the range."""
    prefixed = config.model_copy(update={"query_prefix": "the river: "})
    least = TextTokenizer(tokenizer, prefixed, 128).leading("query") + 2
    with pytest.raises(ConfigError, match=f"from {least} to 128"):
        TextTokenizer(tokenizer, prefixed, least - 1)
    assert len(TextTokenizer(tokenizer, prefixed, least)(["sea"], "query").ids) == least
