"""Embeddings and record batches as Arrow tables, sharing their large buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from m3connect.errors import InputError
from m3connect.types import Embeddings, MultiVectors, SparseVectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINGERPRINT_KEY = b"m3connect.fingerprint"
"""Schema metadata of embeddings on disk: their model's ``Fingerprint.to_json`` as JSON."""

_SPARSE = ("sparse_indices", "sparse_values")


def embeddings_to_arrow(embeddings: Embeddings) -> pa.Table:
    """See :meth:`m3connect.types.Embeddings.to_arrow`."""
    columns: dict[str, pa.Array] = {}
    if embeddings.dense is not None:
        columns["dense"] = _fixed(embeddings.dense)
    if embeddings.sparse is not None:
        sparse = embeddings.sparse
        for name, values in zip(_SPARSE, (sparse.indices, sparse.values), strict=True):
            columns[name] = pa.ListArray.from_arrays(
                pa.array(sparse.indptr.astype(np.int32)), pa.array(np.ascontiguousarray(values))
            )
    if embeddings.multivector is not None:
        multi = embeddings.multivector
        columns["multivector"] = pa.ListArray.from_arrays(
            pa.array(multi.offsets.astype(np.int32)), _fixed(multi.vectors)
        )
    columns["n_tokens"] = pa.array(embeddings.n_tokens)
    columns["truncated"] = pa.array(embeddings.truncated)
    return pa.table(columns)


def embeddings_from_arrow(table: pa.Table | pa.RecordBatch) -> Embeddings:
    """See :meth:`m3connect.types.Embeddings.from_arrow`."""
    names = set(table.schema.names)
    for name in ("n_tokens", "truncated"):
        if name not in names:
            raise InputError(f"no column {name!r}: this table does not hold embeddings")
    dense = sparse = multi = None
    if "dense" in names:
        dense = _rows_of(_column(table, "dense"), "dense").astype(np.float32, copy=False)
    if set(_SPARSE) & names:
        if not set(_SPARSE) <= names:
            raise InputError(f"the columns {_SPARSE} belong together; one is missing")
        indptr, indices = _ragged(_column(table, "sparse_indices"), "sparse_indices")
        other, values = _ragged(_column(table, "sparse_values"), "sparse_values")
        if not np.array_equal(indptr, other):
            raise InputError("sparse_indices and sparse_values differ in their lengths")
        sparse = SparseVectors(
            indptr,
            indices.to_numpy().astype(np.uint32, copy=False),
            values.to_numpy().astype(np.float32, copy=False),
        )
    if "multivector" in names:
        offsets, rows = _ragged(_column(table, "multivector"), "multivector")
        multi = MultiVectors(offsets, _rows_of(rows, "multivector"))
    return Embeddings(
        dense,
        sparse,
        multi,
        _column(table, "n_tokens").to_numpy().astype(np.int32, copy=False),
        _column(table, "truncated").to_numpy(zero_copy_only=False).astype(np.bool_, copy=False),
    )


def _fixed(matrix: NDArray[Any]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def _column(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    column = table.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if column.null_count:
        raise InputError(f"column {name!r} holds nulls")
    return column


def _rows_of(column: pa.Array, name: str) -> NDArray[Any]:
    if not pa.types.is_fixed_size_list(column.type):
        raise InputError(f"column {name!r} is {column.type}, expected a fixed_size_list")
    width = column.type.list_size
    values = column.flatten()
    if values.null_count or not pa.types.is_floating(values.type):
        raise InputError(f"column {name!r} holds nulls or {values.type}, expected floats")
    return values.to_numpy().reshape(-1, width)  # type: ignore[no-any-return]


def _ragged(column: pa.Array, name: str) -> tuple[NDArray[np.int64], pa.Array]:
    """Offsets from 0, and the values they index."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise InputError(f"column {name!r} is {column.type}, expected a list")
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], column.values.slice(offsets[0], offsets[-1] - offsets[0])
