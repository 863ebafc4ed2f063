"""Configurations are checked when they are made."""

import pytest
from pydantic import ValidationError

from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.m3 import M3Model
from m3connect.model.tensors import tensor_shapes


@pytest.fixture
def config(tiny_m3):
    """The tiny model's."""
    return open_checkpoint(tiny_m3).config


def test_tensor_shapes_are_the_models(config):
    """The names and shapes that are checked on loading are those of the torch model."""
    model = M3Model(config)
    assert tensor_shapes(config) == {
        name: tuple(tensor.shape) for name, tensor in model.tensors().items()
    }


def test_positions_of_xlm_r_start_after_padding(config):
    """XLM-R loses the positions up to its padding id, BERT loses none."""
    assert config.body.longest_input == 128
    assert config.body.model_copy(update={"model_type": "bert"}).longest_input == 130


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 129}, "exceeds the body's 128"),
        ({"pooling": "max"}, "pooling"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"multivector_width": 0}, "multivector_width"),
    ],
)
def test_a_bad_value_is_refused(config, changes, message):
    """The message names the key."""
    with pytest.raises(ValidationError, match=message):
        M3Config.model_validate(config.model_dump() | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "no multiple"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"model_type": "gpt2"}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ],
)
def test_a_body_of_another_kind_is_refused(config, changes, message):
    """What would compute something else is no body of ours."""
    with pytest.raises(ValidationError, match=message):
        BodyConfig.model_validate(config.body.model_dump() | changes)
