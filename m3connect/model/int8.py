"""Matrices in 8 bits, for ``graph.int8.onnx``: weights are rounded when a model is loaded.

A weight matrix ``[out, in]`` has one scale for each output, and activations one for each token, found
as the network goes ("dynamic quantisation"). Which matrices: those of the layers. Embeddings, LayerNorm,
attention's own products and the heads stay in float32.

A few inputs of a matrix are much larger than the others, to which a token's scale then leaves few steps.
So where a LayerNorm comes before the matrix, inputs are divided and their columns multiplied by a
*smoothing* before both are rounded (SmoothQuant, arXiv 2211.10438, section 4, with alpha 0.5).
``smoothing.py`` finds it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m3connect.types import FloatArray


def is_rounded(name: str, ndim: int) -> bool:
    """Whether a checkpoint's tensor of this name is kept in 8 bits.

    >>> is_rounded("encoder.layer.0.output.dense.weight", 2), is_rounded("sparse_linear.weight", 2)
    (True, False)
    """
    return ndim == 2 and name.startswith("encoder.layer.")


def scale_name(name: str) -> str:
    """Where the scales of a rounded matrix are.

    >>> scale_name("encoder.layer.0.output.dense.weight")
    'encoder.layer.0.output.dense.scale'
    """
    return f"{name.removesuffix('.weight')}.scale"


def smoothing_name(name: str) -> str | None:
    """What smooths the inputs of a rounded matrix; None for nothing. Query, key and value have one input.

    >>> smoothing_name("encoder.layer.0.attention.self.query.weight")
    'encoder.layer.0.attention.self.smoothing'
    >>> smoothing_name("encoder.layer.0.output.dense.weight")
    """
    before, self_attention, _ = name.partition(".attention.self.")
    if self_attention:
        return f"{before}.attention.self.smoothing"
    before, intermediate, _ = name.partition(".intermediate.")
    return f"{before}.intermediate.smoothing" if intermediate else None


def smoothing(largest: FloatArray, matrix: FloatArray) -> FloatArray:
    """By what inputs are divided and columns multiplied, so that neither stands out.

    Args:
        largest: of the absolute values of each input, ``float32 [in]``.
        matrix: ``float32 [out, in]``.

    Returns:
        ``float32 [in]``.

    >>> smoothing(np.array([16.0, 1.0], np.float32), np.array([[1, 4], [-1, 0]], np.float32)).tolist()
    [4.0, 0.5]
    """
    columns = np.abs(matrix).max(axis=0)
    smallest = np.float32(1e-3)  # where nothing comes in or nothing is made of it
    found: FloatArray = np.sqrt(np.maximum(largest, smallest) / np.maximum(columns, smallest))
    return found


def rounded(matrix: FloatArray, largest: int) -> tuple[NDArray[np.int8], FloatArray]:
    """Round a matrix, each output by its own scale.

    Args:
        matrix: ``float32 [out, in]``.
        largest: the integer that an output's largest weight becomes: 127, or 63 (7 bits) where the
            CPU adds two products in 16 bits before it goes on, which 8 bits would overflow.

    Returns:
        ``int8 [in, out]``, as a product takes it, and the scales ``float32 [out]``.

    >>> integers, scales = rounded(np.array([[1.27, -0.5], [0, 0]], np.float32), 127)
    >>> integers.tolist(), [round(float(scale), 4) for scale in scales]
    ([[127, 0], [-50, 0]], [0.01, 1.0])
    """
    scales = np.abs(matrix).max(axis=1) / np.float32(largest)
    scales[scales == 0] = 1
    integers = np.rint(matrix / scales[:, None]).astype(np.int8)
    return np.ascontiguousarray(integers.T), scales
