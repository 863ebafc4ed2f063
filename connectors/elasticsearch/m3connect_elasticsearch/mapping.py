"""How a collection, a record and a batch look in Elasticsearch. No I/O.

    _id                  UUIDv5 of the record's id, which may be longer than an _id can be
    id                   the record's id
    payload              the payload as JSON text in bytes, so that it comes back exactly
    facts                the payload as terms that filters look up (filters.py)
    n_tokens, truncated  what the encoder said
    dense, sparse        the vectors as Elasticsearch searches them; dense ones come back from there
    exact.sparse         the lexical weights as bytes, for the index keeps 9 bits of each
    exact.multivector    the multi-vector as bytes
    multivector_bytes    how long that is, so that pages are cut by bytes
    tenant               in a collection that keeps tenants apart, a hash of the tenant: what routes it
    tokens               the multi-vector as Elasticsearch searches it (paid licences, if asked for)

``_source`` is left whole: of one that is filtered, Elasticsearch keeps what was left out a second time,
for recovery. The multi-vector is in ``_source`` alone. Every small field is a doc value besides, so
that a search reads no stored document, which may be a megabyte.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import pybase64  # ten times as fast as the standard library's, which was a third of a search
from numpy.typing import DTypeLike, NDArray

from m3connect.connecting.collection import Stored
from m3connect.connecting.portions import portions
from m3connect.connecting.reading import read_embeddings
from m3connect.connecting.tenants import tenants_of
from m3connect.contract import CollectionSchema
from m3connect.types import (
    FloatArray,
    Leg,
    RecordBatch,
    SparseVector,
    SparseVectors,
    TokenArray,
)
from m3connect.types.tokens import from_bytes, rounded, to_bytes
from m3connect_elasticsearch.filters import facts

Body = dict[str, Any]

META = "m3connect"
SMALL = ("id", "payload", "n_tokens", "truncated")
MULTIVECTOR_BYTES = "multivector_bytes"
TENANT = "tenant"
_NAMESPACE = uuid.UUID("6f0e4a52-6c1f-5b0e-9a56-2d6f3c1e7a10")
_SMALLEST_WEIGHT = np.finfo(np.float32).tiny
"""A ``sparse_vector`` field takes only positive normal floats."""
_DOC_VALUES: Body = {"index": False, "doc_values": True}
_PAGE_BYTES = 24 * 1024 * 1024
_LARGEST_PAGE = 1000
_READ_TOGETHER = 64
"""Multi-vectors that one search reads."""
_BYTES_OF_A_NUMBER = 12
"""Of a dense vector's, as JSON."""
_TYPICAL_TERMS = 200


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


@lru_cache(maxsize=1024)  # a search names its candidates up to three times
def key(id_: str) -> str:
    """The ``_id`` of a record."""
    return str(uuid.uuid5(_NAMESPACE, id_))


def route(tenant: str) -> str:
    """The routing value of a tenant's records; without a comma, which would make it two."""
    return key(tenant)


def exact(leg: Leg) -> str:
    """The field that keeps a leg's vectors as bytes."""
    return f"exact.{leg}"


def mappings(layout: Layout) -> Body:
    """The mapping of a collection; the server refuses whatever is not in it."""
    schema = layout.schema
    fields: Body = {
        "id": {"type": "keyword", **_DOC_VALUES},
        "payload": {"type": "binary", "doc_values": True},
        "n_tokens": {"type": "integer", **_DOC_VALUES},
        "truncated": {"type": "boolean", **_DOC_VALUES},
        "facts": {"type": "keyword", "doc_values": False},
    }
    if schema.dense_width is not None:
        fields["dense"] = {
            "type": "dense_vector",
            "dims": schema.dense_width,
            "similarity": "max_inner_product",
            "index_options": {"type": layout.dense_index},
        }
    exactly: Body = {}
    if schema.sparse:
        fields["sparse"] = {"type": "sparse_vector"}
        exactly["sparse"] = {"type": "binary", "doc_values": True}
    if schema.multivector_width is not None:
        exactly["multivector"] = {"type": "binary"}
        fields[MULTIVECTOR_BYTES] = {"type": "integer", **_DOC_VALUES}
        if layout.rank_vectors:
            fields["tokens"] = {"type": "rank_vectors", "dims": schema.multivector_width}
    fields["exact"] = {"properties": exactly}
    routed: Body = {}
    if schema.tenant_field is not None:
        fields[TENANT] = {"type": "keyword", **_DOC_VALUES}
        routed["_routing"] = {"required": True}  # what forgets it is refused, and not misplaced
    return routed | {
        "dynamic": "strict",
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
    whose = tenants_of(batch, layout.schema)
    for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
        document: Body = {
            "id": id_,
            "payload": _base64(json.dumps(payload, ensure_ascii=False).encode()),
            "n_tokens": int(embeddings.n_tokens[row]),
            "truncated": bool(embeddings.truncated[row]),
            "facts": facts(payload),
            "exact": {},
        }
        if whose:
            document[TENANT] = route(whose[id_])
        if embeddings.dense is not None:
            vector = embeddings.dense[row]
            document["dense"] = pack_dense(vector) if packed else vector.tolist()
        if embeddings.sparse is not None:
            sparse = embeddings.sparse[row]
            document["sparse"] = _weights(sparse)
            document["exact"]["sparse"] = pack_sparse(sparse)
        if embeddings.multivector is not None:
            tokens, dtype = embeddings.multivector[row], layout.schema.multivector_dtype
            text = _base64(to_bytes(tokens, dtype))
            document["exact"]["multivector"] = text
            document[MULTIVECTOR_BYTES] = len(text)
            if layout.rank_vectors:
                document["tokens"] = rounded(tokens, dtype).tolist()
        yield document


def pack_dense(vector: FloatArray) -> str:
    """A dense vector as newer servers take it, in documents and in queries."""
    return _base64(_packed(vector, ">f4"))


def _weights(sparse: SparseVector) -> dict[str, float]:
    values = np.maximum(sparse.values, _SMALLEST_WEIGHT).tolist()
    return dict(zip(map(str, sparse.indices.tolist()), values, strict=True))


def pack_sparse(sparse: SparseVector) -> str:
    """Lexical weights as bytes in base64: all indices, then all values."""
    indices, values = sparse.indices.astype("<u4"), sparse.values.astype("<f4")
    return _base64(indices.tobytes() + values.tobytes())


def _packed(array: NDArray[Any], dtype: DTypeLike) -> bytes:
    return np.ascontiguousarray(array, dtype).tobytes()


def _base64(data: bytes) -> str:
    return pybase64.b64encode_as_string(data)


# --------------------------------------------------------------------------------------- reading


def small(*fields: str) -> Body:
    """What a search must return for these fields and no stored document, not even the ``_id``."""
    return {"_source": False, "stored_fields": "_none_", "docvalue_fields": list(fields)}


OUTLINE = small("id", MULTIVECTOR_BYTES)
"""What a search must return for :func:`readable`."""


def returned(legs: Sequence[Leg]) -> Body:
    """What a search must return for :func:`records` with these legs."""
    fields = [*SMALL, exact("sparse")] if "sparse" in legs else SMALL
    if "dense" not in legs and "multivector" not in legs:
        return small(*fields)
    body: Body = {"_source": "multivector" in legs, "docvalue_fields": list(fields)}
    return body | {"fields": ["dense"]} if "dense" in legs else body


def named(ids: Sequence[str], *conditions: Body) -> Body:
    """The search for the records with these ids that meet all conditions."""
    keys = {"ids": {"values": [key(id_) for id_ in ids]}}
    return {
        "query": {"bool": {"filter": [keys, *conditions]}} if conditions else keys,
        "size": len(ids),
        "track_total_hits": False,
    }


def by_weight(ids: Sequence[str], legs: Sequence[Leg]) -> list[Body]:
    """Searches for records with their multi-vectors: parts of those that are small, and then the
    outline of the others.

    What the small ones weigh together is at most a page.
    """
    small_ones = {"range": {MULTIVECTOR_BYTES: {"lte": _PAGE_BYTES // len(ids)}}}
    parts = [ids[start : start + _READ_TOGETHER] for start in range(0, len(ids), _READ_TOGETHER)]
    return [
        *(named(part, small_ones) | returned(legs) for part in parts),
        named(ids, {"bool": {"must_not": [small_ones]}}) | OUTLINE,
    ]


def records(hits: Sequence[Body], schema: CollectionSchema, legs: Sequence[Leg]) -> RecordBatch:
    """The records of hits that carry what :func:`returned` asks for."""
    embeddings = read_embeddings(
        hits,
        schema,
        legs,
        {
            "dense": lambda hit: hit["fields"]["dense"],
            "sparse": lambda hit: lexical_weights([hit])[0],
            "multivector": lambda hit: _tokens(hit, schema),
        },
        n_tokens=(hit["fields"]["n_tokens"][0] for hit in hits),
        truncated=(hit["fields"]["truncated"][0] for hit in hits),
    )
    return RecordBatch([id_of(hit) for hit in hits], payloads_of(hits), embeddings)


def page_size(schema: CollectionSchema, legs: Sequence[Leg]) -> int:
    """How many records with these legs, multi-vectors aside, make a page of some tens of MB."""
    size = 0
    if "dense" in legs:
        size += _BYTES_OF_A_NUMBER * (schema.dense_width or 0)
    if "sparse" in legs:
        size += 8 * _TYPICAL_TERMS
    return int(np.clip(_PAGE_BYTES // max(1, size), 1, _LARGEST_PAGE))


def readable(outline: Sequence[Body], most: int) -> Iterator[list[str]]:
    """The ids that are read at a time with their multi-vectors, by what these weigh.

    Args:
        outline: hits that carry what :data:`OUTLINE` asks for.
        most: as many ids at once at most.
    """
    weights = (hit["fields"][MULTIVECTOR_BYTES][0] for hit in outline)
    for part in portions(weights, count=most, weight=_PAGE_BYTES):
        yield [id_of(hit) for hit in outline[part]]


def id_of(hit: Body) -> str:
    """The id of a hit that carries it."""
    return str(hit["fields"]["id"][0])


def whose(hit: Body) -> tuple[str, str]:
    """The id and the route of the tenant, empty if it has none, of a hit that carries them."""
    return id_of(hit), str(hit["fields"].get(TENANT, [""])[0])


def payloads_of(hits: Sequence[Body]) -> list[dict[str, Any]]:
    """The payloads of hits that carry them; read as one list, for many small texts take much longer."""
    stored = [_bytes(hit["fields"]["payload"][0]) for hit in hits]
    payloads: list[dict[str, Any]] = json.loads(b"[" + b",".join(stored) + b"]")
    return payloads


def lexical_weights(hits: Sequence[Body]) -> SparseVectors:
    """The lexical weights of hits that carry their bytes."""
    stored = [_bytes(hit["fields"][exact("sparse")][0]) for hit in hits]
    halves = [len(packed) // 2 for packed in stored]
    indices = b"".join(packed[:half] for packed, half in zip(stored, halves, strict=True))
    values = b"".join(packed[half:] for packed, half in zip(stored, halves, strict=True))
    return SparseVectors(
        np.cumsum([0, *(half // 4 for half in halves)], dtype=np.int64),
        np.frombuffer(indices, "<u4").astype(np.uint32, copy=False),
        np.frombuffer(values, "<f4").astype(np.float32, copy=False),
    )


def _tokens(hit: Body, schema: CollectionSchema) -> TokenArray:
    stored = _bytes(hit["_source"]["exact"]["multivector"])
    return from_bytes(stored, schema.multivector_dtype, schema.multivector_width or 1)


def _bytes(text: str) -> bytes:
    return pybase64.b64decode(text, validate=True)
