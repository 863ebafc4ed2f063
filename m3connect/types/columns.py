"""Arrays as columns of Arrow tables, and back. Loads pyarrow, which takes a tenth of a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from m3connect.errors import InputError


def of_vectors(matrix: NDArray[Any]) -> pa.FixedSizeListArray[Any, int]:
    """``[N, width]`` as lists of a fixed size."""
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def of_ragged(offsets: NDArray[np.int64], values: pa.Array[Any]) -> pa.ListArray[Any]:
    """Row i is ``values[offsets[i]:offsets[i + 1]]``."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def portable_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of embeddings in types that every engine has; all others as they are."""
    types = {
        "dense": pa.list_(pa.float32()),
        "sparse_indices": pa.list_(pa.int64()),
        "multivector": pa.list_(pa.list_(pa.float32())),
    }
    for name, portable in types.items():
        column = schema.get_field_index(name)
        if column >= 0:
            schema = schema.set(column, pa.field(name, portable))
    return schema


def column_of(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array[Any]:
    """A column in one piece.

    Raises:
        InputError: it holds nulls.
    """
    column = table.column(name)
    if column.null_count:
        raise InputError(f"column {name!r} holds nulls")
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 1:
            return column.chunk(0)  # type: ignore[return-value]  # the stubs have it chunked
        return column.combine_chunks()
    return column


def read_ragged(column: pa.Array[Any], name: str) -> tuple[NDArray[np.int64], pa.Array[Any]]:
    """Offsets from 0, and the values they index."""
    if not isinstance(column, pa.ListArray | pa.LargeListArray):
        raise InputError(f"column {name!r} is {column.type}, expected a list")
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], column.values.slice(offsets[0], offsets[-1] - offsets[0])


def read_vectors(column: pa.Array[Any], name: str) -> NDArray[Any]:
    """Vectors of one width, ``[N, width]``."""
    if column.null_count:
        raise InputError(f"column {name!r} holds nulls")
    values: pa.Array[Any]
    if isinstance(column, pa.FixedSizeListArray):
        width = column.type.list_size
        values = column.flatten()
    else:
        offsets, values = read_ragged(column, name)
        widths = np.unique(np.diff(offsets))
        if len(widths) > 1:
            raise InputError(f"column {name!r} holds vectors of several widths: {widths.tolist()}")
        width = int(widths[0]) if len(widths) else 0
    return read_floats(values, name).reshape(len(column), width)


def read_floats(values: pa.Array[Any], name: str) -> NDArray[Any]:
    """Floats, of the width that they have."""
    if values.null_count or not pa.types.is_floating(values.type):
        raise InputError(f"column {name!r} holds nulls or {values.type}, expected floats")
    return values.to_numpy()


def read_numbers(column: pa.Array[Any], name: str) -> NDArray[np.int32]:
    """Whole numbers, which an engine may have made floats."""
    if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        raise InputError(f"column {name!r} holds {column.type}, expected integers")
    return column.to_numpy().astype(np.int32, copy=False)


def read_flags(column: pa.Array[Any], name: str) -> NDArray[np.bool_]:
    """Booleans; of text, ``"false"`` would be true."""
    if not pa.types.is_boolean(column.type):
        raise InputError(f"column {name!r} holds {column.type}, expected booleans")
    return column.to_numpy(zero_copy_only=False)


def read_terms(indices: pa.Array[Any], name: str) -> NDArray[np.uint32]:
    """Term indices, which must not wrap when they become 32 bits wide."""
    if indices.null_count or not pa.types.is_integer(indices.type):
        raise InputError(f"column {name!r} holds nulls or {indices.type}, expected integers")
    terms = indices.to_numpy()
    if len(terms) and not 0 <= int(terms.min()) <= int(terms.max()) < 1 << 32:
        wrong = terms.min() if terms.min() < 0 else terms.max()
        raise InputError(f"column {name!r} holds {wrong}, which is no index of a term")
    return terms.astype(np.uint32, copy=False)
