"""Our body is transformers' BERT and XLM-R, tensor for tensor and number for number."""

import pytest
import torch

from m3connect.model.backbone import Backbone
from m3connect.model.config import BodyConfig
from tests.model.bodies import KINDS, random_body

pytestmark = pytest.mark.slow  # transformers takes that long to import

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}


@pytest.fixture(params=KINDS)
def pair(request):
    """The same random weights in both implementations."""
    config, theirs = random_body(request.param, **SIZES)
    ours = Backbone(BodyConfig.model_validate(config.to_dict())).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours.double(), theirs.double(), config.pad_token_id


def test_hidden_states_agree(pair):
    """Every token's last hidden state is the same, with and without padding."""
    ours, theirs, padding = pair
    ids = torch.randint(4, 50, (3, 12))
    mask = torch.arange(12) < torch.tensor([[12], [7], [1]])
    ids[~mask] = padding
    with torch.inference_mode():
        expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(ours(ids, mask)[mask], expected[mask], rtol=0, atol=1e-9)
        torch.testing.assert_close(ours(ids[:1], None), expected[:1], rtol=0, atol=1e-9)


def test_the_longest_input_fits(pair):
    """``longest_input`` tokens have positions, one more has none."""
    ours, _, _ = pair
    longest = 40 - ours.embeddings.first_position
    with torch.inference_mode():
        assert ours(torch.full((1, longest), 5), None).shape == (1, longest, 24)
        with pytest.raises(RuntimeError):
            ours(torch.full((1, longest + 1), 5), None)


def test_dropout_only_in_training(pair):
    """In evaluation a pass is repeatable; in training it is not."""
    ours, _, _ = pair
    ids = torch.randint(4, 50, (2, 9))
    assert torch.equal(ours(ids, None), ours(ids, None))
    ours.train()
    assert not torch.equal(ours(ids, None), ours(ids, None))
