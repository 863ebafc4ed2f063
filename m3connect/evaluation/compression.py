"""What multi-vectors cost and what is lost when they are stored smaller.

A storage is one of ``float32``, ``float16``, ``int8`` and ``binary``, after ``poolN`` if tokens are
pooled: ``pool2-int8`` keeps half as many vectors, a byte a value. Queries stay whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import ConfigError
from m3connect.evaluation import shards
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.progress import Progress, silent
from m3connect.types import Embeddings, MultiVectors, TokenArray

_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "binary": 1 / 8}


def parse(name: str) -> tuple[int, str]:
    """How many tokens become one, and how a value is stored.

    Raises:
        ConfigError: no such storage.

    >>> parse("int8"), parse("pool3"), parse("pool2-binary")
    ((1, 'int8'), (3, 'float16'), (2, 'binary'))
    """
    parts = name.split("-")
    factor = parts.pop(0).removeprefix("pool") if name.startswith("pool") else "1"
    kind = parts[0] if parts else "float16"
    if len(parts) > 1 or kind not in _BYTES or factor not in set("123456789"):
        raise ConfigError(f"no storage {name!r}: one of {list(_BYTES)}, poolN, or poolN-int8")
    return int(factor), kind


def convert(
    source: EmbeddingStore, name: str, folder: Path, *, progress: Progress = silent
) -> EmbeddingStore:
    """The store with its multi-vectors as they would come back from this storage.

    Args:
        source: with multi-vectors.
        name: of the storage.
        folder: for its files.
        progress: told of every shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for number, (first, shard) in enumerate(source.blocks()):
        assert shard.multivector is not None
        path = folder / f"{number:09d}.arrow"
        shards.write(path, replace(shard, multivector=stored(shard.multivector, name)))
        kept.append(shards.read(path))
        progress(f"storing as {name}", first + len(shard), len(source))
    return EmbeddingStore.of(kept)


def stored(multi: MultiVectors, name: str) -> MultiVectors:
    """Token vectors as they come back from a storage.

    >>> stored(MultiVectors.from_rows([np.float32([[0.6, -0.8]])]), "binary").vectors.tolist()
    [[0.7071067690849304, -0.7071067690849304]]
    """
    factor, kind = parse(name)
    pooled = _pooled(multi, factor) if factor > 1 else multi
    return MultiVectors(pooled.offsets, _rounded(pooled.vectors.astype(np.float32), kind))


def bytes_per_document(
    shards: Sequence[Embeddings], documents: int, name: str = "float32"
) -> dict[str, float]:
    """Mean bytes of each representation of a document, all its passages together.

    Args:
        shards: the embeddings of all passages.
        documents: that they are the passages of.
        name: the storage of multi-vectors.

    A dense value takes 4 bytes, a lexical weight 8 (its term's id and itself).
    """
    sizes: dict[str, float] = {}
    for shard in shards:
        if shard.dense is not None:
            sizes["dense"] = sizes.get("dense", 0.0) + 4.0 * shard.dense.size
        if shard.sparse is not None:
            sizes["sparse"] = sizes.get("sparse", 0.0) + 8.0 * len(shard.sparse.values)
        if shard.multivector is not None:
            size = shard.multivector.vectors.size * _BYTES[parse(name)[1]]
            sizes["multivector"] = sizes.get("multivector", 0.0) + size
    return {leg: size / documents for leg, size in sizes.items()}


def _rounded(vectors: NDArray[np.float32], kind: str) -> TokenArray:
    if kind == "float16":
        return vectors.astype(np.float16)
    if kind == "int8":
        scale = np.abs(vectors).max(axis=1, keepdims=True) / 127
        steps = np.round(vectors / np.where(scale > 0, scale, 1))
        return np.asarray(steps * scale, np.float32)
    if kind == "binary":
        return np.asarray(np.where(vectors > 0, 1, -1) / np.sqrt(vectors.shape[1]), np.float32)
    return vectors


def _pooled(multi: MultiVectors, factor: int) -> MultiVectors:
    rows = [_clustered(multi[row].astype(np.float32), factor) for row in range(len(multi))]
    return MultiVectors.from_rows(rows, width=multi.width)


def _clustered(vectors: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Similar tokens become their normalised mean (Clavie et al., arXiv 2409.14683: Ward's method)."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(vectors) < 3:
        return vectors
    tree = linkage(vectors, method="ward")
    labels = fcluster(tree, t=max(1, len(vectors) // factor), criterion="maxclust")
    means = np.stack([vectors[labels == label].mean(axis=0) for label in np.unique(labels)])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return (means / np.where(lengths > 0, lengths, 1)).astype(np.float32)
