"""Matrices in 8 bits, for ``graph.int8.onnx``: weights are rounded when a model is loaded.

A weight matrix ``[out, in]`` has one scale for each output, and activations one for each token, found
as the network goes ("dynamic quantisation"; nothing is calibrated). Which matrices: those of the
layers and of the multi-vector head. Embeddings, LayerNorm, attention's own products and the lexical
head stay in float32.
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
    return ndim == 2 and name.startswith(("encoder.layer.", "colbert_linear."))


def scale_name(name: str) -> str:
    """Where the scales of a rounded matrix are.

    >>> scale_name("colbert_linear.weight")
    'colbert_linear.scale'
    """
    return f"{name.removesuffix('.weight')}.scale"


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
