"""Seeded random records, queries, payloads and filters that tell right from almost right.

Engines differ in what they round: some keep 9 significant bits of a sparse weight, some bring a
query's token vectors to half precision. Here all numbers survive that unchanged, so that every
engine can be asked for the very ids, order and scores of the in-memory connector.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, TypeVar

import numpy as np

from m3connect.contract import CollectionSchema
from m3connect.filters import And, Bound, Eq, Exists, Filter, In, Not, Or, Range, Scalar
from m3connect.types import (
    LEGS,
    Embeddings,
    Leg,
    MultiVectors,
    Payload,
    Query,
    RecordBatch,
    SparseVector,
    SparseVectors,
    TokenArray,
)
from m3connect.types.tokens import rounded

T = TypeVar("T")

SCHEMA = CollectionSchema(dense_width=16, sparse=True, multivector_width=8)
"""What :func:`records` makes when not told otherwise."""

VOCABULARY = np.array([*range(37), 250_001, 2**31 + 5, 2**32 - 3], np.uint32)
"""Few terms, so that texts share some; ids up to nearly the largest that all engines take."""


# ------------------------------------------------------------------------------------- vectors


def records(
    seed: int, n: int, schema: CollectionSchema = SCHEMA, *, prefix: str = "r"
) -> RecordBatch:
    """``n`` records in random order of ids; every twelfth has no sparse term at all."""
    rng = np.random.default_rng(seed)
    chooser = random.Random(seed)
    ids = [f"{prefix}{i:05}" for i in rng.permutation(n)]
    return RecordBatch(ids, [payload(chooser) for _ in range(n)], embeddings(rng, n, schema))


def embeddings(rng: np.random.Generator, n: int, schema: CollectionSchema = SCHEMA) -> Embeddings:
    """Random representations of ``n`` texts, for the legs of ``schema``."""
    dense = sparse = multi = None
    if schema.dense_width is not None:
        dense = rng.normal(size=(n, schema.dense_width)).astype(np.float32)
    if schema.sparse:
        terms = [0 if rng.random() < 1 / 12 else int(rng.integers(1, 9)) for _ in range(n)]
        sparse = SparseVectors.from_rows([_sparse(rng, count) for count in terms])
    if schema.multivector_width is not None:
        lengths = rng.integers(1, 7, n)
        rows = [_tokens(rng, int(length), schema.multivector_width) for length in lengths]
        multi = MultiVectors.from_rows(
            [rounded(row, schema.multivector_dtype) for row in rows], width=schema.multivector_width
        )
    n_tokens = rng.integers(1, 8192, n).astype(np.int32)
    return Embeddings(dense, sparse, multi, n_tokens, rng.random(n) < 0.2)


def query(seed: int, *legs: Leg, schema: CollectionSchema = SCHEMA, **options: Any) -> Query:
    """A random query with these legs.

    Args:
        seed: of the vectors.
        *legs: none for all legs.
        schema: gives the widths.
        **options: other fields of :class:`Query`.
    """
    rng = np.random.default_rng([seed, 1])
    vectors: dict[str, Any] = {}
    if schema.dense_width is not None:
        vectors["dense"] = rng.normal(size=schema.dense_width).astype(np.float32)
    if schema.sparse:
        terms = rng.choice(VOCABULARY, 6, replace=False)
        vectors["sparse"] = SparseVector(terms, rng.uniform(0.1, 1, 6).astype(np.float32))
    if schema.multivector_width is not None:
        vectors["multivector"] = _tokens(rng, 4, schema.multivector_width)
    return Query(**{leg: vectors[leg] for leg in legs or LEGS}, **options)


def _sparse(rng: np.random.Generator, count: int) -> SparseVector:
    """Unsorted terms; weights of 9 significant bits between 0.25 and 4."""
    terms = rng.choice(VOCABULARY, count, replace=False)
    weights = rng.integers(256, 512, count) * 2.0 ** rng.integers(-10, -7, count)
    return SparseVector(terms, weights.astype(np.float32))


def _tokens(rng: np.random.Generator, count: int, width: int) -> TokenArray:
    """Float32 values that float16 holds exactly."""
    return rng.normal(size=(count, width)).astype(np.float16).astype(np.float32)


# ------------------------------------------------------------------------- payloads and filters

TEXTS = (
    "de",
    "DE",
    "de ",
    "d",
    "",
    "de fr",
    "1",
    "1.0",
    "true",
    "null",
    "2024-02-29",
    "2024-02-29T23:30:00-01:00",
    "2024-03-01 00:30",
    "2024-03-01T00:30:00.000001Z",
    "2023-02-29",
    'say "hi"',
    "it's",
    "back\\slash",
    "100%_*?",
    '" or "" == "',
    "straße",
    "\u00e4",
    "a\u0308",
    "\N{SLIGHTLY SMILING FACE}",
    "line\nbreak\ttab",
    "x" * 300,
)
NUMBERS = (0, 1, 1.0, -1, 1.5, 0.1, 1e-300, -2.5e10, 2020, 2021.0, 2**53, 2**53 + 1, -(2**63))
DATES = (
    date(2024, 2, 29),
    datetime(2024, 3, 1, 0, 30, tzinfo=UTC),
    datetime(2024, 3, 1, 0, 30, 0, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 22, 30, tzinfo=timezone(timedelta(hours=-2))),
    datetime(2024, 3, 1, 0, 30),  # noqa: DTZ001 - a date without a zone is UTC
    date(1969, 12, 31),
)
FIELDS = ("lang", "year", "tags", "when", "naïve Schlüssel", 'quo"te`d', "7-days", "_x")
PATHS = (
    *FIELDS,
    "author.name",
    "author.langs",
    "parts.kind",
    "parts.sub.size",
    "no.such",
    "lang.x",
)


def payload(rng: random.Random) -> Payload:
    """A random payload: any field may be missing, and may hold anything."""
    values: dict[str, Any] = {field: _value(rng) for field in FIELDS if rng.random() < 0.6}
    if rng.random() < 0.5:
        values["author"] = {"name": _value(rng), "langs": [_value(rng), _value(rng)]}
    if rng.random() < 0.5:
        values["parts"] = [
            {"kind": _value(rng), "sub": {"size": _value(rng)}} for _ in range(rng.randint(0, 3))
        ]
    return values


def _value(rng: random.Random) -> Any:
    match rng.randrange(10):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return [_value(rng) for _ in range(rng.randint(0, 3))]
        case 3 | 4 | 5:
            return _pick(rng, NUMBERS)
        case _:
            return _pick(rng, TEXTS)


def condition(rng: random.Random, depth: int = 2) -> Filter:
    """A random filter of at most ``depth`` levels of and, or, not."""
    kind = rng.randrange(5) if depth else 4
    if kind == 0:
        return Not(condition(rng, depth - 1))
    if kind == 1:
        return And(tuple(condition(rng, depth - 1) for _ in range(rng.randint(0, 3))))
    if kind == 2:
        return Or(tuple(condition(rng, depth - 1) for _ in range(rng.randint(0, 3))))
    return _comparison(rng)


def _comparison(rng: random.Random) -> Filter:
    path = _pick(rng, PATHS)
    match rng.randrange(5):
        case 0:
            return Exists(path)
        case 1:
            return In(path, tuple(_scalar(rng) for _ in range(rng.randint(0, 4))))
        case 2:
            return _range(rng, path, NUMBERS)
        case 3:
            return _range(rng, path, DATES)
        case _:
            return Eq(path, _scalar(rng))


def _scalar(rng: random.Random) -> Scalar:
    pools: tuple[tuple[Scalar, ...], ...] = (TEXTS, TEXTS, NUMBERS, (True, False))
    return _pick(rng, rng.choice(pools))


def _range(rng: random.Random, path: str, bounds: tuple[Bound, ...]) -> Range:
    sides = rng.choice((("gt",), ("gte",), ("lt",), ("lte",), ("gte", "lt"), ("gt", "lte")))
    return Range(path, **{side: _pick(rng, bounds) for side in sides})


def _pick(rng: random.Random, pool: Sequence[T]) -> T:
    """Early members more often, so that filters and payloads meet."""
    return pool[int(rng.random() ** 2 * len(pool))]
