"""Collections and records in Qdrant's terms, and back. Pure: no engine is called here.

A point has a UUID made from the record's id, up to three named vectors, and the record's payload
as it is plus one reserved key (see :func:`_stored`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from m3connect.connecting.reading import read_embeddings
from m3connect.connecting.tenants import tenants_of
from m3connect.contract import CollectionSchema
from m3connect.types import Embeddings, Leg, Payload, RecordBatch, SparseVector
from m3connect.types.tokens import rounded
from m3connect_qdrant.filters import DEEPEST, RESERVED, Json, facts, is_stored_exactly

MultivectorStorage = Literal["float16", "float32", "turbo4", "turbo8", "turbo16"]
Quantization = Literal["int8", "binary"]
_QUANTIZED: Mapping[Quantization, Json] = {
    "int8": {"scalar": {"type": "int8", "always_ram": True}},
    "binary": {"binary": {"always_ram": True}},
}

WITHOUT_FACTS = {"exclude": [f"{RESERVED}.facts"]}
ONLY_ID = {"include": [f"{RESERVED}.id"]}
ONLY_ROWS = {"include": [f"{RESERVED}.rows"]}
ONLY_TENANT = {"include": [f"{RESERVED}.id", f"{RESERVED}.tenant"]}

_NAMESPACE = uuid5(NAMESPACE_URL, "m3connect")


@dataclass(frozen=True, slots=True)
class Point:
    """One record as an engine takes and returns it.

    Args:
        id: a UUID.
        vectors: by name; dense ``[D]``, multi-vector ``[tokens, C]``, sparse.
        payload: with the reserved key.
    """

    id: str
    vectors: Mapping[str, Any]
    payload: dict[str, Any]


# ---------------------------------------------------------------------------------- collections


@dataclass(frozen=True, slots=True)
class Placing:
    """How a server is to keep a new collection; None and False leave it to its own settings.

    Args:
        shards: how many parts the collection has.
        replicas: further copies of each.
        on_disk: whether vectors, sparse indexes and payloads are read from disk when they are needed.
        quantization: what the graph over dense vectors walks in memory.
    """

    shards: int | None = None
    replicas: int | None = None
    on_disk: bool = False
    quantization: Quantization | None = None

    def settings(self) -> dict[str, Any]:
        """Of the collection as a whole."""
        copies = None if self.replicas is None else 1 + self.replicas
        settings = {
            "shard_number": self.shards,
            "replication_factor": copies,
            "on_disk_payload": self.on_disk or None,
        }
        return {name: value for name, value in settings.items() if value is not None}


def vector_params(
    schema: CollectionSchema,
    storage: MultivectorStorage | None = None,
    placing: Placing | None = None,
) -> dict[str, Json]:
    """The dense and multi-vector parameters of a new collection.

    Args:
        schema: what it will hold.
        storage: how token values are stored, if not as the schema says.
        placing: how a server keeps it.
    """
    placing = placing or Placing()
    params: dict[str, Json] = {}
    if schema.dense_width is not None:
        params["dense"] = {"size": schema.dense_width, "distance": "Dot"}
        if placing.quantization is not None:
            params["dense"]["quantization_config"] = _QUANTIZED[placing.quantization]
    if schema.multivector_width is not None:
        params["multivector"] = {
            "size": schema.multivector_width,
            "distance": "Dot",
            "datatype": storage or schema.multivector_dtype,
            "multivector_config": {"comparator": "max_sim"},
            # Candidates come from the other legs, so a graph over tokens would be dead weight.
            "hnsw_config": {"m": 0},
        }
    if placing.on_disk:
        params = {name: {**leg, "on_disk": True} for name, leg in params.items()}
    return params


def sparse_params(schema: CollectionSchema, placing: Placing | None = None) -> dict[str, Json]:
    """The sparse parameters of a new collection: no IDF, the weights are learned."""
    on_disk = placing is not None and placing.on_disk
    index: Json = {"index": {"on_disk": True}} if on_disk else {}
    return {"sparse": index} if schema.sparse else {}


# -------------------------------------------------------------------------------------- records


def point_id(id_: str) -> str:
    """The UUID of a record.

    >>> point_id("handbook.md#3")
    '2f6624c1-1a96-5f41-a102-37c68c6ffeea'
    """
    return str(uuid5(_NAMESPACE, id_))


def points(batch: RecordBatch, schema: CollectionSchema) -> Iterator[Point]:
    """The points of checked records."""
    whose = tenants_of(batch, schema)
    for row, id_ in enumerate(batch.ids):
        stored = _stored(batch, row)
        if whose:
            stored[RESERVED]["tenant"] = whose[id_]
        yield Point(point_id(id_), _vectors(batch.embeddings, row, schema), stored)


def records(points: Sequence[Point], schema: CollectionSchema, legs: Sequence[Leg]) -> RecordBatch:
    """The records of points that carry these legs, in their order."""
    own = [point.payload[RESERVED] for point in points]
    embeddings = read_embeddings(
        points,
        schema,
        legs,
        {
            "dense": lambda point: point.vectors["dense"],
            "sparse": lambda point: _sparse(point.vectors.get("sparse")),
            "multivector": lambda point: point.vectors["multivector"],
        },
        n_tokens=(reserved["tokens"] for reserved in own),
        truncated=(reserved["truncated"] for reserved in own),
    )
    payloads = [user_payload(point.payload) for point in points]
    return RecordBatch([reserved["id"] for reserved in own], payloads, embeddings)


def whose(point: Point) -> tuple[str, str]:
    """The id and the tenant, empty if it has none, of a point that carries :data:`ONLY_TENANT`."""
    own = point.payload[RESERVED]
    return own["id"], own.get("tenant", "")


def multivector_floats(point: Point, schema: CollectionSchema) -> int:
    """How many values the multi-vector has of a point that carries :data:`ONLY_ROWS`."""
    rows: int = point.payload.get(RESERVED, {}).get("rows", 1)  # of old records it is not known
    return rows * (schema.multivector_width or 0)


def _vectors(embeddings: Embeddings, row: int, schema: CollectionSchema) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if embeddings.dense is not None:
        vectors["dense"] = embeddings.dense[row]
    if embeddings.sparse is not None:
        vectors["sparse"] = embeddings.sparse[row]
    if embeddings.multivector is not None:
        # Rounded here, so that the engines that would keep float32 store the same.
        vectors["multivector"] = rounded(embeddings.multivector[row], schema.multivector_dtype)
    return vectors


def _sparse(stored: Any) -> SparseVector:
    """From any engine's sparse vector; a text without terms may have none."""
    if stored is None:
        return SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
    return SparseVector(np.array(stored.indices, np.uint32), np.array(stored.values, np.float32))


def _stored(batch: RecordBatch, row: int) -> dict[str, Any]:
    """The payload of a point: the record's, flat, and the reserved key.

    That holds the id, what the encoder said of the text, how many rows its multi-vector has, and the
    facts for filters. A payload that an engine would change or refuse is kept there too, as JSON text.
    """
    payload = batch.payloads[row]
    reserved: dict[str, Any] = {
        "id": batch.ids[row],
        "tokens": int(batch.embeddings.n_tokens[row]),
        "truncated": bool(batch.embeddings.truncated[row]),
        "facts": facts(payload),
    }
    if batch.embeddings.multivector is not None:
        reserved["rows"] = len(batch.embeddings.multivector[row])
    if _is_plain(payload, DEEPEST):
        return {**payload, RESERVED: reserved}
    return {RESERVED: {**reserved, "json": json.dumps(payload)}}


def _is_plain(value: Any, levels: int) -> bool:
    """Whether a value comes back from every engine as it was."""
    if isinstance(value, Mapping):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value.values())
    if isinstance(value, list | tuple):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    return not isinstance(value, int | float) or is_stored_exactly(value)


def user_payload(stored: Mapping[str, Any]) -> Payload:
    """A stored payload as it was given."""
    text = stored[RESERVED].get("json")
    if text is not None:
        restored: Payload = json.loads(text)
        return restored
    payload = dict(stored)
    del payload[RESERVED]
    return payload
