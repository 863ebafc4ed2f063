"""Smaller representations: what is kept of a text's embeddings before they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import ConfigError, InputError
from m3connect.types.tokens import TokenDtype, rounded
from m3connect.types.vectors import (
    LEGS,
    Embeddings,
    FloatArray,
    Leg,
    MultiVectors,
    SparseVectors,
    shortened,
)

F = TypeVar("F", bound=np.floating[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """What is kept of each representation; all of it by default.

    A query is made as narrow as the passages, and keeps all its terms and token vectors.

    Args:
        dense_width: the first so many values of a dense vector, of unit length again: for models
            trained so that these serve alone (Matryoshka, arXiv 2205.13147).
        sparse_top: the heaviest so many terms of a passage; of equal weights the lower terms.
        multivector_width: the first so many values of a token vector, of unit length again.
        multivector_pool: so many token vectors of a passage become one on average. Ward's
            clustering joins those that are alike, and a cluster's mean stands for them (Clavie et
            al., arXiv 2409.14683).
        multivector_dtype: how token values are stored; None for float16. ``int8`` has a scale for
            each token, ``binary`` keeps signs alone.

    Raises:
        ConfigError: a number is too small, or the dtype unknown.
    """

    dense_width: int | None = None
    sparse_top: int | None = None
    multivector_width: int | None = None
    multivector_pool: int | None = None
    multivector_dtype: TokenDtype | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_json().items():
            least = 2 if name == "multivector_pool" else 1
            if isinstance(value, int) and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        if self.multivector_dtype not in {None, *get_args(TokenDtype)}:
            known = ", ".join(get_args(TokenDtype))
            raise ConfigError(
                f"multivector_dtype is one of {known}, not {self.multivector_dtype!r}"
            )

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return bool(self.to_json())

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that it makes smaller."""
        smaller = {name.partition("_")[0] for name in self.to_json()}
        return tuple(leg for leg in LEGS if leg in smaller)

    def __str__(self) -> str:
        """For people.

        >>> print(Compression(dense_width=128, multivector_pool=2), Compression(), sep="; ")
        dense_width 128, multivector_pool 2; none
        """
        return ", ".join(f"{name} {value}" for name, value in self.to_json().items()) or "none"

    def check(self, dense_width: int, multivector_width: int) -> None:
        """Refuse to keep more of the vectors than a model makes.

        Raises:
            ConfigError: names the option and the model's width.
        """
        for name, width in (("dense_width", dense_width), ("multivector_width", multivector_width)):
            wanted = getattr(self, name)
            if wanted is not None and wanted >= width:
                raise ConfigError(
                    f"{name} is {wanted} and the model's vectors are {width} wide: give less, or "
                    "leave it out"
                )

    def of(self, embeddings: Embeddings, kind: Literal["query", "passage"]) -> Embeddings:
        """What is kept of some embeddings; what is narrow enough stays as it is.

        Args:
            embeddings: of N texts.
            kind: whether they ask or answer.

        Raises:
            ConfigError: pooling needs scipy, which is not installed.

        >>> text = Embeddings(
        ...     np.float32([[0.6, 0.0, 0.8]]),
        ...     SparseVectors.from_rows([{3: 0.5, 7: 0.2, 9: 0.4}]),
        ...     MultiVectors.from_rows([np.float32([[1, 0], [1, 0], [0, 1], [0, 1]])]),
        ...     np.int32([5]),
        ...     np.array([False]),
        ... )
        >>> kept = Compression(dense_width=2, sparse_top=2, multivector_pool=2).of(text, "passage")
        >>> kept.dense.tolist(), kept.sparse[0].indices.tolist(), kept.multivector[0].tolist()
        ([[1.0, 0.0]], [3, 9], [[1.0, 0.0], [0.0, 1.0]])
        """
        dense, sparse, multi = embeddings.dense, embeddings.sparse, embeddings.multivector
        if dense is not None:
            dense = _narrowed(dense, self.dense_width)
        if multi is not None:
            vectors = _narrowed(multi.vectors, self.multivector_width)
            multi = MultiVectors(multi.offsets, vectors)
        if kind == "passage":
            if sparse is not None and self.sparse_top is not None:
                sparse = heaviest(sparse, self.sparse_top)
            if multi is not None and self.multivector_pool is not None:
                multi = pooled(multi, self.multivector_pool)
            if multi is not None and self.multivector_dtype is not None:
                multi = MultiVectors(multi.offsets, rounded(multi.vectors, self.multivector_dtype))
        return replace(embeddings, dense=dense, sparse=sparse, multivector=multi)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without what is None; :meth:`from_json` reads them back."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what :meth:`to_json` gave.

        Raises:
            InputError: an unknown key.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(f"a compression has the keys {sorted(known)}, not {unknown}")
        return cls(**values)


def _narrowed(vectors: NDArray[F], width: int | None) -> NDArray[F]:
    """In the dtype that they had; as they are where they are narrow enough."""
    if width is None or width >= vectors.shape[1]:
        return vectors
    return shortened(vectors, width).astype(vectors.dtype, copy=False)


def heaviest(weights: SparseVectors, count: int) -> SparseVectors:
    """The ``count`` largest weights of each text, its terms in their order.

    >>> heaviest(SparseVectors.from_rows([{3: 0.5, 7: 0.2, 9: 0.5}, {}]), 2).indices.tolist()
    [3, 9]
    """
    lengths = np.diff(weights.indptr)
    rows = np.repeat(np.arange(len(weights)), lengths)
    order = np.lexsort((weights.indices, -weights.values, rows))
    places = np.arange(len(order)) - np.repeat(weights.indptr[:-1], lengths)
    kept = np.sort(order[places < count])
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, count))]).astype(np.int64)
    return SparseVectors(indptr, weights.indices[kept], weights.values[kept])


def pooled(multi: MultiVectors, factor: int) -> MultiVectors:
    """Of every text about one token vector for ``factor``, in the dtype and width that they had.

    Raises:
        ConfigError: scipy is not installed.
    """
    dtype = multi.vectors.dtype
    rows = [
        _clustered(multi[row].astype(np.float32), factor).astype(dtype) for row in range(len(multi))
    ]
    joined = MultiVectors.from_rows(rows, width=multi.width)
    return MultiVectors(joined.offsets, joined.vectors.astype(dtype, copy=False))


def _clustered(vectors: FloatArray, factor: int) -> FloatArray:
    """The unit means of clusters, in the order of their first tokens.

    Ward's method is given cosine distances as they are. Given the unit vectors themselves it would
    work on their roots, which was measured to cost more (``docs/compression.md``).
    """
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
    except ImportError as error:
        raise ConfigError(
            f'pooling token vectors needs scipy ({error}): pip install "m3connect[pool]"'
        ) from error
    if len(vectors) < 2:
        return vectors
    distances = np.maximum(1 - vectors @ vectors.T, 0)[np.triu_indices(len(vectors), k=1)]
    count = max(1, len(vectors) // factor)
    labels = fcluster(linkage(distances, method="ward"), t=count, criterion="maxclust")
    _, first, cluster = np.unique(labels, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), vectors.shape[1]), np.float32)
    np.add.at(sums, cluster, vectors)
    return shortened(sums[np.argsort(first)], vectors.shape[1])
