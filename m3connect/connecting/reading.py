"""Stored rows as embeddings again, with the legs that were asked for and in the stored dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from m3connect.contract import CollectionSchema, LegSelection
from m3connect.errors import InputError
from m3connect.types import Embeddings, Leg, MultiVectors, SparseVectors
from m3connect.types.tokens import array_dtype

R = TypeVar("R")


def selected_legs(vectors: LegSelection, schema: CollectionSchema) -> tuple[Leg, ...]:
    """The legs that a read brings, in the schema's order.

    Args:
        vectors: all (True), none (False), or some by name.
        schema: of the collection.

    Raises:
        InputError: a leg that the collection does not store, or one name where a list is due.

    >>> selected_legs(["sparse", "dense"], CollectionSchema(8, sparse=True, multivector_width=4))
    ('dense', 'sparse')
    """
    if isinstance(vectors, bool):
        return schema.legs if vectors else ()
    if isinstance(vectors, str):
        raise InputError(f"legs are given as a list; for one write {[vectors]!r}")
    if missing := [leg for leg in vectors if leg not in schema.legs]:
        raise InputError(f"the collection stores {list(schema.legs)}, {missing} are asked for")
    return tuple(leg for leg in schema.legs if leg in vectors)


def read_embeddings(
    rows: Sequence[R],
    schema: CollectionSchema,
    legs: Sequence[Leg],
    read: Mapping[Leg, Callable[[R], Any]],
    *,
    n_tokens: Iterable[int],
    truncated: Iterable[bool],
) -> Embeddings:
    """The embeddings of N stored rows; of no row too they have the stored widths and dtypes.

    Args:
        rows: N rows in the backend's own form.
        schema: of the collection.
        legs: what to read of them.
        read: how a leg is read from a row: dense ``[D]``, sparse a vector or a mapping from term
            to weight, multivector ``[tokens, C]``.
        n_tokens: N token counts.
        truncated: N times whether the text was cut.
    """
    dense = sparse = multi = None
    if "dense" in legs:
        assert schema.dense_width is not None
        dense = np.array([read["dense"](row) for row in rows], np.float32)
        dense = dense.reshape(-1, schema.dense_width)
    if "sparse" in legs:
        sparse = SparseVectors.from_rows([read["sparse"](row) for row in rows])
    if "multivector" in legs:
        assert schema.multivector_width is not None
        dtype = array_dtype(schema.multivector_dtype)
        multi = MultiVectors.from_rows(
            [np.asarray(read["multivector"](row), dtype) for row in rows],
            width=schema.multivector_width,
            dtype=dtype,
        )
    return Embeddings(
        dense,
        sparse,
        multi,
        np.fromiter(n_tokens, np.int32, len(rows)),
        np.fromiter(truncated, np.bool_, len(rows)),
    )
