"""m3connect: text through one M3 encoder into Qdrant, Milvus or Elasticsearch, and back.

>>> from m3connect import F, connect
>>> with connect("memory", collection="notes") as notes:
...     notes.capabilities.exact
True
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m3connect.connecting.registry import connect
    from m3connect.filters import F
    from m3connect.inference import M3Encoder
    from m3connect.ingestion import ingest
    from m3connect.searching.search import search, search_many
    from m3connect.trainer import train
    from m3connect.types import Document, Embeddings, Hit, Query, RecordBatch, Rrf, Weighted

# Loaded on first use: `import m3connect` stays cheap. No submodule may have one of these names,
# or importing it would hide the function; hence ingestion and trainer.
_HOMES = {
    "Document": "m3connect.types",
    "Embeddings": "m3connect.types",
    "F": "m3connect.filters",
    "Hit": "m3connect.types",
    "M3Encoder": "m3connect.inference",
    "Query": "m3connect.types",
    "RecordBatch": "m3connect.types",
    "Rrf": "m3connect.types",
    "Weighted": "m3connect.types",
    "connect": "m3connect.connecting.registry",
    "ingest": "m3connect.ingestion",
    "search": "m3connect.searching.search",
    "search_many": "m3connect.searching.search",
    "train": "m3connect.trainer",
}

__all__ = [
    "Document",
    "Embeddings",
    "F",
    "Hit",
    "M3Encoder",
    "Query",
    "RecordBatch",
    "Rrf",
    "Weighted",
    "connect",
    "ingest",
    "search",
    "search_many",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'm3connect' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
