"""Embeddings on disk: the same as in memory, resumed, and never another corpus's."""

from dataclasses import replace

import numpy as np
import pytest

from m3connect.errors import InputError, M3ConnectError
from m3connect.evaluation import shards
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Embeddings

TEXTS = [f"text number {n} of a {'long ' * (n % 5)}list" for n in range(23)]


class Counting(HashEncoder):
    """Counts the texts it encodes, and stops when told to."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        super().__init__()
        self.encoded = 0
        self.stop_after = stop_after

    def encode(self, texts, *, kind="passage", legs=LEGS):
        if self.stop_after is not None and self.encoded >= self.stop_after:
            raise KeyboardInterrupt
        self.encoded += len(texts)
        return super().encode(texts, kind=kind, legs=legs)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of five texts and parts of two, so that 23 texts make several."""
    monkeypatch.setattr(shards, "SHARD_ROWS", 5)
    monkeypatch.setattr(shards, "PART_ROWS", 2)


def encode(folder, encoder, texts=TEXTS):
    return shards.encode(folder, encoder, texts, len(texts), kind="passage", legs=LEGS)


def test_what_is_read_is_what_was_encoded(tmp_path):
    """Blocks in order give the encoder's output, bit for bit."""
    read = encode(tmp_path, HashEncoder())
    assert len(read) == len(TEXTS)
    assert [first for first, _ in read.blocks()] == [0, 5, 10, 15, 20]
    assert Embeddings.concat(read.shards) == HashEncoder().encode(TEXTS)


def test_progress_is_told_within_a_shard(tmp_path):
    """Of every part that is encoded; of a shard that was there, once."""
    told = []

    def progress(stage, done, total):
        told.append((done, total))

    for _ in range(2):
        shards.encode(
            tmp_path, HashEncoder(), TEXTS[:7], 7, kind="passage", legs=LEGS, progress=progress
        )
    assert told == [(n, 7) for n in (2, 4, 5, 5, 7, 7)] + [(5, 7), (7, 7)]


def test_takes_rows_across_shards_in_any_order(tmp_path):
    """Rows come in the order asked, repeated ones twice, with the legs asked."""
    rows = np.array([22, 0, 7, 7, 13])
    taken = encode(tmp_path, HashEncoder()).take(rows, ["dense", "sparse"])
    expected = HashEncoder().encode([TEXTS[row] for row in rows], legs=["dense", "sparse"])
    assert taken == expected
    assert len(encode(tmp_path, HashEncoder()).take(rows[:0], LEGS)) == 0


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    """After a stop only the missing texts are encoded, and the result is the undisturbed one."""
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, Counting(stop_after=10))
    second = Counting()
    resumed = encode(tmp_path, second)
    assert second.encoded == 13
    assert Embeddings.concat(resumed.shards) == HashEncoder().encode(TEXTS)


def test_an_unfinished_file_does_not_count(tmp_path):
    """What a killed process left half-written is not read."""
    (tmp_path / "000000000.1.tmp").write_bytes(b"half")
    assert len(encode(tmp_path, HashEncoder())) == len(TEXTS)


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path, little_room):
    """The message names the file, the room left and what to do; with room the run goes on."""
    little_room(1000)
    with pytest.raises(
        M3ConnectError, match=r"000000000.arrow could not be written .* GB are free"
    ):
        encode(tmp_path, HashEncoder())
    assert not list(tmp_path.iterdir())
    little_room(10_000_000)
    assert len(encode(tmp_path, HashEncoder())) == len(TEXTS)


def test_the_number_of_texts_must_be_right(tmp_path):
    """Fewer or more texts than announced, or than a file holds, is an error."""
    with pytest.raises(InputError, match="23 texts came, 24 were announced"):
        shards.encode(tmp_path, HashEncoder(), TEXTS, 24, kind="passage", legs=LEGS)
    with pytest.raises(InputError, match="holds 5 texts, expected 2"):
        encode(tmp_path, HashEncoder(), TEXTS[:2])


@pytest.mark.parametrize("leg", LEGS)
def test_nan_is_refused(tmp_path, leg):
    """An encoder that gives NaN is stopped before anything is written."""

    class Broken(HashEncoder):
        def encode(self, texts, *, kind="passage", legs=LEGS):
            good = super().encode(texts, kind=kind, legs=legs)
            values = {
                "dense": good.dense,
                "sparse": good.sparse.values,
                "multivector": good.multivector.vectors,
            }
            values[leg].flat[0] = np.nan
            return good

    with pytest.raises(InputError, match=f"the {leg} vectors from text 0 on hold NaN"):
        encode(tmp_path, Broken())
    assert list(tmp_path.iterdir()) == []


def test_the_key_changes_with_everything_that_matters():
    """Model, texts, role and legs each give another folder; the order of legs does not."""
    prefixed = HashEncoder()
    prefixed.info = replace(prefixed.info, preparation="query: ")
    base = shards.key(HashEncoder(), "abc", kind="passage", legs=LEGS)
    assert base == shards.key(HashEncoder(), "abc", kind="passage", legs=LEGS[::-1])
    others = {
        shards.key(HashEncoder(seed=1), "abc", kind="passage", legs=LEGS),
        shards.key(HashEncoder(max_length=64), "abc", kind="passage", legs=LEGS),
        shards.key(prefixed, "abc", kind="passage", legs=LEGS),
        shards.key(HashEncoder(), "abd", kind="passage", legs=LEGS),
        shards.key(HashEncoder(), "abc", kind="query", legs=LEGS),
        shards.key(HashEncoder(), "abc", kind="passage", legs=["dense"]),
    }
    assert len(others | {base}) == 7
