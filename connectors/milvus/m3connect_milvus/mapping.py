"""Records as Milvus rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pybase64  # ten times as fast as the standard library's

from m3connect.connecting.reading import read_embeddings
from m3connect.connecting.tenants import tenant_of
from m3connect.errors import InputError
from m3connect.types import (
    LEGS,
    Embeddings,
    Leg,
    Payload,
    RecordBatch,
    SparseVector,
    TokenArray,
)
from m3connect.types.tokens import from_bytes, rounded, to_bytes
from m3connect_milvus.storing.facts import CODES, MOST, VALUES, facts, prefixes
from m3connect_milvus.storing.keys import digest
from m3connect_milvus.storing.layout import MOST_TOKENS, NO_VECTOR, TOKENS_FIELD, Layout
from m3connect_milvus.storing.texts import RecordRows, Row, whole_text, with_texts

NO_TERM = 1_048_575
"""Stored for a text without sparse terms, since Milvus takes no empty sparse vector. It lies above
every tokenizer's vocabulary, and low, because old servers allocate up to the largest term."""
TERMS = 2**32 - 1
"""Sparse indices are below this."""
SCALARS = (
    "record_id",
    "payload",
    "payload_parts",
    "generation",
    "n_tokens",
    "truncated",
)
"""The fields of a record without its vectors."""


def check_rows(batch: RecordBatch, layout: Layout) -> None:
    """Refuse what only Milvus cannot take; the contract's ``check_records`` comes before.

    Raises:
        InputError: names the record and the field.
    """
    dense, sparse, multi = (getattr(batch.embeddings, leg) for leg in LEGS)
    if dense is not None and layout.dense_dtype == "float16":
        large = np.abs(dense).max(axis=1, initial=0) > np.finfo(np.float16).max
        if large.any():
            raise InputError(
                f"record {batch.ids[int(large.argmax())]!r}: a dense value exceeds float16's range"
            )
    if sparse is not None:
        bad = (sparse.indices == NO_TERM) | (sparse.indices >= TERMS)
        if bad.any():
            bad_entry = int(np.flatnonzero(bad)[0])
            row = int(np.searchsorted(sparse.indptr, bad_entry, side="right")) - 1
            raise InputError(
                f"record {batch.ids[row]!r}: Milvus cannot store the sparse index "
                f"{sparse.indices[bad_entry]}; indices are below {TERMS}, and {NO_TERM} is reserved"
            )
    if multi is not None and layout.struct_array:
        lengths = np.diff(multi.offsets)
        if lengths.max(initial=0) > MOST_TOKENS:
            raise InputError(
                f"record {batch.ids[int(lengths.argmax())]!r}: {lengths.max()} token vectors; a "
                f"Milvus array holds {MOST_TOKENS}: chunk smaller (--chunk-tokens)"
            )


def rows(batch: RecordBatch, layout: Layout) -> list[RecordRows]:
    """The rows of each of a batch's checked records.

    Raises:
        InputError: a payload has more filterable values than a Milvus array has elements, or no
            string in the partition key's field; names the record.
    """
    made = []
    for number, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        vectors = batch.embeddings[number]
        row = {
            "id": digest(id_),
            "record_id": id_,
            "n_tokens": int(vectors.n_tokens[0]),
            "truncated": bool(vectors.truncated[0]),
            **_fact_fields(id_, payload, layout),
            **_vector_fields(vectors, layout),
        }
        texts = {"payload": json.dumps(payload, ensure_ascii=False), "tokens": ""}
        if vectors.multivector is not None:
            texts["tokens"] = tokens_text(vectors.multivector[0], layout)
        made.append(with_texts(row, texts))
    return made


def _fact_fields(id_: str, payload: Payload, layout: Layout) -> dict[str, Any]:
    stored = facts(payload)
    fields: dict[str, Any] = {}
    for name, texts in ((VALUES, stored.values), (CODES, stored.codes)):
        if (count := len(prefixes(name, texts))) > MOST:
            raise InputError(
                f"record {id_!r}: the payload has too many values to filter by ({count} entries in "
                f"the field {name!r}, a Milvus array holds {MOST}); keep long lists out of it"
            )
        fields[name] = layout.store.store(name, texts)
    if layout.partition_key is not None:
        field, tenant = layout.partition_key, layout.schema.tenant_field
        fields["partition"] = (
            digest(tenant_of(id_, payload, field))
            if field == tenant
            else partition(id_, payload, field)
        )
    return fields


def partition(id_: str, payload: Payload, field: str) -> str:
    """What decides a record's partition: a hash of the partition key's value.

    Raises:
        InputError: there is no string in the field.
    """
    value = payload.get(field)
    if not isinstance(value, str):
        raise InputError(
            f"record {id_!r}: the partition key {field!r} must be a string, got {value!r}"
        )
    return digest(value)


def _vector_fields(embedding: Embeddings, layout: Layout) -> dict[str, Any]:
    """The vectors of a batch of one as fields that the engine searches."""
    fields: dict[str, Any] = {}
    if embedding.dense is not None:
        fields["dense"] = embedding.dense[0].astype(layout.dense_dtype, copy=False)
    if embedding.sparse is not None:
        fields["sparse"] = sparse_field(embedding.sparse[0]) or {NO_TERM: 1.0}
    if embedding.dense is None and embedding.sparse is None:
        fields["unused"] = list(NO_VECTOR)
    if embedding.multivector is not None and layout.struct_array:
        vectors = stored_tokens(embedding.multivector[0], layout).astype(np.float32)
        fields[TOKENS_FIELD] = [{"vector": vector} for vector in vectors]
    return fields


def sparse_field(vector: SparseVector) -> dict[int, float]:
    """A sparse vector as pymilvus takes it."""
    return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def stored_tokens(tokens: TokenArray, layout: Layout) -> TokenArray:
    """Token vectors in the precision that the collection keeps."""
    return rounded(tokens, layout.schema.multivector_dtype)


def tokens_text(tokens: TokenArray, layout: Layout) -> str:
    """Token vectors as text: their bytes in base64."""
    return pybase64.b64encode_as_string(to_bytes(tokens, layout.schema.multivector_dtype))


def tokens_of(text: str, layout: Layout) -> TokenArray:
    """What :func:`tokens_text` made into text, ``[tokens, C]``."""
    schema = layout.schema
    stored = pybase64.b64decode(text, validate=True)
    return from_bytes(stored, schema.multivector_dtype, schema.multivector_width or 1)


# ------------------------------------------------------------------------------------- and back


def record_batch(
    rows: Sequence[Row], parts: Mapping[str, str], layout: Layout, legs: Sequence[Leg]
) -> RecordBatch:
    """Rows that hold these legs as records."""
    embeddings = read_embeddings(
        rows,
        layout.schema,
        legs,
        {
            "dense": lambda row: _dense_of(row["dense"]),
            "sparse": lambda row: _sparse_of(row["sparse"]),
            "multivector": lambda row: tokens_of(whole_text(row, "tokens", parts), layout),
        },
        n_tokens=(row["n_tokens"] for row in rows),
        truncated=(row["truncated"] for row in rows),
    )
    return RecordBatch([row["record_id"] for row in rows], payloads_of(rows, parts), embeddings)


def payloads_of(rows: Sequence[Row], parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The payloads of rows; read as one list, for many small texts take much longer."""
    texts = ",".join([whole_text(row, "payload", parts) for row in rows])
    payloads: list[dict[str, Any]] = json.loads(f"[{texts}]")
    return payloads


def _dense_of(field: list[float] | list[bytes]) -> Any:
    """Float16 vectors come as bytes."""
    if isinstance(field[0], bytes):
        return np.frombuffer(b"".join(field), "<f2")
    return field


def _sparse_of(field: Mapping[int, float]) -> dict[int, float]:
    return {index: weight for index, weight in sorted(field.items()) if index != NO_TERM}
