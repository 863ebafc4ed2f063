"""ONNX Runtime's session of a packed checkpoint: prepared once, then mapped from the disk.

Unpacking the matrices and optimising the graph take most of a start. ``kept.py`` keeps both::

    ~/.cache/m3connect/models/m3-mini-int8-1f2e3d4c5b6a7988/
        graph.onnx   as ONNX Runtime optimised it
        weights      which it maps
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

from m3connect.model.checkpoint import PACKED, SMOOTHING, Checkpoint
from m3connect.model.folder_cache import cached_folder

_GRAPH = "graph.onnx"
_SMALL = "1024"  # bytes of a constant that stays inside the graph
_SETTING = "session.optimized_model_external_initializers"

Open = Callable[[Path, Any], Any]
"""Opens a session: takes the graph's file and ONNX Runtime's options."""


def session(checkpoint: Checkpoint, graph: str, precision: str, make: Open, reopen: Open) -> Any:
    """The prepared session, made now if it is not there.

    Args:
        checkpoint: a packed one.
        graph: the name of the graph's file.
        precision: of the weights.
        make: opens the checkpoint's graph, with the weights that it takes from memory.
        reopen: opens a prepared graph.
    """
    source = checkpoint.path / graph
    made_of = [source, *(checkpoint.path / name for name in PACKED)]
    smoothing = checkpoint.path / SMOOTHING
    if smoothing.is_file():
        made_of.append(smoothing)

    def fill(folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / _GRAPH)
        options.add_session_config_entry(f"{_SETTING}_file_name", "weights")
        options.add_session_config_entry(f"{_SETTING}_min_size_in_bytes", _SMALL)
        make(source, options)

    def opened(folder: Path) -> Any:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return reopen(folder / _GRAPH, options)

    ready = cached_folder(
        f"{checkpoint.path.name}-{precision}",
        made_of,
        f"onnxruntime {onnxruntime.__version__}",
        fill,
        opened,
    )
    return make(source, onnxruntime.SessionOptions()) if ready is None else ready
