"""Writing checkpoints, in the layouts that others read.

========= ======================================================================================
m3        ``m3.json``, ``model.safetensors``, ``tokenizer.json``: our own
onnx      the same in float32, and ``graph.onnx``, whose weights are those in
          ``model.safetensors``: m3connect runs it without torch, and so does any ONNX Runtime
bge-m3    the published layout of BAAI/bge-m3, for FlagEmbedding and others; ``m3.json`` too, so
          that m3connect still knows of prefixes, pooling and case folding, which have no place
          elsewhere in it
========= ======================================================================================

The values stay as they are, so an export is the same model: it can be used with collections that
the original filled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from m3connect.errors import ConfigError
from m3connect.model import onnx_graph
from m3connect.model.checkpoint import (
    CONFIG,
    GRAPH,
    Checkpoint,
    read_tokenizer,
    tokenizer_file,
)
from m3connect.model.config import M3Config
from m3connect.model.tensors import HEADS
from m3connect.model.weights import load_model

Format = Literal["m3", "onnx", "bge-m3"]

_TOKENIZER_NOTES = ("tokenizer_config.json", "special_tokens_map.json")


def export(checkpoint: Checkpoint, layout: Format, output: Path) -> None:
    """Write a checkpoint in another layout, in float32.

    Args:
        checkpoint: what to write.
        layout: see above.
        output: a folder that does not exist yet, or is empty.

    Raises:
        ConfigError: an unknown layout, or the folder holds something.
        CheckpointError: the checkpoint is broken.
    """
    if layout not in get_args(Format):
        raise ConfigError(f"format {layout!r} is none of {get_args(Format)}")
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty; name a new folder")
    tensors = load_model(checkpoint).tensors()
    if layout == "bge-m3":
        save_published(checkpoint.config, tensors, checkpoint.path, output)
        return
    save_m3(checkpoint.config, tensors, checkpoint.path, output)
    if layout == "onnx":
        weights = output / "model.safetensors"
        graph = onnx_graph.build(checkpoint.config, "input_ids", weights)
        (output / GRAPH).write_bytes(graph.SerializeToString())


def save_m3(config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path) -> None:
    """Write our own layout.

    Args:
        config: with its ``weights_hash``.
        tensors: under their published names, in the precision to store.
        tokenizer: the folder whose tokenizer is copied.
        output: the folder; made if need be.
    """
    _save_common(config, tokenizer, output)
    _save_safetensors(tensors, output / "model.safetensors")


def save_published(
    config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path
) -> None:
    """Write the published layout of BAAI/bge-m3; arguments as for :func:`save_m3`."""
    _save_common(config, tokenizer, output)
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEADS)}
    _save_safetensors(body, output / "model.safetensors")
    for head in HEADS:
        state = {part: tensors[f"{head}.{part}"].clone() for part in ("weight", "bias")}
        torch.save(state, output / f"{head}.pt")
    architecture = "BertModel" if config.body.model_type == "bert" else "XLMRobertaModel"
    _write_json(
        output / "config.json", {"architectures": [architecture], **config.body.model_dump()}
    )
    for name in _TOKENIZER_NOTES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, output / name)
    if not (output / _TOKENIZER_NOTES[0]).is_file():
        _write_json(output / _TOKENIZER_NOTES[0], _tokenizer_notes(config, output))


def _save_common(config: M3Config, tokenizer: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (output / "tokenizer.json").write_bytes(tokenizer_file(tokenizer)[1])


def _save_safetensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"}
    )
    file.chmod(0o644)  # safetensors makes it private


def _tokenizer_notes(config: M3Config, folder: Path) -> dict[str, Any]:
    """What transformers wants to know about a tokenizer beside its ``tokenizer.json``."""
    tokenizer = read_tokenizer(folder)[0]
    begin, end = (tokenizer.id_to_token(id_) for id_ in tokenizer.encode("").ids)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_length,
        "bos_token": begin,
        "cls_token": begin,
        "eos_token": end,
        "sep_token": end,
        "pad_token": tokenizer.id_to_token(config.body.pad_token_id),
        "unk_token": _present(tokenizer, "<unk>", "[UNK]"),
        "mask_token": _present(tokenizer, "<mask>", "[MASK]"),
    }


def _present(tokenizer: Tokenizer, *names: str) -> str | None:
    return next((name for name in names if tokenizer.token_to_id(name) is not None), None)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
