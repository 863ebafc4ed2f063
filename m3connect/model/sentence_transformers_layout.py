"""Folders that sentence-transformers reads: the body, and a chain of its modules after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from m3connect.errors import ConfigError
from m3connect.model.checkpoint import read_tokenizer
from m3connect.model.config import M3Config
from m3connect.model.saving import head_state, save_body, save_safetensors, write_json

Module = tuple[str, Mapping[str, Any]]
"""A module's class in sentence-transformers, and its configuration."""


def save_dense(
    config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path
) -> None:
    """Write the dense vector as a ``SentenceTransformer``; arguments as for ``saving.save_m3``.

    Its ``encode_query`` and ``encode_document`` add the prefixes, and ``encode`` the passage's.
    """
    pooling = {
        "word_embedding_dimension": config.dense_width,
        "pooling_mode_cls_token": config.pooling == "cls",
        "pooling_mode_mean_tokens": config.pooling == "mean",
        "include_prompt": True,
    }
    modules: list[Module] = [
        ("sentence_transformers.models.Pooling", pooling),
        ("sentence_transformers.models.Normalize", {}),
    ]
    save_body(config, tensors, tokenizer, output)
    _save_modules("SentenceTransformer", config, modules, output)


def save_multivector(
    config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path
) -> None:
    """Write the token vectors as a ``MultiVectorEncoder``; arguments as for ``saving.save_m3``.

    Raises:
        ConfigError: the model has prefixes. Their tokens have no vectors, which cannot be
            expressed there.
    """
    if config.query_prefix or config.passage_prefix:
        raise ConfigError(
            f"{config.name} has prefixes, whose tokens have no vectors; sentence-transformers "
            "cannot leave them out. Export the dense vector (--format sentence-transformers), or "
            "the whole model (--format bge-m3)"
        )
    first = read_tokenizer(tokenizer)[0].encode("").tokens[0]
    linear = {
        "in_features": config.dense_width,
        "out_features": config.multivector_width,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
        "module_input_name": "token_embeddings",
        "module_output_name": "token_embeddings",
    }
    mask = {"skiplist_words": [first], "skiplist_tasks": ["query", "document"]}
    modules: list[Module] = [
        ("sentence_transformers.base.modules.dense.Dense", linear),
        (
            "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
            mask,
        ),
        (
            "sentence_transformers.base.modules.normalize.Normalize",
            {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"},
        ),
    ]
    save_body(config, tensors, tokenizer, output)
    _save_modules("MultiVectorEncoder", config, modules, output)
    weights = {
        f"linear.{name}": tensor for name, tensor in head_state(tensors, "colbert_linear").items()
    }
    save_safetensors(weights, output / "1_Dense" / "model.safetensors")


def _save_modules(kind: str, config: M3Config, modules: list[Module], output: Path) -> None:
    """The list of modules, a folder with the configuration of each, and the prompts."""
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    for number, (type_, values) in enumerate(modules, start=1):
        path = f"{number}_{type_.rpartition('.')[2]}"
        listed.append({"idx": number, "name": str(number), "path": path, "type": type_})
        write_json(output / path / "config.json", values)
    write_json(output / "modules.json", listed)
    write_json(output / "sentence_bert_config.json", {"max_seq_length": config.max_length})
    write_json(
        output / "config_sentence_transformers.json",
        {
            "model_type": kind,
            "prompts": {"query": config.query_prefix, "document": config.passage_prefix},
            "default_prompt_name": "document",
        },
    )
