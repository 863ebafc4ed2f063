"""Blocks of 4 bits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.model.packed import PackedTensors, differences, is_packed, pack, unpack


def test_unpack_reads_a_block_by_hand():
    """Scale 0.5; byte j holds weight j low and weight j + 16 high, each less 8."""
    block = np.zeros((1, 1, 18), np.uint8)
    block[0, 0, :2] = np.array([0.5], np.float16).view(np.uint8)
    block[0, 0, 2:] = 0x88  # all weights 0
    block[0, 0, 2] = 0xF0  # weight 0 is (0 - 8) / 2, weight 16 is (15 - 8) / 2
    expected = np.zeros(32, np.float32)
    expected[0], expected[16] = -4, 3.5
    np.testing.assert_array_equal(unpack(block)[0], expected)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 100))
def test_a_packed_weight_is_off_by_less_than_a_step(seed, size):
    """Rounding moves a weight by half a step, the shorter side's end by a whole one."""
    matrix = np.random.default_rng(seed).normal(0, size, (3, 64)).astype(np.float32)
    blocks = pack(matrix)
    steps = np.abs(blocks[:, :, :2].copy().view(np.float16).astype(np.float32))
    off = np.abs(unpack(blocks) - matrix).reshape(3, 2, 32)
    assert (off <= steps * 1.01).all()


@given(st.integers(0, 2**32 - 1))
def test_what_was_unpacked_packs_without_loss(seed):
    """Values on the grid stay where they are, as long as a block reaches its end."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (2, 3, 18), np.uint8)
    blocks[:, :, :2] = rng.uniform(0.01, 1, (2, 3, 1)).astype(np.float16).view(np.uint8)
    blocks[:, :, 2] &= 0xF0  # weight 0 is -8 d, the largest
    np.testing.assert_array_equal(unpack(pack(unpack(blocks))), unpack(blocks))


def test_zeros_pack_to_zeros():
    """A block without values divides by nothing."""
    assert not unpack(pack(np.zeros((2, 32), np.float32))).any()


@pytest.fixture
def stored():
    """Base and trained part of three tensors."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(0, 1, (4, 64)).astype(np.float32)
    base: dict[str, Any] = {
        "matrix": pack(matrix),
        "frozen": pack(matrix[::-1]),
        "bias": np.ones(4, np.float32),
    }
    new = {
        "matrix": unpack(base["matrix"]) + rng.normal(0, 0.01, (4, 64)).astype(np.float32),
        "bias": np.full(4, 0.25, np.float32),
        "head": np.full((1, 64), 0.5, np.float32),
    }
    return base, new


def test_differences_keep_what_training_changed(stored):
    """A small change survives on top of the base, where re-packing the matrix would lose it."""
    base, new = stored
    tensors = PackedTensors(base, differences(base, new))
    change = new["matrix"] - unpack(base["matrix"])
    kept = tensors["matrix"] - unpack(base["matrix"])
    lost = unpack(pack(new["matrix"])) - unpack(base["matrix"])
    assert np.linalg.norm(kept - change) < 0.1 * np.linalg.norm(change)
    assert np.linalg.norm(lost - change) > 0.5 * np.linalg.norm(change)


def test_everything_else_is_replaced_or_kept(stored):
    """Trained vectors and heads replace the base's; what was not trained stays."""
    base, new = stored
    tensors = PackedTensors(base, differences(base, new))
    assert set(tensors) == {"matrix", "frozen", "bias", "head"}
    assert len(tensors) == 4
    assert tensors["bias"].tolist() == [0.25] * 4
    assert tensors["head"].dtype == np.float16
    np.testing.assert_array_equal(tensors["frozen"], unpack(base["frozen"]))


def test_rows_are_those_of_the_whole_matrix(stored):
    """Looking up rows equals unpacking all and indexing, repeated ids included."""
    tensors = PackedTensors(stored[0], {})
    ids = np.array([[3, 0, 3], [1, 1, 2]])
    np.testing.assert_array_equal(tensors.rows("frozen", ids), tensors["frozen"][ids])


def test_only_blocks_are_packed():
    """A vector of bytes is no matrix in blocks."""
    assert is_packed(np.zeros((2, 3, 18), np.uint8))
    assert not is_packed(np.zeros((2, 3, 18), np.float32))
    assert not is_packed(np.zeros((2, 54), np.uint8))
