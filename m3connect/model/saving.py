"""Writing tensors, configuration and tokenizer in our own layout and in the published one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from m3connect import disk
from m3connect.errors import ConfigError
from m3connect.model.checkpoint import CONFIG, read_tokenizer, tokenizer_file
from m3connect.model.config import M3Config
from m3connect.model.tensors import HEADS

_TOKENIZER_NOTES = ("tokenizer_config.json", "special_tokens_map.json")


def check_new(output: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ConfigError: it does.
    """
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty; name a new folder")


@contextmanager
def whole_or_nothing(output: Path) -> Iterator[None]:
    """Write to a new folder; on an error nothing is left in it, so that it can be named again.

    Raises:
        M3ConnectError: the disk is full, or the folder cannot be written.
    """
    with disk.writing(output, "Make room, and run it again."):
        output.mkdir(parents=True, exist_ok=True)
        try:
            yield
        except BaseException:
            for half in output.iterdir():
                disk.remove(half)
            raise


def save_m3(config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path) -> None:
    """Write our own layout.

    Args:
        config: with its ``weights_hash``.
        tensors: under their published names, in the precision to store.
        tokenizer: the folder whose tokenizer is copied.
        output: the folder; made if need be.
    """
    _save_config(config, output)
    (output / "tokenizer.json").write_bytes(tokenizer_file(tokenizer)[1])
    save_safetensors(tensors, output / "model.safetensors")


def save_published(
    config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path
) -> None:
    """Write the published layout of BAAI/bge-m3; arguments as for :func:`save_m3`."""
    _save_config(config, output)
    save_body(config, tensors, tokenizer, output)
    for head in HEADS:
        torch.save(head_state(tensors, head), output / f"{head}.pt")


def save_body(
    config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path
) -> None:
    """Write what transformers calls a model: body and tokenizer; arguments as for :func:`save_m3`."""
    output.mkdir(parents=True, exist_ok=True)
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEADS)}
    save_safetensors(body, output / "model.safetensors")
    architecture = "BertModel" if config.body.model_type == "bert" else "XLMRobertaModel"
    write_json(
        output / "config.json", {"architectures": [architecture], **config.body.model_dump()}
    )
    (output / "tokenizer.json").write_bytes(tokenizer_file(tokenizer)[1])
    for name in _TOKENIZER_NOTES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, output / name)
    if not (output / _TOKENIZER_NOTES[0]).is_file():
        write_json(output / _TOKENIZER_NOTES[0], _tokenizer_notes(config, output))


def head_state(tensors: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """A head's own tensors, as its ``nn.Linear`` names them."""
    return {part: tensors[f"{head}.{part}"].contiguous() for part in ("weight", "bias")}


def save_safetensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors under their names."""
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"}
    )
    file.chmod(0o644)  # safetensors makes it private


def write_json(file: Path, content: Any) -> None:
    """Write JSON for people."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _save_config(config: M3Config, output: Path) -> None:
    write_json(output / CONFIG, config.model_dump(mode="json"))


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
