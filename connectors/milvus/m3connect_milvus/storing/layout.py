"""How a collection lies in Milvus: its fields and indexes.

Two Milvus collections make one of ours. ``NAME`` has one row a record. ``NAME__parts`` has the
texts that are too long for a field, in parts, and one row that says what the collection is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from pymilvus import CollectionSchema as MilvusSchema
from pymilvus import DataType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from m3connect.connecting.collection import Stored
from m3connect.contract import CollectionSchema
from m3connect.errors import ConfigError, Unsupported
from m3connect_milvus.engine.engine import Engine
from m3connect_milvus.errors import NAME
from m3connect_milvus.storing.facts import CODES, VALUES, ArrayFacts, FactStore, TextFacts
from m3connect_milvus.storing.keys import CHARACTERS

TEXT_BYTES = 65_535
"""Bytes of a VARCHAR value; what is longer is kept in parts."""
RESULTS = 16_384
"""The largest limit of a search or query, and the most queries of one search."""
DENSE_WIDTHS = range(2, 32_769)
TOKENS_FIELD = "multivector"
"""The struct array for searching multi-vectors, where the server has it."""
TOKENS_VECTOR = f"{TOKENS_FIELD}[vector]"
MOST_TOKENS = 4096
"""Elements of a Milvus array."""
NO_VECTOR = (0.0, 0.0)
_NAME_CHARACTERS = 255
_PARTS_SUFFIX = "__parts"


@dataclass(frozen=True, slots=True)
class Layout:
    """How one collection is stored; all but the schema is the layout of what it says of itself.

    Args:
        schema: what it holds.
        facts: ``text`` or ``array``, see :mod:`m3connect_milvus.storing.facts`.
        dense_index: the index type of the dense vectors.
        dense_dtype: how they are stored, ``float32`` or ``float16``.
        partition_key: the payload field by which records are partitioned.
        struct_array: whether multi-vectors are kept in a form that the engine searches.
    """

    schema: CollectionSchema
    facts: str
    dense_index: str
    dense_dtype: str
    partition_key: str | None
    struct_array: bool

    @property
    def store(self) -> FactStore:
        """How the engine keeps facts."""
        return TextFacts if self.facts == "text" else ArrayFacts

    @classmethod
    def of(cls, stored: Stored) -> Self:
        """As a collection says it."""
        return cls(stored.schema, **stored.layout)

    def stored(self) -> Stored:
        """What a new collection says of itself."""
        options = {key: value for key, value in asdict(self).items() if key != "schema"}
        return Stored(self.schema, layout=options)


def parts_name(collection: str) -> str:
    """The name of the collection's second half.

    Raises:
        ConfigError: the collection's name is none for Milvus.
    """
    letters = collection.replace("_", "a")
    fits = len(collection) + len(_PARTS_SUFFIX) <= _NAME_CHARACTERS
    if not (letters.isascii() and letters.isalnum() and not letters[0].isdigit() and fits):
        raise ConfigError(
            f"Milvus takes collection names of ASCII letters, digits and underscores that do not "
            f"begin with a digit, up to {_NAME_CHARACTERS - len(_PARTS_SUFFIX)} characters, "
            f"not {collection!r}"
        )
    return collection + _PARTS_SUFFIX


def ours(names: Collection[str]) -> list[str]:
    """Of the collections of a database, those of which both halves are there.

    >>> ours({"handbook", "handbook" + _PARTS_SUFFIX, "other"})
    ['handbook']
    """
    halves = (name.removesuffix(_PARTS_SUFFIX) for name in names if name.endswith(_PARTS_SUFFIX))
    return sorted(name for name in halves if name in names)


def check_engine(layout: Layout, engine: Engine) -> None:
    """Refuse what the engine cannot hold, before anything is made.

    Raises:
        Unsupported: names the version that can, or the width.
    """
    schema = layout.schema
    if schema.sparse and not engine.sparse_vectors:
        raise _unsupported(f"{engine.name} has no sparse vectors; 2.4 has")
    if engine.before(2, 3):
        raise _unsupported(f"{engine.name} has no arrays; 2.3 has")
    if layout.dense_dtype == "float16" and (engine.lite or engine.before(2, 4)):
        raise _unsupported(f"{engine.name} has no float16 vectors; a server from 2.4 has")
    if layout.struct_array and not engine.struct_arrays:
        raise _unsupported(f"{engine.name} does not search multi-vectors; 2.6.4 does")
    if schema.dense_width is not None and schema.dense_width not in DENSE_WIDTHS:
        raise _unsupported(f"dense vectors are 2 to 32,768 wide, not {schema.dense_width}")


def _unsupported(message: str) -> Unsupported:
    return Unsupported(message, connector=NAME, operation="ensure")


@dataclass(frozen=True, slots=True)
class Definition:
    """A Milvus collection to be: fields and indexes."""

    fields: MilvusSchema
    indexes: IndexParams

    @classmethod
    def of_fields(cls, **fields: Mapping[str, Any]) -> Self:
        """With these fields; the first is the primary key."""
        definition = cls(
            MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False),
            MilvusClient.prepare_index_params(),
        )
        for index, (name, options) in enumerate(fields.items()):
            definition.fields.add_field(name, is_primary=index == 0, **options)
        return definition

    def add_vector(self, name: str, options: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        """Add a vector field with its index; vectors are compared by inner product."""
        self.fields.add_field(name, **options)
        self.indexes.add_index(name, **{"index_name": name, "metric_type": "IP", **index})


_KEY = {"datatype": DataType.VARCHAR, "max_length": CHARACTERS}
_TEXT = {"datatype": DataType.VARCHAR, "max_length": TEXT_BYTES}
_INTEGER = {"datatype": DataType.INT64}
_HNSW: dict[str, Any] = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}
DENSE_INDEXES: dict[str, dict[str, Any]] = {
    "FLAT": {"index_type": "FLAT"},
    "HNSW": _HNSW,
    "AUTOINDEX": {"index_type": "AUTOINDEX"},
}
"""Index types of dense vectors; FLAT is exact."""
DENSE_TYPES = {"float32": DataType.FLOAT_VECTOR, "float16": DataType.FLOAT16_VECTOR}


def records_definition(layout: Layout, engine: Engine) -> Definition:
    """The collection with one row a record."""
    definition = Definition.of_fields(
        id=_KEY,
        record_id=_TEXT,
        payload=_TEXT,
        payload_parts=_INTEGER,
        tokens=_TEXT,
        token_parts=_INTEGER,
        generation=_KEY,
        n_tokens=_INTEGER,
        truncated={"datatype": DataType.BOOL},
        **dict.fromkeys((VALUES, CODES), layout.store.field_type),
    )
    if layout.partition_key is not None:
        definition.fields.add_field("partition", is_partition_key=True, **_KEY)
    if layout.facts == "array" and not engine.before(2, 5):
        for name in (VALUES, CODES):
            definition.indexes.add_index(name, index_name=name, index_type="INVERTED")
    _add_vectors(definition, layout)
    return definition


def _add_vectors(definition: Definition, layout: Layout) -> None:
    schema = layout.schema
    if schema.dense_width is not None:
        dense = {"datatype": DENSE_TYPES[layout.dense_dtype], "dim": schema.dense_width}
        definition.add_vector("dense", dense, DENSE_INDEXES[layout.dense_index])
    if schema.sparse:
        sparse = {"datatype": DataType.SPARSE_FLOAT_VECTOR}
        definition.add_vector("sparse", sparse, {"index_type": "SPARSE_INVERTED_INDEX"})
    if schema.dense_width is None and not schema.sparse:
        _add_required_vector(definition)
    if layout.struct_array and schema.multivector_width is not None:
        token = MilvusClient.create_struct_field_schema()
        token.add_field("vector", DataType.FLOAT_VECTOR, dim=schema.multivector_width)
        definition.fields.add_field(
            TOKENS_FIELD,
            DataType.ARRAY,
            element_type=DataType.STRUCT,
            struct_schema=token,
            max_capacity=MOST_TOKENS,
        )
        definition.indexes.add_index(
            TOKENS_VECTOR, index_name=TOKENS_FIELD, metric_type="MAX_SIM_IP", **_HNSW
        )


def parts_definition() -> Definition:
    """The collection of long texts' parts and of the row that describes the collection."""
    definition = Definition.of_fields(
        id={"datatype": DataType.VARCHAR, "max_length": 3 * CHARACTERS},
        record=_KEY,
        generation=_KEY,
        text=_TEXT,
    )
    _add_required_vector(definition)
    return definition


def _add_required_vector(definition: Definition) -> None:
    """Milvus takes no collection without a vector; this is the smallest."""
    options = {"datatype": DataType.FLOAT_VECTOR, "dim": len(NO_VECTOR)}
    definition.add_vector("unused", options, {"index_type": "FLAT"})
