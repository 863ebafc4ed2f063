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

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from m3connect.errors import ConfigError
from m3connect.model import onnx_graph, saving, sentence_transformers_layout, smoothing
from m3connect.model.checkpoint import GRAPH, GRAPH_INT8, Checkpoint
from m3connect.model.config import M3Config
from m3connect.model.weights import load_model, model_of

Format = Literal[
    "m3", "onnx", "bge-m3", "sentence-transformers", "sentence-transformers-multivector"
]
GraphDtype = Literal["float32", "int8"]
Writer = Callable[[M3Config, Mapping[str, Tensor], Path, Path], None]


def export(
    checkpoint: Checkpoint, layout: Format, output: Path, *, dtype: GraphDtype | None = None
) -> None:
    """Write a checkpoint in another layout; weights are in float32.

    Args:
        checkpoint: what to write.
        layout: see above.
        output: a folder that does not exist yet, or is empty.
        dtype: the lowest precision in which ``onnx`` can be run: ``int8``, which is the default, or
            ``float32``, without ``graph.int8.onnx``.

    Raises:
        ConfigError: an unknown layout or precision, one that cannot express this model, a precision of
            a layout that has none, or the folder holds something.
        CheckpointError: the checkpoint is broken.
    """
    if layout not in _WRITERS:
        raise ConfigError(f"format {layout!r} is none of {', '.join(_WRITERS)}")
    write = _WRITERS[layout]
    if dtype is not None:
        if layout != "onnx":
            raise ConfigError(f"--dtype is for --format onnx: {layout} has no graph to run")
        if dtype not in _GRAPHS:
            raise ConfigError(f"dtype {dtype!r} is none of {', '.join(_GRAPHS)}")
        write = partial(_save_onnx, graphs=_GRAPHS[dtype])
    saving.check_new(output)
    tensors = load_model(checkpoint).tensors()
    with saving.whole_or_nothing(output):
        write(checkpoint.config, tensors, checkpoint.path, output)


_GRAPHS: Mapping[GraphDtype, Sequence[str]] = {"float32": [GRAPH], "int8": [GRAPH, GRAPH_INT8]}


def _save_onnx(
    config: M3Config,
    tensors: Mapping[str, Tensor],
    tokenizer: Path,
    output: Path,
    graphs: Sequence[str] = _GRAPHS["int8"],
) -> None:
    saving.save_m3(config, tensors, tokenizer, output)
    weights = output / "model.safetensors"
    for name in graphs:
        graph = onnx_graph.build(config, "input_ids", weights, int8=name == GRAPH_INT8)
        (output / name).write_bytes(graph.SerializeToString())
    if GRAPH_INT8 in graphs:
        smoothing.write(model_of(config, tensors), output)


_WRITERS: Mapping[Format, Writer] = {
    "m3": saving.save_m3,
    "onnx": _save_onnx,
    "bge-m3": saving.save_published,
    "sentence-transformers": sentence_transformers_layout.save_dense,
    "sentence-transformers-multivector": sentence_transformers_layout.save_multivector,
}
