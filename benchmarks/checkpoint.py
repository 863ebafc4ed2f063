"""A random checkpoint in the published layout of BAAI/bge-m3, which peers load as well."""

from pathlib import Path

import torch

from m3connect.model.checkpoint import read_tokenizer
from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.hub import resolve
from m3connect.model.m3 import M3Model
from m3connect.model.saving import save_published

MAX_LENGTH = 512


def shape(layers: int, width: int, heads: int, max_length: int = MAX_LENGTH) -> M3Config:
    """A model of XLM-R's kind for the tokenizer of m3-mini, which has XLM-R's vocabulary."""
    body = BodyConfig(
        model_type="xlm-roberta",
        vocab_size=read_tokenizer(resolve("m3-mini"))[0].get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max_length + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    return M3Config(
        name="random",
        body=body,
        multivector_width=width,
        max_length=max_length,
        special_ids=(0, 1, 2, 3),
        weights_hash="random",
    )


def make_checkpoint(
    folder: Path, *, layers: int, width: int, heads: int, max_length: int = MAX_LENGTH
) -> M3Config:
    """Seeded weights of that shape, and the tokenizer."""
    torch.manual_seed(0)
    config = shape(layers, width, heads, max_length)
    save_published(config, M3Model(config).tensors(), resolve("m3-mini"), folder)
    return config
