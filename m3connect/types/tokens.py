"""Token vectors as bytes, in the precision that they are stored in.

=========== ================== ====================================================================
precision   bytes of a token   what is kept
=========== ================== ====================================================================
float32     4 C                everything
float16     2 C                11 bits of each value
int8        C + 4              whole numbers from -127 to 127 and a scale for each token
binary      C / 8              signs, as vectors of length 1
=========== ================== ====================================================================

Rounding again changes nothing: what was read back and is written elsewhere is the same.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m3connect.types.vectors import FloatArray, TokenArray

TokenDtype = Literal["float32", "float16", "int8", "binary"]
"""How token values are stored; the last two come back as float32."""


def array_dtype(dtype: TokenDtype) -> Literal["float32", "float16"]:
    """In which token values come back."""
    return "float16" if dtype == "float16" else "float32"


def token_bytes(width: int, dtype: TokenDtype) -> int:
    """How many bytes a token vector takes.

    >>> [token_bytes(12, dtype) for dtype in ("float32", "float16", "int8", "binary")]
    [48, 24, 16, 2]
    """
    return {
        "float32": 4 * width,
        "float16": 2 * width,
        "int8": width + 4,
        "binary": -(-width // 8),
    }[dtype]


def rounded(vectors: TokenArray, dtype: TokenDtype) -> TokenArray:
    """Token vectors as they come back from a storage.

    Args:
        vectors: ``[T, C]``.
        dtype: the storage's precision.

    Returns:
        ``[T, C]``, float16 if that is the precision, else float32.

    >>> rounded(np.float32([[1.27, -0.404]]), "int8").round(4).tolist()
    [[1.2699999809265137, -0.4000000059604645]]
    >>> rounded(np.float32([[0.6, -0.8]]), "binary").tolist()
    [[0.7071067690849304, -0.7071067690849304]]
    """
    return from_bytes(to_bytes(vectors, dtype), dtype, vectors.shape[1])


def to_bytes(vectors: TokenArray, dtype: TokenDtype) -> bytes:
    """Token vectors one after the other, little endian; arguments as of :func:`rounded`."""
    if dtype == "float16":
        return np.ascontiguousarray(vectors, "<f2").tobytes()
    if dtype == "float32":
        return np.ascontiguousarray(vectors, "<f4").tobytes()
    if dtype == "binary":
        return np.packbits(vectors > 0, axis=1).tobytes()
    scales = _scales(vectors)
    steps = np.rint(vectors / np.where(scales > 0, scales, 1)).clip(-127, 127).astype(np.int8)
    joined: NDArray[np.uint8] = np.concatenate(
        [scales.astype("<f4").view(np.uint8), steps.view(np.uint8)], axis=1
    )
    return joined.tobytes()


def from_bytes(stored: bytes, dtype: TokenDtype, width: int) -> TokenArray:
    """What :func:`to_bytes` made bytes of.

    Args:
        stored: the bytes.
        dtype: the precision.
        width: C.
    """
    if dtype == "float16":
        return np.frombuffer(stored, "<f2").astype(np.float16, copy=False).reshape(-1, width)
    if dtype == "float32":
        return np.frombuffer(stored, "<f4").astype(np.float32, copy=False).reshape(-1, width)
    rows = np.frombuffer(stored, np.uint8).reshape(-1, token_bytes(width, dtype))
    if dtype == "binary":
        signs = np.unpackbits(rows, axis=1, count=width).astype(np.float32) * 2 - 1
        return np.asarray(signs / np.sqrt(width), np.float32)
    scales = np.ascontiguousarray(rows[:, :4]).view("<f4").astype(np.float32)
    return np.ascontiguousarray(rows[:, 4:]).view(np.int8) * scales


def _scales(vectors: NDArray[np.floating[Any]]) -> FloatArray:
    """The size of a step for each token, ``[T, 1]``.

    It has 16 significant bits, so that a step's multiples, up to 127, are exact in float32 and give
    the same scale again.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    bits = (largest.astype(np.float32) / np.float32(127)).view(np.uint32)
    kept: NDArray[np.uint32] = (bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)
    return kept.view(np.float32)
