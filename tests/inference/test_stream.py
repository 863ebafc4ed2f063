"""Encoding as texts come: bounded memory, the order in which they came."""

import threading

import numpy as np
import pytest

from m3connect.inference import M3Encoder
from m3connect.inference.encoder import _READ_AHEAD, _WINDOW_BATCHES
from m3connect.model.tokenize import TextTokenizer
from m3connect.types import Embeddings


@pytest.fixture(scope="module")
def encoder(tiny_m3):
    """The tiny model with a small budget."""
    return M3Encoder.load(tiny_m3, batch_tokens=100, multivector_dtype="float32")


def texts(count):
    """Texts of many lengths."""
    rng = np.random.default_rng(0)
    return [f"{number} " + "river " * int(rng.integers(0, 30)) for number in range(count)]


def test_streamed_is_encoded(encoder):
    """Streaming gives what encoding at once gives, in the same order."""
    given = texts(300)
    parts = list(encoder.stream(iter(given)))
    whole = encoder.encode(given)
    found = Embeddings.concat(parts)
    assert len(parts) > 1
    np.testing.assert_allclose(found.dense, whole.dense, atol=1e-6)
    np.testing.assert_array_equal(found.sparse.indices, whole.sparse.indices)
    np.testing.assert_array_equal(found.multivector.offsets, whole.multivector.offsets)


def test_the_source_is_read_no_further_than_two_windows(encoder):
    """A window holds so many tokens; what is read ahead is bounded, however long the source is."""
    taken = 0

    def source():
        nonlocal taken
        for text in texts(100_000):
            taken += 1
            yield text

    stream = encoder.stream(source())
    first = next(stream)
    assert taken == 2 * len(first)
    assert first.n_tokens.sum() >= _WINDOW_BATCHES * 100
    assert first.n_tokens[:-_READ_AHEAD].sum() < _WINDOW_BATCHES * 100
    stream.close()


def test_the_next_window_is_tokenised_while_one_is_encoded(encoder, monkeypatch):
    """The network of the first window waits here for the tokens of the second."""
    tokenised, second = TextTokenizer.__call__, threading.Event()

    def tokenise(text, group, kind, **first):
        if group[0].startswith(f"{_READ_AHEAD} "):
            second.set()
        return tokenised(text, group, kind, **first)

    def encode(tokens, kind, legs):
        assert second.wait(60)
        return M3Encoder._encode(encoder, tokens, kind, legs)

    monkeypatch.setattr(TextTokenizer, "__call__", tokenise)
    monkeypatch.setattr(encoder, "_encode", encode)
    assert len(next(encoder.stream(texts(300)))) == _READ_AHEAD


def test_what_came_before_the_source_failed_is_encoded(encoder):
    """A window that is complete is returned before the error is raised."""

    def source():
        yield from texts(300)
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(len(part) for part in encoder.stream(source()))
    assert found == [_READ_AHEAD] * 4


def test_nothing_is_read_before_it_is_asked_for(encoder):
    """A stream is lazy, and an empty source gives an empty stream."""

    def never():
        raise AssertionError("read too early")
        yield ""

    encoder.stream(never())
    assert list(encoder.stream(iter([]))) == []


def test_a_window_does_not_grow_with_the_length_of_texts(encoder):
    """Many long texts make many windows, not a large one."""
    long = ["river " * 400] * (2 * _READ_AHEAD)
    parts = list(encoder.stream(long))
    assert [len(part) for part in parts] == [_READ_AHEAD, _READ_AHEAD]
