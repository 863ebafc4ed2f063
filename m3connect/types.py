"""The values that flow through m3connect. All are frozen; the hot path is columnar.

Shapes: N texts, D dense width, C multi-vector width, T token vectors of all texts together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from m3connect.filters import Filter

Payload = Mapping[str, Any]
"""JSON values by field name. Dates are ISO 8601 strings."""

PASSAGE_FIELDS = ("text", "document_id", "position", "_ingest")
"""Payload fields that ingestion writes; all others are the document's metadata."""

Leg = Literal["dense", "sparse", "multivector"]
LEGS: tuple[Leg, Leg, Leg] = ("dense", "sparse", "multivector")

FloatArray = NDArray[np.float32]
TokenArray = NDArray[np.floating[Any]]
"""float16 or float32."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text to ingest, as its source names it.

    Args:
        id: any non-empty unicode string, unique in its collection.
        text: the whole text.
        metadata: JSON values that filters may address.
        format: how the text is marked up; Markdown is cut at headings, lists and code blocks.
    """

    id: str
    text: str
    metadata: Payload = field(default_factory=dict)
    format: Literal["text", "markdown"] = "text"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document, small enough for the encoder.

    Args:
        id: ``<document id>#<position>``, the same in every run.
        document_id: the document it was cut from.
        position: 0 for the first passage of the document.
        text: the passage.
    """

    id: str
    document_id: str
    position: int
    text: str


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

    def __getitem__(self, key: int | slice) -> Embeddings:
        """The texts of a slice as views; an integer gives the batch of that one text."""
        if isinstance(key, int):
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

    def to_arrow(self) -> pa.Table:
        """As an Arrow table; the large buffers are shared, not copied.

        Columns: ``dense`` fixed_size_list<float32>, ``sparse_indices`` list<uint32>,
        ``sparse_values`` list<float32>, ``multivector`` list<fixed_size_list<float16
        or float32>>, ``n_tokens`` int32, ``truncated`` bool; absent representations have none.
        """
        from m3connect.arrow import embeddings_to_arrow

        return embeddings_to_arrow(self)

    @classmethod
    def from_arrow(cls, table: pa.Table | pa.RecordBatch) -> Embeddings:
        """From a table with the columns of :meth:`to_arrow`; other columns are ignored.

        Raises:
            InputError: a column has another type, or holds a null.
        """
        from m3connect.arrow import embeddings_from_arrow

        return embeddings_from_arrow(table)


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """N records as a database stores them.

    Args:
        ids: N non-empty unicode strings.
        payloads: N mappings of JSON values.
        embeddings: their representations.

    Raises:
        InputError: the three parts differ in length.
    """

    ids: Sequence[str]
    payloads: Sequence[Payload]
    embeddings: Embeddings

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.payloads) == len(self.embeddings):
            raise InputError(
                f"{len(self.ids)} ids, {len(self.payloads)} payloads and "
                f"{len(self.embeddings)} embeddings do not make one batch"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: slice) -> RecordBatch:
        return RecordBatch(self.ids[key], self.payloads[key], self.embeddings[key])

    def take(self, rows: NDArray[np.intp]) -> RecordBatch:
        """The given records, in the given order."""
        return RecordBatch(
            [self.ids[row] for row in rows],
            [self.payloads[row] for row in rows],
            self.embeddings.take(rows),
        )

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> RecordBatch:
        """The records of all parts, one part after the other; needs at least one part."""
        return RecordBatch(
            [id_ for part in parts for id_ in part.ids],
            [payload for part in parts for payload in part.payloads],
            Embeddings.concat([part.embeddings for part in parts]),
        )

    def __iter__(self) -> Iterator[RecordBatch]:
        """One batch a record."""
        return (self[row : row + 1] for row in range(len(self)))


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion: a candidate scores ``sum(weight / (k + rank))``, ranks from 1.

    Args:
        k: how much the first ranks are flattened (Cormack et al. 2009 use 60).
        dense, sparse, multivector: the legs' weights.
    """

    k: float = 60.0
    dense: float = 1.0
    sparse: float = 1.0
    multivector: float = 1.0


@dataclass(frozen=True, slots=True)
class Weighted:
    """The raw weighted sum ``w1 * dense + w2 * sparse + w3 * maxsim`` (M3 paper, section 3.2).

    Args:
        dense, sparse, multivector: the legs' weights; the defaults are the paper's for MIRACL.
        rescore: whether a candidate that only one leg found still gets its true score from the
            others ("re-rank the union", section 4.1). With False it gets 0 from them, as in the
            paper's published scripts and in the databases' own weighted rankers.
    """

    dense: float = 1.0
    sparse: float = 0.3
    multivector: float = 1.0
    rescore: bool = True


Fusion = Rrf | Weighted


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Query:
    """One search, in vectors. Every leg obeys the filter.

    A query with one leg returns that leg's best ``limit``. With more, dense and sparse are searched
    to their depths, and a multi-vector scores (MaxSim) the union of their candidates, as the paper
    does; a multi-vector alone is compared with the whole collection. A sparse candidate shares at
    least one term. Two legs or more need a ``fusion``; ``rerank`` takes the multi-vector out of it
    and orders the best of the other legs by MaxSim alone.

    Args:
        dense: ``float32 [D]``.
        sparse: lexical weights.
        multivector: ``float [tokens, C]``.
        dense_depth, sparse_depth: candidates each leg brings.
        fusion: how the legs' results become one score.
        rerank: the best so many of the dense and sparse legs are ordered by MaxSim alone.
        filter: which records may be found.
        limit: how many hits at most.
        payload: whether hits carry their payload.
        leg_scores: whether hits carry the score of each leg.
    """

    dense: FloatArray | None = None
    sparse: SparseVector | None = None
    multivector: TokenArray | None = None
    dense_depth: int = 100
    sparse_depth: int = 100
    fusion: Fusion | None = None
    rerank: int | None = None
    filter: Filter | None = None
    limit: int = 10
    payload: bool = True
    leg_scores: bool = False

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that take part."""
        return tuple(leg for leg in LEGS if getattr(self, leg) is not None)


@dataclass(frozen=True, slots=True)
class LegScores:
    """What each leg says of one hit; None where the query or the record lacks it."""

    dense: float | None = None
    sparse: float | None = None
    multivector: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Args:
        id: the record's id.
        score: higher is better; its scale depends on the query's legs and fusion.
        rank: 1 for the best.
        payload: the record's payload, empty when not asked for.
        scores: each leg's own score, when asked for.
    """

    id: str
    score: float
    rank: int
    payload: Payload = field(default_factory=dict)
    scores: LegScores | None = None


def _concat_offsets(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = [np.diff(part) for part in offsets]
    return np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]))]).astype(np.int64)


def _take_ragged(
    offsets: NDArray[np.int64], rows: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """New offsets, and the flat positions of the rows' elements."""
    lengths = np.diff(offsets)[rows]
    taken = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shift = np.repeat(offsets[:-1][rows] - taken[:-1], lengths)
    return taken, np.arange(taken[-1], dtype=np.int64) + shift
