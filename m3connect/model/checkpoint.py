"""Opening checkpoints. Three layouts, told apart by the files in the folder:

========= ======================================================================================
packed    ``m3.json``, ``base.safetensors``, ``trained.safetensors`` (see ``packed.py``)
m3        ``m3.json``, ``model.safetensors``
bge-m3    ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, ``sparse_linear.pt``,
          ``colbert_linear.pt``: the published layout of BAAI/bge-m3. Where ``m3.json`` lies
          beside them it counts; it says what ``config.json`` cannot, such as mean pooling.
========= ======================================================================================

Each has ``tokenizer.json`` (or ``.gz``), and ``graph.onnx`` where ONNX Runtime can run it. Nothing
here needs torch, except to look into the heads of the published layout without ``m3.json``.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from tokenizers import Tokenizer

from m3connect.errors import CheckpointError, ConfigError
from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.mapped import read_safetensors
from m3connect.model.packed import PackedTensors

Layout = Literal["packed", "m3", "bge-m3"]
Model = TypeVar("Model", bound=BaseModel)

CONFIG = "m3.json"
PACKED = ("base.safetensors", "trained.safetensors")
GRAPH = "graph.onnx"
GRAPH_INT8 = "graph.int8.onnx"
"""The same network with its matrices in 8 bits (``int8.py``); the weights are the checkpoint's own."""
SMOOTHING = "int8.safetensors"
"""What smooths the inputs of the matrices in 8 bits; beside ``graph.int8.onnx``."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that holds a model.

    Args:
        path: the folder.
        layout: how its files are laid out.
        config: what the model is.
    """

    path: Path
    layout: Layout
    config: M3Config

    @property
    def has_graph(self) -> bool:
        """Whether ONNX Runtime can run it."""
        return (self.path / GRAPH).is_file()

    @property
    def has_int8_graph(self) -> bool:
        """Whether ONNX Runtime can run it in 8 bits."""
        return (self.path / GRAPH_INT8).is_file()


def open_checkpoint(path: Path, name: str | None = None) -> Checkpoint:
    """Recognise a folder's layout and read its configuration.

    Args:
        path: the folder.
        name: what to call the model where the files do not say; else the folder's name.

    Raises:
        CheckpointError: no known layout, or a file that cannot be understood.
        ConfigError: the published layout needs torch, which is missing.
    """
    if (path / CONFIG).is_file():
        return Checkpoint(path, _layout(path), _read_json(M3Config, path / CONFIG))
    if (path / "config.json").is_file():
        return Checkpoint(path, "bge-m3", _published_config(path, name or path.name))
    raise CheckpointError(
        f"{path} holds neither {CONFIG} nor config.json: not a checkpoint that m3connect knows"
    )


def _layout(path: Path) -> Layout:
    if (path / PACKED[0]).is_file():
        return "packed"
    return "bge-m3" if (path / "sparse_linear.pt").is_file() else "m3"


def _read_json(model: type[Model], file: Path) -> Model:
    try:
        return model.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _published_config(path: Path, name: str) -> M3Config:
    """What the published layout does not say in one place."""
    try:
        from m3connect.model.published import read_published
    except ImportError as error:
        raise ConfigError(
            f'{path} is in the published layout, which needs torch: pip install "m3connect[torch]"'
        ) from error
    body = _read_json(BodyConfig, path / "config.json")
    tensors = read_published(path)
    return M3Config(
        name=name,
        body=body,
        multivector_width=tensors["colbert_linear.weight"].shape[0],
        max_length=body.longest_input,
        special_ids=_special_ids(read_tokenizer(path)[0], body.pad_token_id),
        weights_hash=weights_hash(tensors),
    )


def _special_ids(tokenizer: Tokenizer, padding: int) -> tuple[int, ...]:
    """The ids that get no lexical weight: begin, end, padding and unknown."""
    begin_end = tokenizer.encode("").ids
    unknown = [tokenizer.token_to_id(token) for token in ("<unk>", "[UNK]")]
    return tuple(sorted({*begin_end, padding, *(id_ for id_ in unknown if id_ is not None)}))


def read_tokenizer(path: Path) -> tuple[Tokenizer, str]:
    """A checkpoint's tokenizer, without truncation and padding, and the hash of its file.

    Raises:
        CheckpointError: it is missing or cannot be understood.
    """
    file, content = tokenizer_file(path)
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except ValueError as error:
        raise CheckpointError(f"{file} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, hashlib.sha256(content).hexdigest()[:16]


def tokenizer_file(path: Path) -> tuple[Path, bytes]:
    """Where a checkpoint's tokenizer lies, and its JSON.

    Raises:
        CheckpointError: there is none.
    """
    file = tokenizer_place(path)
    content = file.read_bytes()
    return file, gzip.decompress(content) if file.suffix == ".gz" else content


def tokenizer_place(path: Path) -> Path:
    """Where a checkpoint's tokenizer lies.

    Raises:
        CheckpointError: there is none.
    """
    for name in ("tokenizer.json", "tokenizer.json.gz"):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"{path} holds no tokenizer.json; transformers' AutoTokenizer writes one (save_pretrained)"
    )


def read_packed(checkpoint: Checkpoint) -> PackedTensors:
    """The tensors of a packed checkpoint, mapped from its two files.

    Raises:
        CheckpointError: a file is missing or broken.
    """
    base, trained = (read_safetensors(checkpoint.path / name) for name in PACKED)
    return PackedTensors(base, trained)


def read_smoothing(checkpoint: Checkpoint) -> Mapping[str, NDArray[Any]]:
    """What ``smoothing.find`` found of a checkpoint; nothing for one that was exported before there was any.

    Raises:
        CheckpointError: the file is broken.
    """
    file = checkpoint.path / SMOOTHING
    return read_safetensors(file) if file.is_file() else {}


def weights_hash(tensors: Mapping[str, Any]) -> str:
    """A model's identity: a hash of the names, shapes and sampled values of its tensors.

    Of each tensor the first, middle and last 256 values count, as float32. Training moves every
    value, so these tell, and 2.3 GB need not be read. The file format does not matter, nor does a
    conversion that keeps the values.

    Args:
        tensors: numpy or torch tensors by name, as stored.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        flat = tensor.reshape(-1)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        for start in (0, max(0, len(flat) // 2 - 128), max(0, len(flat) - 256)):
            sample = flat[start : start + 256].tolist()
            digest.update(np.asarray(sample, np.float32).tobytes())
    return digest.hexdigest()[:16]
