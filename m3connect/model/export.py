"""Writing checkpoints in the layouts that others read.

- ``m3``: ``m3.json``, ``model.safetensors``, ``tokenizer.json``. Our own.
- ``onnx``: the same, and ``graph.onnx``, whose weights are those in ``model.safetensors``. m3connect
  runs it without torch, and so does any ONNX Runtime. ``graph.int8.onnx`` is for m3connect alone: it
  rounds the same weights to 8 bits when it loads them.
- ``bge-m3``: the published layout of BAAI/bge-m3, for FlagEmbedding and others. ``m3.json`` is there
  too, so that m3connect still knows of prefixes, pooling and case folding, which have no place
  elsewhere in it.
- ``sentence-transformers``: the dense vector, for its ``SentenceTransformer``.
- ``sentence-transformers-multivector``: the token vectors, for its ``MultiVectorEncoder``.

The values stay as they are. An export that m3connect reads is the same model: it can be used with
collections that the original filled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from m3connect.errors import ConfigError
from m3connect.model import onnx_graph, saving, sentence_transformers_layout
from m3connect.model.checkpoint import GRAPH, GRAPH_INT8, Checkpoint
from m3connect.model.config import M3Config
from m3connect.model.weights import load_model

Format = Literal[
    "m3", "onnx", "bge-m3", "sentence-transformers", "sentence-transformers-multivector"
]
Writer = Callable[[M3Config, Mapping[str, Tensor], Path, Path], None]


def export(checkpoint: Checkpoint, layout: Format, output: Path) -> None:
    """Write a checkpoint in another layout, in float32.

    Args:
        checkpoint: what to write.
        layout: see above.
        output: a folder that does not exist yet, or is empty.

    Raises:
        ConfigError: an unknown layout, one that cannot express this model, or the folder holds
            something.
        CheckpointError: the checkpoint is broken.
    """
    if layout not in _WRITERS:
        raise ConfigError(f"format {layout!r} is none of {', '.join(_WRITERS)}")
    saving.check_new(output)
    _WRITERS[layout](checkpoint.config, load_model(checkpoint).tensors(), checkpoint.path, output)


def _save_onnx(
    config: M3Config, tensors: Mapping[str, Tensor], tokenizer: Path, output: Path
) -> None:
    saving.save_m3(config, tensors, tokenizer, output)
    weights = output / "model.safetensors"
    for name, int8 in ((GRAPH, False), (GRAPH_INT8, True)):
        graph = onnx_graph.build(config, "input_ids", weights, int8=int8)
        (output / name).write_bytes(graph.SerializeToString())


_WRITERS: Mapping[Format, Writer] = {
    "m3": saving.save_m3,
    "onnx": _save_onnx,
    "bge-m3": saving.save_published,
    "sentence-transformers": sentence_transformers_layout.save_dense,
    "sentence-transformers-multivector": sentence_transformers_layout.save_multivector,
}
