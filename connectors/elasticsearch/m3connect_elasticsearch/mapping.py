"""How a collection, a record and a batch look in Elasticsearch. No I/O.

    _id                  UUIDv5 of the record's id, which may be longer than an _id can be
    id                   the record's id
    payload              the payload as JSON text, so that it comes back exactly
    facts                the payload as terms that filters look up (filters.py)
    n_tokens, truncated  what the encoder said
    dense, sparse        the vectors as Elasticsearch searches them
    tokens               the multi-vector as Elasticsearch searches it (paid licences, if asked for)
    exact.*              the vectors as bytes, as they come back

``_source`` keeps the small fields; the bytes live in doc values, beside it, so that a search that
wants no vectors never reads them.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from m3connect.connecting.collection import Stored
from m3connect.connecting.reading import read_embeddings
from m3connect.contract import CollectionSchema
from m3connect.types import (
    Leg,
    RecordBatch,
    SparseVector,
    TokenArray,
)
from m3connect_elasticsearch.filters import facts

Body = dict[str, Any]

META = "m3connect"
SMALL = ("id", "payload", "n_tokens", "truncated")
_NAMESPACE = uuid.UUID("6f0e4a52-6c1f-5b0e-9a56-2d6f3c1e7a10")
_SMALLEST_WEIGHT = np.finfo(np.float32).tiny
"""A ``sparse_vector`` field takes only positive normal floats."""
_UNSEARCHED: Body = {"index": False, "doc_values": False}
_PAGE_BYTES = 24 * 1024 * 1024
_TYPICAL_TOKENS, _TYPICAL_TERMS = 512, 200


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection lies in an index; all but the schema is the layout of what it says of itself.

    Args:
        schema: what it holds.
        dense_index: the type of the dense field's index.
        rank_vectors: whether multi-vectors can be searched by the server.
    """

    schema: CollectionSchema
    dense_index: str
    rank_vectors: bool

    @classmethod
    def of(cls, stored: Stored) -> Self:
        """As a collection says it."""
        return cls(stored.schema, **stored.layout)

    def stored(self) -> Stored:
        """What a new collection says of itself."""
        options = {"dense_index": self.dense_index, "rank_vectors": self.rank_vectors}
        return Stored(self.schema, layout=options)


def meta(stored: Stored) -> Body:
    """What a collection says of itself as its mapping's ``_meta``."""
    return {META: stored.to_json()}


def key(id_: str) -> str:
    """The ``_id`` of a record."""
    return str(uuid.uuid5(_NAMESPACE, id_))


def exact(leg: Leg) -> str:
    """The field that keeps a leg's vectors as bytes."""
    return f"exact.{leg}"


def mappings(layout: Layout) -> Body:
    """The mapping of a collection; the server refuses whatever is not in it."""
    schema = layout.schema
    fields: Body = {
        "id": {"type": "keyword", "index": False},
        "payload": {"type": "keyword", **_UNSEARCHED},
        "n_tokens": {"type": "integer", **_UNSEARCHED},
        "truncated": {"type": "boolean", **_UNSEARCHED},
        "facts": {"type": "keyword", "doc_values": False},
    }
    if schema.dense_width is not None:
        fields["dense"] = {
            "type": "dense_vector",
            "dims": schema.dense_width,
            "similarity": "max_inner_product",
            "index_options": {"type": layout.dense_index},
        }
    if schema.sparse:
        fields["sparse"] = {"type": "sparse_vector"}
    if schema.multivector_width is not None and layout.rank_vectors:
        fields["tokens"] = {"type": "rank_vectors", "dims": schema.multivector_width}
    fields["exact"] = {
        "properties": {leg: {"type": "binary", "doc_values": True} for leg in schema.legs}
    }
    return {
        "dynamic": "strict",
        "_source": {"includes": list(SMALL)},
        "_meta": meta(layout.stored()),
        "properties": fields,
    }


# --------------------------------------------------------------------------------------- writing


def documents(batch: RecordBatch, layout: Layout, *, packed: bool) -> Iterator[Body]:
    """One document a record.

    Args:
        batch: checked records.
        layout: of the collection.
        packed: whether the server takes dense vectors as base64; otherwise they go as lists.
    """
    embeddings = batch.embeddings
    for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        document: Body = {
            "id": id_,
            "payload": json.dumps(payload, ensure_ascii=False),
            "n_tokens": int(embeddings.n_tokens[row]),
            "truncated": bool(embeddings.truncated[row]),
            "facts": facts(payload),
            "exact": {},
        }
        if embeddings.dense is not None:
            vector = embeddings.dense[row]
            document["dense"] = _base64(vector, ">f4") if packed else vector.tolist()
            document["exact"]["dense"] = _base64(vector, "<f4")
        if embeddings.sparse is not None:
            sparse = embeddings.sparse[row]
            document["sparse"] = _weights(sparse)
            document["exact"]["sparse"] = _pack_sparse(sparse)
        if embeddings.multivector is not None:
            tokens = embeddings.multivector[row].astype(layout.schema.multivector_dtype)
            document["exact"]["multivector"] = _base64(tokens, _little(layout.schema))
            if layout.rank_vectors:
                document["tokens"] = tokens.tolist()
        yield document


def _weights(sparse: SparseVector) -> dict[str, float]:
    values = np.maximum(sparse.values, _SMALLEST_WEIGHT).tolist()
    return dict(zip(map(str, sparse.indices.tolist()), values, strict=True))


def _pack_sparse(sparse: SparseVector) -> str:
    """All indices, then all values."""
    indices, values = sparse.indices.astype("<u4"), sparse.values.astype("<f4")
    return base64.b64encode(indices.tobytes() + values.tobytes()).decode()


def _base64(array: NDArray[Any], dtype: DTypeLike) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def _little(schema: CollectionSchema) -> str:
    return "<f2" if schema.multivector_dtype == "float16" else "<f4"


# --------------------------------------------------------------------------------------- reading


def returned(legs: Sequence[Leg]) -> Body:
    """What a search must return for :func:`records` with these legs."""
    return {"_source": list(SMALL), "docvalue_fields": [exact(leg) for leg in legs]}


def records(hits: Sequence[Body], schema: CollectionSchema, legs: Sequence[Leg]) -> RecordBatch:
    """The records of hits that carry what :func:`returned` asks for."""
    sources = [hit["_source"] for hit in hits]
    embeddings = read_embeddings(
        hits,
        schema,
        legs,
        {
            "dense": lambda hit: np.frombuffer(_bytes(hit, "dense"), "<f4"),
            "sparse": unpack_sparse,
            "multivector": lambda hit: _tokens(hit, schema),
        },
        n_tokens=(source["n_tokens"] for source in sources),
        truncated=(source["truncated"] for source in sources),
    )
    payloads = [json.loads(source["payload"]) for source in sources]
    return RecordBatch([source["id"] for source in sources], payloads, embeddings)


def page_size(schema: CollectionSchema, legs: Sequence[Leg]) -> int:
    """How many typical records with these legs make a page of some tens of MB."""
    size = 0
    if "dense" in legs:
        size += 4 * (schema.dense_width or 0)
    if "sparse" in legs:
        size += 8 * _TYPICAL_TERMS
    if "multivector" in legs:
        width = schema.multivector_width or 0
        size += _TYPICAL_TOKENS * width * np.dtype(_little(schema)).itemsize
    return int(np.clip(_PAGE_BYTES // max(1, size), 1, 1000))


def unpack_sparse(hit: Body) -> SparseVector:
    """The lexical weights of a hit that carries their bytes."""
    stored = _bytes(hit, "sparse")
    half = len(stored) // 2
    return SparseVector(
        np.frombuffer(stored[:half], "<u4").astype(np.uint32, copy=False),
        np.frombuffer(stored[half:], "<f4").astype(np.float32, copy=False),
    )


def _tokens(hit: Body, schema: CollectionSchema) -> TokenArray:
    flat = np.frombuffer(_bytes(hit, "multivector"), _little(schema))
    return flat.reshape(-1, schema.multivector_width or 1)


def _bytes(hit: Body, leg: Leg) -> bytes:
    return base64.b64decode(hit["fields"][exact(leg)][0])
