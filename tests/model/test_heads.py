"""Heads and masks: what counts in training is what counts in inference."""

import numpy as np
import pytest
import torch

from m3connect.inference import M3Encoder
from m3connect.inference.lexical import lexical_weights
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.heads import Heads, content_masks
from m3connect.model.weights import load_model


def test_mean_pooling_leaves_out_padding():
    """The mean is over tokens only."""
    heads = Heads(4, 4, "mean")
    states = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(heads.pool(states, mask)[0], states[0, :2].mean(0))
    torch.testing.assert_close(heads.pool(states, mask)[1], states[1].mean(0))
    torch.testing.assert_close(heads.pool(states, None), states.mean(1))


def test_cls_pooling_takes_the_first_state():
    """Whatever is padded."""
    states = torch.randn(2, 3, 4)
    assert torch.equal(Heads(4, 4, "cls").pool(states, None), states[:, 0])


@pytest.mark.parametrize("prefix", ["", "sea: "])
def test_masks_leave_what_the_encoder_leaves(vary, prefix):
    """Training and inference agree on which tokens have weights and vectors."""
    folder = vary(passage_prefix=prefix)
    encoder = M3Encoder.load(folder, multivector_dtype="float32")
    texts = ["the river 🚀 rises", "x", ""]
    expected = encoder.encode(texts)

    checkpoint = open_checkpoint(folder)
    rows = [encoder.tokenizer.encode((prefix + text).rstrip()).ids for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    leading = len(encoder.tokenizer.encode(prefix.rstrip()).ids) - 1
    mask = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
    lexical, content = content_masks(ids, mask, leading, checkpoint.config.special_ids)
    with torch.inference_mode():
        found = load_model(checkpoint)(ids, mask)

    np.testing.assert_allclose(
        found.multivector[content], expected.multivector.vectors, rtol=0, atol=1e-6
    )
    text, position = np.nonzero(lexical.numpy())
    sparse = lexical_weights(
        text, ids.numpy()[text, position], found.sparse.numpy()[text, position], len(texts)
    )
    np.testing.assert_array_equal(sparse.indices, expected.sparse.indices)
    np.testing.assert_allclose(sparse.values, expected.sparse.values, rtol=0, atol=1e-5)
