"""A random checkpoint in the published layout of BAAI/bge-m3, which peers load as well."""

from pathlib import Path

import torch

from m3connect.model.checkpoint import read_tokenizer
from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.hub import resolve
from m3connect.model.m3 import M3Model
from m3connect.model.saving import save_published

MAX_LENGTH = 512


def make_checkpoint(folder: Path, *, layers: int, width: int, heads: int) -> M3Config:
    """Seeded weights, and the tokenizer of m3-mini with XLM-R's vocabulary."""
    torch.manual_seed(0)
    source = resolve("m3-mini")
    body = BodyConfig(
        model_type="xlm-roberta",
        vocab_size=read_tokenizer(source)[0].get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=MAX_LENGTH + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    config = M3Config(
        name="random",
        body=body,
        multivector_width=width,
        max_length=MAX_LENGTH,
        special_ids=(0, 1, 2, 3),
        weights_hash="random",
    )
    save_published(config, M3Model(config).tensors(), source, folder)
    return config
