"""The precision ``int8`` on a CPU whose 8-bit products overflow: what it costs can be measured there, too.

    python benchmarks/int8_exact.py MODEL_FOLDER FOLDER

writes a copy of a packed checkpoint whose graph in 8 bits has unsigned weights around 128. Their products with
unsigned activations are added in 32 bits on every CPU, so each sum is the one that a CPU with VNNI or AMX
makes of signed weights.

    python benchmarks/int8_exact.py --run eval --model FOLDER --dtype int8 ...

is ``m3connect eval`` on that copy. It says nothing about speed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from m3connect import cli
from m3connect.inference import precision
from m3connect.model import int8, onnx_graph
from m3connect.model.checkpoint import open_checkpoint
from m3connect.types import FloatArray

_HALF = 128
_ZERO = "weights_zero"
_signed = int8.rounded


def unsigned(matrix: FloatArray, largest: int) -> tuple[NDArray[Any], FloatArray]:
    """As ``int8.rounded``, the integers moved by 128."""
    integers, scales = _signed(matrix, largest)
    return (integers.astype(np.int16) + _HALF).astype(np.uint8), scales


def copy(checkpoint: Path, folder: Path) -> None:
    """A checkpoint whose graph in 8 bits takes unsigned weights."""
    shutil.copytree(checkpoint, folder)
    graph = onnx_graph.build(open_checkpoint(checkpoint).config, "rows", int8=True)
    zero = numpy_helper.from_array(np.asarray(_HALF, np.uint8), _ZERO)
    graph.graph.initializer.append(zero)
    for tensor in graph.graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            tensor.data_type = TensorProto.UINT8
    for node in graph.graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            node.input.append(_ZERO)
    onnx.save_model(graph, folder / "graph.int8.onnx")


def main() -> None:
    """Make the copy, or run a command on it."""
    if sys.argv[1] != "--run":
        copy(Path(sys.argv[1]), Path(sys.argv[2]))
        return
    int8.rounded = unsigned
    precision.int8_scheme = lambda _: "int8"
    cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
