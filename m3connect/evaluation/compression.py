"""What is lost when representations are stored smaller, and what that saves.

A storage goes by a name of parts with hyphens between them, which stand for the fields of
:class:`m3connect.types.Compression`: ``pool2-int8`` makes one token vector of two and keeps a byte
of each value. Queries are made as narrow, and otherwise stay whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from m3connect.errors import ConfigError
from m3connect.evaluation import shards
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.progress import Progress, silent
from m3connect.searching.names import Mode
from m3connect.types import Compression, Embeddings, Leg, TokenDtype
from m3connect.types.tokens import token_bytes

_FIELDS = {
    "dense": "dense_width",
    "top": "sparse_top",
    "width": "multivector_width",
    "pool": "multivector_pool",
}
_MODES: dict[tuple[Leg, ...], Mode] = {
    ("dense",): "dense",
    ("sparse",): "sparse",
    ("multivector",): "multivector",
    ("dense", "sparse"): "hybrid",
}


def parse(name: str) -> Compression:
    """What a storage keeps.

    Raises:
        ConfigError: no such storage.

    >>> print(parse("int8"), parse("dense128-top64"), parse("pool2-binary"), sep="; ")
    multivector_dtype int8; dense_width 128, sparse_top 64; multivector_pool 2, multivector_dtype binary
    """
    dtypes = get_args(TokenDtype)
    chosen: dict[str, Any] = {}
    for part in name.split("-"):
        number = re.fullmatch(r"([a-z]+)([0-9]+)", part)
        if part in dtypes:
            chosen["multivector_dtype"] = part
        elif number and number[1] in _FIELDS:
            chosen[_FIELDS[number[1]]] = int(number[2])
        else:
            raise ConfigError(
                f"no storage {name!r}: parts are {', '.join(f'{each}N' for each in _FIELDS)}, "
                f"{', '.join(dtypes)}, with hyphens between them: pool2-int8"
            )
    return Compression(**chosen)


def mode_of(compression: Compression) -> Mode:
    """The mode that shows what a compression costs: of the representations that it makes smaller.

    >>> mode_of(parse("top64")), mode_of(parse("pool2")), mode_of(parse("dense128-pool2"))
    ('sparse', 'multivector', 'all')
    """
    return _MODES.get(compression.legs, "all")


def convert(
    source: EmbeddingStore,
    compression: Compression,
    folder: Path,
    *,
    progress: Progress = silent,
) -> EmbeddingStore:
    """The store with its passages as they would come back.

    Args:
        source: of passages.
        compression: what is kept of them.
        folder: for its files.
        progress: told of every shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for number, (first, shard) in enumerate(source.blocks()):
        path = folder / f"{number:09d}.arrow"
        shards.write(path, compression.of(shard, "passage"))
        kept.append(shards.read(path))
        progress(f"storing with {compression}", first + len(shard), len(source))
    return EmbeddingStore.of(kept)


def bytes_per_document(
    shards: Sequence[Embeddings], documents: int, dtype: TokenDtype = "float16"
) -> dict[str, float]:
    """Mean bytes of each representation of a document, all its passages together.

    Args:
        shards: the embeddings of all passages.
        documents: that they are the passages of.
        dtype: in which token values are stored.

    A dense value takes 4 bytes, a lexical weight 8 (its term's id and itself).
    """
    sizes: dict[str, float] = {}
    for shard in shards:
        if shard.dense is not None:
            sizes["dense"] = sizes.get("dense", 0.0) + 4.0 * shard.dense.size
        if shard.sparse is not None:
            sizes["sparse"] = sizes.get("sparse", 0.0) + 8.0 * len(shard.sparse.values)
        if shard.multivector is not None:
            multi = shard.multivector
            size = len(multi.vectors) * token_bytes(multi.width, dtype)
            sizes["multivector"] = sizes.get("multivector", 0.0) + size
    return {leg: size / documents for leg, size in sizes.items()}
