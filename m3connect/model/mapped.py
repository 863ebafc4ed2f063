"""A safetensors file without reading it: where its tensors lie, and arrays that are mapped.

A mapped array costs nothing until it is used, and then only the pages that are: of a table of word
embeddings those of a query's few rows. Changing one changes memory, never the file.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from m3connect.errors import CheckpointError

_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file holds a tensor.

    Args:
        kind: of its values, as safetensors names it: ``F32``.
        shape: its sizes.
        offset: bytes before it.
        length: bytes of it.
    """

    kind: str
    shape: tuple[int, ...]
    offset: int
    length: int


def places(file: Path) -> dict[str, Place]:
    """Where a safetensors file holds its tensors: after a header of JSON, from whose end it counts.

    Raises:
        CheckpointError: it is missing, or its header and its size do not agree.
    """
    try:
        with safe_open(file, "numpy"):  # checks every range against the file's size
            pass
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    header.pop("__metadata__", None)
    return {
        name: Place(
            entry["dtype"],
            tuple(entry["shape"]),
            8 + size + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }


def read_safetensors(file: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a file, mapped.

    Raises:
        CheckpointError: it is missing or broken, or holds numbers that numpy does not know.
    """
    stored = places(file)
    if unknown := {place.kind for place in stored.values()} - _TYPES.keys():
        raise CheckpointError(f"{file} holds {', '.join(sorted(unknown))}, which numpy cannot read")
    content = np.memmap(file, np.uint8, mode="c")
    return {
        name: np.frombuffer(
            content[place.offset : place.offset + place.length], _TYPES[place.kind]
        ).reshape(place.shape)
        for name, place in stored.items()
    }
