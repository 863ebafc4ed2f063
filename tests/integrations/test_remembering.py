"""Embeddings that frameworks ask for twice are kept within bytes, and between threads."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from m3connect.integrations.remembering import Remembered
from m3connect.testing.fakes import HashEncoder


class CountingEncoder(HashEncoder):
    """Counts the texts that go through it."""

    texts = 0

    def encode(self, texts, **options):
        self.texts += len(texts)
        return super().encode(texts, **options)


def test_what_is_kept_is_not_encoded_again():
    """Equal texts are one; queries and passages are two; what is forgotten is made anew."""
    encoder = CountingEncoder()
    remembered = Remembered(encoder, 2**20)
    first = remembered.encode(["one", "two", "one"], "passage")
    assert first[0] == first[2] == HashEncoder().encode(["one"])
    assert first[1] == HashEncoder().encode(["two"])
    remembered.encode(["two", "one"], "passage")
    assert encoder.texts == 2
    remembered.encode(["one"], "query")
    assert encoder.texts == 3
    remembered.forget(["one", "two", "unknown"], "passage")
    remembered.encode(["one"], "passage")
    assert encoder.texts == 4


def test_it_keeps_no_more_than_its_bytes():
    """The oldest go first, none keeps the batch that it came in, and the answer is whole all the same."""
    encoder = CountingEncoder()
    remembered = Remembered(encoder, 8_000)
    texts = [f"text number {number}" for number in range(200)]
    made = remembered.encode(texts, "passage")
    assert made[0] == HashEncoder().encode(texts[:1])
    assert len(made) == 200
    assert 4_000 < remembered.kept_bytes <= 8_000
    assert all(array.base is None for array in (made[0].dense, made[0].multivector.vectors))
    remembered.encode(texts[-3:], "passage")
    assert encoder.texts == 200
    remembered.encode(texts[:1], "passage")
    assert encoder.texts == 201
    remembered.forget(texts, "passage")
    assert remembered.kept_bytes == 0


def test_threads_share_it():
    """What one thread pushes out while another asks is no error, and every answer is right."""
    remembered = Remembered(HashEncoder(), 4_000, ("dense",))
    texts = [f"t{number}" for number in range(40)]
    expected = HashEncoder().encode(texts).dense

    def ask(start):
        for turn in range(100):
            rows = [(start + 3 * turn + each) % 40 for each in range(6)]
            made = remembered.encode([texts[row] for row in rows], "passage")
            assert np.array_equal([each.dense[0] for each in made], expected[rows])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, (0, 7, 14, 21)))
    assert remembered.kept_bytes <= 4_000


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
def test_a_copy_begins_empty(copied):
    """Frameworks copy what embeds into other processes: the model goes along, the texts stay."""
    remembered = Remembered(HashEncoder(), 5_000, ("dense",))
    made = remembered.encode(["one"], "passage")
    other = copied(remembered)
    assert (other.kept_bytes, other.most_bytes, other.legs) == (0, 5_000, ("dense",))
    assert other.encode(["one"], "passage") == made
