"""What an encoder makes of texts: dense vectors, lexical weights and token vectors, in batches.

Shapes: N texts, D dense width, C multi-vector width, T token vectors of all texts together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Leg = Literal["dense", "sparse", "multivector"]
LEGS: tuple[Leg, Leg, Leg] = ("dense", "sparse", "multivector")

FloatArray = NDArray[np.float32]
TokenArray = NDArray[np.floating[Any]]
"""float16 or float32."""

_SPARSE = ("sparse_indices", "sparse_values")


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Lexical weights of one text.

    Args:
        indices: ``uint32 [n]`` term ids, each at most once.
        values: ``float32 [n]`` weights.
    """

    indices: NDArray[np.uint32]
    values: FloatArray

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, slots=True, eq=False)
class SparseVectors:
    """Lexical weights of N texts in compressed rows.

    Args:
        indptr: ``int64 [N + 1]``; row i is ``indptr[i]:indptr[i + 1]``.
        indices: ``uint32 [nnz]`` term ids, each at most once in a row.
        values: ``float32 [nnz]`` weights.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: FloatArray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @overload
    def __getitem__(self, key: int) -> SparseVector: ...
    @overload
    def __getitem__(self, key: slice) -> SparseVectors: ...
    def __getitem__(self, key: int | slice) -> SparseVector | SparseVectors:
        """Row ``key`` as a view, or the rows of a slice (a view when its step is 1)."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            low, high = self.indptr[start], self.indptr[max(start, stop)]
            indptr = self.indptr[start : max(start, stop) + 1] - low
            return SparseVectors(indptr, self.indices[low:high], self.values[low:high])
        row = range(len(self))[key]
        low, high = self.indptr[row], self.indptr[row + 1]
        return SparseVector(self.indices[low:high], self.values[low:high])

    def take(self, rows: NDArray[np.intp]) -> SparseVectors:
        """The given rows, in the given order (copied)."""
        indptr, positions = _take_ragged(self.indptr, rows)
        return SparseVectors(indptr, self.indices[positions], self.values[positions])

    @classmethod
    def concat(cls, parts: Sequence[SparseVectors]) -> SparseVectors:
        """The rows of all parts, one part after the other."""
        return cls(
            _concat_offsets([part.indptr for part in parts]),
            np.concatenate([np.empty(0, np.uint32), *(part.indices for part in parts)]),
            np.concatenate([np.empty(0, np.float32), *(part.values for part in parts)]),
        )

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[int, float] | SparseVector]) -> SparseVectors:
        """From one ``{term id: weight}`` mapping (or vector) a text."""
        vectors = [
            row
            if isinstance(row, SparseVector)
            else SparseVector(
                np.fromiter(row.keys(), np.uint32, len(row)),
                np.fromiter(row.values(), np.float32, len(row)),
            )
            for row in rows
        ]
        return cls(
            np.cumsum([0, *(len(vector) for vector in vectors)], dtype=np.int64),
            np.concatenate([np.empty(0, np.uint32), *(vector.indices for vector in vectors)]),
            np.concatenate([np.empty(0, np.float32), *(vector.values for vector in vectors)]),
        )

    @property
    def nbytes(self) -> int:
        """Bytes held by the three arrays."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseVectors):
            return NotImplemented
        return (
            np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.values, other.values)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class MultiVectors:
    """Token vectors of N texts, ragged.

    Args:
        offsets: ``int64 [N + 1]``; text i owns ``vectors[offsets[i]:offsets[i + 1]]``.
        vectors: ``float16 or float32 [T, C]``.
    """

    offsets: NDArray[np.int64]
    vectors: TokenArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, key: int) -> TokenArray: ...
    @overload
    def __getitem__(self, key: slice) -> MultiVectors: ...
    def __getitem__(self, key: int | slice) -> TokenArray | MultiVectors:
        """Text ``key``'s ``[tokens, C]`` as a view, or the texts of a slice."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            low, high = self.offsets[start], self.offsets[max(start, stop)]
            offsets = self.offsets[start : max(start, stop) + 1] - low
            return MultiVectors(offsets, self.vectors[low:high])
        row = range(len(self))[key]
        return self.vectors[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: NDArray[np.intp]) -> MultiVectors:
        """The given texts, in the given order (copied)."""
        offsets, positions = _take_ragged(self.offsets, rows)
        return MultiVectors(offsets, self.vectors[positions])

    @classmethod
    def concat(cls, parts: Sequence[MultiVectors]) -> MultiVectors:
        """The texts of all parts, one part after the other; needs at least one part."""
        return cls(
            _concat_offsets([part.offsets for part in parts]),
            np.concatenate([part.vectors for part in parts]),
        )

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[TokenArray],
        *,
        width: int = 0,
        dtype: Literal["float16", "float32"] = "float32",
    ) -> MultiVectors:
        """From one ``[tokens, C]`` array a text; ``width`` and ``dtype`` are for no text at all."""
        offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        if not rows:
            return cls(offsets, np.empty((0, width), dtype))
        return cls(offsets, np.concatenate(rows))

    @property
    def width(self) -> int:
        """C, the width of a token vector."""
        return int(self.vectors.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes held by the two arrays."""
        return self.offsets.nbytes + self.vectors.nbytes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MultiVectors):
            return NotImplemented
        return (
            np.array_equal(self.offsets, other.offsets)
            and self.vectors.dtype == other.vectors.dtype
            and np.array_equal(self.vectors, other.vectors)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """What one encoder pass makes of N texts. A representation that was not asked for is None.

    Args:
        dense: ``float32 [N, D]``.
        sparse: lexical weights.
        multivector: token vectors.
        n_tokens: ``int32 [N]`` tokens that went through the encoder, special ones included.
        truncated: ``bool [N]`` whether the text was longer than the encoder's limit.

    Raises:
        InputError: the parts do not all describe the same number of texts.
    """

    dense: FloatArray | None
    sparse: SparseVectors | None
    multivector: MultiVectors | None
    n_tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.n_tokens)
        for name in ("dense", "sparse", "multivector", "truncated"):
            part = getattr(self, name)
            if part is not None and len(part) != n:
                raise InputError(f"{name} has {len(part)} rows, n_tokens has {n}")

    def __len__(self) -> int:
        return len(self.n_tokens)

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that are present."""
        return tuple(leg for leg in LEGS if getattr(self, leg) is not None)

    def only(self, legs: Collection[Leg]) -> Embeddings:
        """The same texts without other representations than these."""
        return Embeddings(
            self.dense if "dense" in legs else None,
            self.sparse if "sparse" in legs else None,
            self.multivector if "multivector" in legs else None,
            self.n_tokens,
            self.truncated,
        )

    def __getitem__(self, key: int | slice) -> Embeddings:
        """The texts of a slice as views; an integer gives the batch of that one text."""
        if not isinstance(key, slice):  # numpy's integers, too
            row = range(len(self))[key]
            key = slice(row, row + 1)
        return Embeddings(
            None if self.dense is None else self.dense[key],
            None if self.sparse is None else self.sparse[key],
            None if self.multivector is None else self.multivector[key],
            self.n_tokens[key],
            self.truncated[key],
        )

    def take(self, rows: NDArray[np.intp]) -> Embeddings:
        """The given texts, in the given order (copied)."""
        return Embeddings(
            None if self.dense is None else self.dense[rows],
            None if self.sparse is None else self.sparse.take(rows),
            None if self.multivector is None else self.multivector.take(rows),
            self.n_tokens[rows],
            self.truncated[rows],
        )

    @classmethod
    def concat(cls, parts: Sequence[Embeddings]) -> Embeddings:
        """The texts of all parts, one part after the other; needs at least one part.

        Raises:
            InputError: no parts, or parts with different representations.
        """
        if not parts:
            raise InputError("concat needs at least one part: widths are unknown otherwise")
        if len({part.legs for part in parts}) > 1:
            raise InputError(f"parts differ in their legs: {[part.legs for part in parts]}")
        dense = [part.dense for part in parts if part.dense is not None]
        sparse = [part.sparse for part in parts if part.sparse is not None]
        multi = [part.multivector for part in parts if part.multivector is not None]
        return cls(
            np.concatenate(dense) if dense else None,
            SparseVectors.concat(sparse) if sparse else None,
            MultiVectors.concat(multi) if multi else None,
            np.concatenate([part.n_tokens for part in parts]),
            np.concatenate([part.truncated for part in parts]),
        )

    @property
    def nbytes(self) -> int:
        """Bytes held by all arrays."""
        parts = (self.dense, self.sparse, self.multivector, self.n_tokens, self.truncated)
        return sum(part.nbytes for part in parts if part is not None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Embeddings):
            return NotImplemented
        return (
            self.legs == other.legs
            and (self.dense is None or np.array_equal(self.dense, other.dense))  # type: ignore[arg-type]
            and self.sparse == other.sparse
            and self.multivector == other.multivector
            and np.array_equal(self.n_tokens, other.n_tokens)
            and np.array_equal(self.truncated, other.truncated)
        )

    __hash__ = None  # type: ignore[assignment]

    def to_arrow(self, *, portable: bool = False) -> pa.Table:
        """As an Arrow table; the large buffers are shared, not copied.

        Columns: ``dense`` fixed_size_list<float32>, ``sparse_indices`` list<uint32>,
        ``sparse_values`` list<float32>, ``multivector`` list<fixed_size_list<float16
        or float32>>, ``n_tokens`` int32, ``truncated`` bool; absent representations have none.

        Args:
            portable: for engines that lack half floats, lists of a fixed size or unsigned integers
                (Spark, DuckDB): ``dense`` list<float32>, ``sparse_indices`` list<int64>,
                ``multivector`` list<list<float32>>.
        """
        import pyarrow as pa  # costs 0.1 s: loaded by those who need it

        from m3connect.types.columns import of_ragged, of_vectors, portable_schema

        columns: dict[str, pa.Array[Any]] = {}
        if self.dense is not None:
            columns["dense"] = of_vectors(self.dense)
        if self.sparse is not None:
            for name, values in zip(
                _SPARSE, (self.sparse.indices, self.sparse.values), strict=True
            ):
                array = pa.array(np.ascontiguousarray(values))
                columns[name] = of_ragged(self.sparse.indptr, array)
        if self.multivector is not None:
            rows = of_vectors(self.multivector.vectors)
            columns["multivector"] = of_ragged(self.multivector.offsets, rows)
        columns["n_tokens"] = pa.array(self.n_tokens)
        columns["truncated"] = pa.array(self.truncated)
        table = pa.table(columns)
        return table.cast(portable_schema(table.schema)) if portable else table

    @classmethod
    def from_arrow(cls, table: pa.Table | pa.RecordBatch) -> Embeddings:
        """From a table with the columns of :meth:`to_arrow`, portable or not; others are ignored.

        Raises:
            InputError: a column has another type, holds a null, a term that is no index, or vectors
                of several widths.
        """
        from m3connect.types.columns import (
            column_of,
            read_flags,
            read_floats,
            read_numbers,
            read_ragged,
            read_terms,
            read_vectors,
        )

        names = set(table.schema.names)
        for name in ("n_tokens", "truncated"):
            if name not in names:
                raise InputError(f"no column {name!r}: this table does not hold embeddings")
        dense = sparse = multi = None
        if "dense" in names:
            vectors = read_vectors(column_of(table, "dense"), "dense")
            dense = vectors.astype(np.float32, copy=False)
        if set(_SPARSE) & names:
            if not set(_SPARSE) <= names:
                raise InputError(f"the columns {_SPARSE} belong together; one is missing")
            (indptr, indices), (other, values) = (
                read_ragged(column_of(table, name), name) for name in _SPARSE
            )
            if not np.array_equal(indptr, other):
                raise InputError("sparse_indices and sparse_values differ in their lengths")
            terms, weights = read_terms(indices, _SPARSE[0]), read_floats(values, _SPARSE[1])
            sparse = SparseVectors(indptr, terms, weights.astype(np.float32, copy=False))
        if "multivector" in names:
            offsets, rows = read_ragged(column_of(table, "multivector"), "multivector")
            multi = MultiVectors(offsets, read_vectors(rows, "multivector"))
        n_tokens = read_numbers(column_of(table, "n_tokens"), "n_tokens")
        truncated = read_flags(column_of(table, "truncated"), "truncated")
        return cls(
            dense,
            sparse,
            multi,
            n_tokens,
            truncated,
        )


def shortened(vectors: TokenArray, width: int) -> FloatArray:
    """The first so many values of each vector, of length 1 again; zeros stay zeros.

    Args:
        vectors: ``[N, D]``.
        width: values to keep of each; all where there are fewer.

    Returns:
        ``float32 [N, min(width, D)]``.

    >>> shortened(np.float32([[0.6, 0.0, 0.8], [0.0, 0.0, 1.0]]), 2).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    short = vectors[:, :width]
    norms = np.linalg.norm(short, axis=1, keepdims=True)
    return np.asarray(short / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def _concat_offsets(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = [np.diff(part) for part in offsets]
    return np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]))]).astype(np.int64)


def _take_ragged(
    offsets: NDArray[np.int64], rows: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """New offsets, and the flat positions of the rows' elements."""
    # Rows 2 and 0 of three with 3, 1 and 2 elements:
    #
    #   offsets  0 3 4 6        lengths  2 3        taken  0 2 5
    #   shift    4 4 -2 -2 -2   arange   0 1 2 3 4  ->  positions  4 5 0 1 2
    lengths = np.diff(offsets)[rows]
    taken = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shift = np.repeat(offsets[:-1][rows] - taken[:-1], lengths)
    return taken, np.arange(taken[-1], dtype=np.int64) + shift
