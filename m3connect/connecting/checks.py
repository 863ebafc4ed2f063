"""What every connector refuses, before the backend sees it: arguments that would be mangled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from m3connect.connecting.tenants import scoped, tenants_of
from m3connect.contract import RESERVED_PREFIX
from m3connect.errors import InputError
from m3connect.filters import Filter, parse
from m3connect.types import Rrf
from m3connect.types.tokens import array_dtype

if TYPE_CHECKING:
    from m3connect.contract import CollectionSchema, Limits
    from m3connect.filters import AnyFilter
    from m3connect.types import Fusion, Query, RecordBatch

MOST_HITS = 2**31 - 1
"""No engine counts further."""


def check_ids(ids: Sequence[str]) -> None:
    """Refuse what is no sequence of ids; a string is one of its characters, and hardly meant so.

    Raises:
        InputError: a single string, or something in ``ids`` that is no string or not unicode.

    >>> check_ids("r7")
    Traceback (most recent call last):
        ...
    m3connect.errors.InputError: ids are given as a list; for one record write ['r7']
    """
    _check_listed(ids)
    for id_ in ids:
        if not isinstance(id_, str):
            raise InputError(f"an id is a string, got {id_!r}")
        _id_bytes(id_, f"id {id_!r}")


def ids_or_filter(where: Sequence[str] | AnyFilter) -> list[str] | Filter:
    """What is to be deleted: ids, each once, or a filter; a string is the text of a filter.

    Raises:
        InputError: something that is neither.

    >>> ids_or_filter(["r7", "r7"]), ids_or_filter("year < 2020")
    (['r7'], Range(field='year', gt=None, gte=None, lt=2020, lte=None))
    >>> ids_or_filter("r7")
    Traceback (most recent call last):
        ...
    m3connect.errors.InputError: filter 'r7', character 3: expected an operator; or, if it is an id, write ['r7']
    """
    if isinstance(where, Filter):
        return where
    if isinstance(where, str):
        try:
            return parse(where)
        except InputError as error:
            raise InputError(f"{error}; or, if it is an id, write {[where]!r}") from error
    check_ids(where)
    return list(dict.fromkeys(where))


def _check_listed(ids: object) -> None:
    if isinstance(ids, str | bytes):
        raise InputError(f"ids are given as a list; for one record write {[ids]!r}")


def check_records(batch: RecordBatch, schema: CollectionSchema, limits: Limits) -> None:
    """Refuse a batch that a backend would mangle, before anything is written.

    Raises:
        InputError: names the record and the field: an empty or overlong id, a missing or
            superfluous representation, a wrong width, NaN or infinity, a duplicate sparse index,
            a text without token vectors, a token value beyond the stored dtype, a payload that is
            not JSON, uses a reserved key or does not say whose the record is.
    """
    embeddings = batch.embeddings
    _check_listed(batch.ids)
    if len(batch) == 0:
        return
    if set(embeddings.legs) != set(schema.legs):
        raise InputError(
            f"records hold {list(embeddings.legs)}, the collection stores {list(schema.legs)}"
        )
    for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        _check_id(id_, row, limits)
        _check_payload(id_, payload, limits)
    tenants_of(batch, schema)
    if embeddings.dense is not None:
        _check_width("dense", embeddings.dense.shape[1], schema.dense_width)
        _check_finite(batch, "dense", ~np.isfinite(embeddings.dense).all(axis=1))
    if embeddings.sparse is not None:
        _check_sparse(batch)
    if embeddings.multivector is not None:
        _check_multivector(batch, schema, limits)


def _check_id(id_: object, row: int, limits: Limits) -> None:
    if not isinstance(id_, str) or not id_:
        raise InputError(f"record {row}: id must be a non-empty string, got {id_!r}")
    size = _id_bytes(id_, f"record {row}: id {id_!r}")
    if limits.id_bytes is not None and size > limits.id_bytes:
        raise InputError(
            f"record {id_[:40]!r}...: id has {size} bytes, the limit is {limits.id_bytes}"
        )


def _id_bytes(id_: str, which: str) -> int:
    try:
        return len(id_.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{which} is not valid unicode") from error


def _check_payload(id_: str, payload: Mapping[str, Any], limits: Limits) -> None:
    for key in payload:
        if isinstance(key, str) and key.startswith(RESERVED_PREFIX):
            raise InputError(
                f"record {id_!r}: payload key {key!r} starts with the reserved {RESERVED_PREFIX!r}"
            )
    if not _keys_are_strings(payload):  # JSON would turn 1 into "1" without a word
        raise InputError(f"record {id_!r}: payload has a key that is not a string")
    try:
        size = len(json.dumps(payload, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise InputError(f"record {id_!r}: payload is not JSON: {error}") from error
    if limits.payload_bytes is not None and size > limits.payload_bytes:
        raise InputError(
            f"record {id_!r}: payload has {size} bytes, the limit is {limits.payload_bytes}"
        )


def _keys_are_strings(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _keys_are_strings(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_keys_are_strings(item) for item in value)
    return True


def _check_width(leg: str, actual: int, width: int | None) -> None:
    if actual != width:
        raise InputError(f"{leg} vectors are {actual} wide, the collection's {width}")


def _check_finite(batch: RecordBatch, leg: str, bad: Any) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"record {batch.ids[row]!r}: {leg} holds NaN or infinity")


def _check_sparse(batch: RecordBatch) -> None:
    sparse = batch.embeddings.sparse
    assert sparse is not None
    lengths = np.diff(sparse.indptr)
    rows = np.repeat(np.arange(len(sparse)), lengths)
    bad = ~np.isfinite(sparse.values) | (sparse.values <= 0)
    if bad.any():
        bad_entry = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"record {batch.ids[rows[bad_entry]]!r}: sparse weight {sparse.values[bad_entry]} of term "
            f"{sparse.indices[bad_entry]} is not a positive finite number"
        )
    keys = rows.astype(np.int64) << 32 | sparse.indices.astype(np.int64)
    unique, first = np.unique(keys, return_index=True)
    if len(unique) != len(keys):
        bad_entry = int(np.setdiff1d(np.arange(len(keys)), first)[0])
        raise InputError(
            f"record {batch.ids[rows[bad_entry]]!r}: sparse index {sparse.indices[bad_entry]} occurs twice"
        )


def _check_multivector(batch: RecordBatch, schema: CollectionSchema, limits: Limits) -> None:
    multi = batch.embeddings.multivector
    assert multi is not None
    _check_width("multivector", multi.width, schema.multivector_width)
    lengths = np.diff(multi.offsets)
    if (lengths == 0).any():
        row = int(np.flatnonzero(lengths == 0)[0])
        raise InputError(f"record {batch.ids[row]!r}: multivector has no token vectors")
    rows = np.repeat(np.arange(len(multi)), lengths)
    bad_tokens = ~np.isfinite(multi.vectors).all(axis=1)
    _check_finite(batch, "multivector", np.bincount(rows[bad_tokens], minlength=len(multi)) > 0)
    largest = np.finfo(array_dtype(schema.multivector_dtype)).max
    if np.finfo(multi.vectors.dtype).max > largest:
        highest = np.abs(multi.vectors).max(axis=1)
        if (highest > largest).any():
            id_ = batch.ids[rows[int(np.argmax(highest))]]
            raise InputError(
                f"record {id_!r}: multivector holds {highest.max()}, beyond the stored "
                f"{schema.multivector_dtype}"
            )
    if limits.multivector_floats is not None:
        sizes = lengths * multi.width
        if (sizes >= limits.multivector_floats).any():
            row = int(np.argmax(sizes))
            raise InputError(
                f"record {batch.ids[row]!r}: multivector has {lengths[row]} x {multi.width} "
                f"values, the backend takes fewer than {limits.multivector_floats}; chunk smaller "
                "(--chunk-tokens)"
            )


def check_query(query: Query, schema: CollectionSchema) -> Query:
    """Refuse a query that a backend would mangle.

    Returns:
        The query to answer: its filter in conditions, without what only says that all tenants are meant.

    Raises:
        InputError: no leg, a leg the collection lacks, a wrong width, NaN, a sparse weight that
            is not positive, a missing or senseless fusion, a limit or depth below 1, ``within``
            that is no sequence of ids, or neither ids nor a filter that says which tenant's records.
    """
    legs = query.legs
    if not legs:
        raise InputError("a query needs at least one of dense, sparse, multivector")
    missing = [leg for leg in legs if leg not in schema.legs]
    if missing:
        raise InputError(f"the collection stores {list(schema.legs)}, the query asks {missing}")
    if query.dense is not None:
        if query.dense.ndim != 1:
            raise InputError(f"a dense query has one dimension, this one {query.dense.ndim}")
        _check_width("dense query", len(query.dense), schema.dense_width)
        if not np.isfinite(query.dense).all():
            raise InputError("the dense query holds NaN or infinity")
    if query.sparse is not None:
        values = query.sparse.values
        if not (np.isfinite(values) & (values > 0)).all():
            raise InputError("the sparse query holds a weight that is not positive and finite")
        if len(set(query.sparse.indices.tolist())) != len(query.sparse):
            raise InputError("a sparse index occurs twice in the query")
    if query.multivector is not None:
        if query.multivector.ndim != 2 or not len(query.multivector):
            raise InputError("a multivector query is [tokens, width] with at least one token")
        _check_width("multivector query", query.multivector.shape[1], schema.multivector_width)
        if not np.isfinite(query.multivector).all():
            raise InputError("the multivector query holds NaN or infinity")
    if query.rerank is not None and (query.multivector is None or len(legs) < 2):
        raise InputError("rerank needs a multivector and at least one other leg")
    fused = [leg for leg in legs if query.rerank is None or leg != "multivector"]
    if len(fused) > 1 and query.fusion is None:
        raise InputError(f"the legs {fused} need a fusion")
    if query.fusion is not None:
        check_fusion(query.fusion)
    if query.within is not None:
        check_ids(query.within)
    condition = scoped(query.filter, schema, by_ids=query.within is not None)
    depths = {
        "limit": query.limit,
        "dense_depth": query.dense_depth,
        "sparse_depth": query.sparse_depth,
        "rerank": 1 if query.rerank is None else query.rerank,
    }
    for name, value in depths.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
        if value > MOST_HITS:
            raise InputError(f"{name} must be at most {MOST_HITS:,}, got {value}")
    return replace(query, filter=condition)


def check_fusion(fusion: Fusion) -> None:
    """Whether legs can be fused so.

    Raises:
        InputError: weights that are negative or no numbers, or a k below 1.
    """
    weights = (fusion.dense, fusion.sparse, fusion.multivector)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise InputError(f"fusion weights must be finite and not negative, got {weights}")
    if isinstance(fusion, Rrf) and not (math.isfinite(fusion.k) and fusion.k >= 1):
        raise InputError(f"the k of rank fusion must be at least 1, got {fusion.k}")
