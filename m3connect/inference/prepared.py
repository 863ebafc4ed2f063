"""ONNX Runtime's session of a packed checkpoint, prepared once and then mapped from the disk.

Unpacking the matrices and optimising the graph take most of a start. The first load leaves both in
the user's cache folder, in one folder for each checkpoint and precision::

    ~/.cache/m3connect/models/m3-mini-int8-1f2e3d4c5b6a7988/
        graph.onnx   as ONNX Runtime optimised it
        weights      which it maps
        made_of.txt  what it was made of: it counts as long as that is still so

A cache that cannot be written or read costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

from m3connect import disk
from m3connect.errors import M3ConnectError
from m3connect.model.checkpoint import PACKED, Checkpoint

_WEIGHTS = "weights"
_MADE_OF = "made_of.txt"
_SMALL = 1024  # bytes of a constant that stays inside the graph

Open = Callable[[Path, Any], Any]
"""Opens a session: takes the graph's file and further options of ONNX Runtime's."""

_log = logging.getLogger(__name__)


def session(
    checkpoint: Checkpoint,
    graph: str,
    precision: str,
    make: Open,
    reopen: Open,
) -> Any:
    """The prepared session, made now if it is not there.

    Args:
        checkpoint: a packed one.
        graph: the name of the graph's file.
        precision: of the weights.
        make: opens the checkpoint's graph, with the weights that it takes from memory.
        reopen: opens a prepared graph.
    """
    source = checkpoint.path / graph
    stamp = _stamp(checkpoint, source)
    folder = _folder(checkpoint, precision)
    options = onnxruntime.SessionOptions()
    try:
        if (folder / _MADE_OF).read_text(encoding="utf-8") == stamp:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            return reopen(folder / "graph.onnx", options)
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, M3ConnectError) as error:
        _log.warning("%s cannot be used and is made again: %s", folder, error)
    try:
        with disk.aside(folder) as made:
            made.mkdir()
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(made / "graph.onnx")
            for key, value in (("file_name", _WEIGHTS), ("min_size_in_bytes", str(_SMALL))):
                name = f"session.optimized_model_external_initializers_{key}"
                options.add_session_config_entry(name, value)
            opened = make(source, options)
            (made / _MADE_OF).write_text(stamp, encoding="utf-8")
    except (OSError, M3ConnectError) as error:
        _log.info("the prepared model is not kept: %s", error)
        return make(source, onnxruntime.SessionOptions())
    return opened


def _folder(checkpoint: Checkpoint, precision: str) -> Path:
    """One for each place: what is installed again or trained again takes the old one's."""
    where = hashlib.sha256(str(checkpoint.path.resolve()).encode()).hexdigest()[:16]
    name = f"{checkpoint.path.name}-{precision}-{where}"
    return disk.cache_folder() / "models" / name


def _stamp(checkpoint: Checkpoint, graph: Path) -> str:
    """What a prepared model is made of, in lines."""
    lines = [f"onnxruntime {onnxruntime.__version__}"]
    for file in (graph, *(checkpoint.path / name for name in PACKED)):
        facts = file.stat()
        lines.append(f"{file.name} {facts.st_size} {facts.st_mtime_ns}")
    return "\n".join(lines)
