"""Encoding as texts come: bounded memory, the order in which they came."""

import numpy as np
import pytest

from m3connect.inference import M3Encoder
from m3connect.inference.encoder import _READ_AHEAD, _WINDOW_BATCHES
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


def test_the_source_is_read_no_further_than_a_window(encoder):
    """A window holds so many tokens; what is read ahead is bounded, however long the source is."""
    taken = 0

    def source():
        nonlocal taken
        for text in texts(100_000):
            taken += 1
            yield text

    stream = encoder.stream(source())
    first = next(stream)
    assert taken == len(first)
    assert first.n_tokens.sum() >= _WINDOW_BATCHES * 100
    assert first.n_tokens[:-_READ_AHEAD].sum() < _WINDOW_BATCHES * 100
    stream.close()


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
