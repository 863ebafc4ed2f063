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
    from m3connect.contract import CollectionInfo, CollectionSchema, Connector, Encoder
    from m3connect.datasets.beir import Dataset
    from m3connect.datasets.beir import load as load_dataset
    from m3connect.errors import (
        AuthError,
        CheckpointError,
        CollectionNotFound,
        ConfigError,
        ConnectorError,
        FingerprintMismatch,
        InputError,
        InvalidFilter,
        M3ConnectError,
        PermanentError,
        RequestTooLarge,
        SchemaMismatch,
        TransientError,
        Unsupported,
    )
    from m3connect.evaluation.live import evaluate as evaluate_live
    from m3connect.evaluation.measure import Result
    from m3connect.evaluation.reports.files import read as read_results
    from m3connect.evaluation.reports.files import write as write_results
    from m3connect.evaluation.run import evaluate
    from m3connect.filters import F, Filter, parse
    from m3connect.inference import M3Encoder
    from m3connect.inference.reranking import load_reranker
    from m3connect.ingestion import ingest
    from m3connect.reembedding import reembed, rollback
    from m3connect.searching.explain import Explanation, explain
    from m3connect.searching.names import MODES, Mode
    from m3connect.searching.search import (
        TextHits,
        search,
        search_async,
        search_many,
        search_many_async,
    )
    from m3connect.trainer import train
    from m3connect.transfer import copy, verify
    from m3connect.types import (
        Compression,
        Document,
        Embeddings,
        Fingerprint,
        Hit,
        Query,
        RecordBatch,
        Rrf,
        Weighted,
    )

# Loaded on first use: `import m3connect` stays cheap. No submodule may have one of these names,
# or importing it would hide the function; hence ingestion, searching and trainer.
_HOMES = {
    "AuthError": "m3connect.errors:AuthError",
    "CheckpointError": "m3connect.errors:CheckpointError",
    "CollectionInfo": "m3connect.contract:CollectionInfo",
    "CollectionNotFound": "m3connect.errors:CollectionNotFound",
    "CollectionSchema": "m3connect.contract:CollectionSchema",
    "Compression": "m3connect.types:Compression",
    "ConfigError": "m3connect.errors:ConfigError",
    "Connector": "m3connect.contract:Connector",
    "ConnectorError": "m3connect.errors:ConnectorError",
    "Dataset": "m3connect.datasets.beir:Dataset",
    "Document": "m3connect.types:Document",
    "Embeddings": "m3connect.types:Embeddings",
    "Encoder": "m3connect.contract:Encoder",
    "Explanation": "m3connect.searching.explain:Explanation",
    "F": "m3connect.filters:F",
    "Filter": "m3connect.filters:Filter",
    "Fingerprint": "m3connect.types:Fingerprint",
    "FingerprintMismatch": "m3connect.errors:FingerprintMismatch",
    "Hit": "m3connect.types:Hit",
    "InputError": "m3connect.errors:InputError",
    "InvalidFilter": "m3connect.errors:InvalidFilter",
    "M3ConnectError": "m3connect.errors:M3ConnectError",
    "M3Encoder": "m3connect.inference:M3Encoder",
    "MODES": "m3connect.searching.names:MODES",
    "Mode": "m3connect.searching.names:Mode",
    "PermanentError": "m3connect.errors:PermanentError",
    "Query": "m3connect.types:Query",
    "RecordBatch": "m3connect.types:RecordBatch",
    "RequestTooLarge": "m3connect.errors:RequestTooLarge",
    "Result": "m3connect.evaluation.measure:Result",
    "Rrf": "m3connect.types:Rrf",
    "SchemaMismatch": "m3connect.errors:SchemaMismatch",
    "TextHits": "m3connect.searching.search:TextHits",
    "TransientError": "m3connect.errors:TransientError",
    "Unsupported": "m3connect.errors:Unsupported",
    "Weighted": "m3connect.types:Weighted",
    "connect": "m3connect.connecting.registry:connect",
    "copy": "m3connect.transfer:copy",
    "evaluate": "m3connect.evaluation.run:evaluate",
    "evaluate_live": "m3connect.evaluation.live:evaluate",
    "explain": "m3connect.searching.explain:explain",
    "ingest": "m3connect.ingestion:ingest",
    "load_dataset": "m3connect.datasets.beir:load",
    "load_reranker": "m3connect.inference.reranking:load_reranker",
    "parse": "m3connect.filters:parse",
    "read_results": "m3connect.evaluation.reports.files:read",
    "reembed": "m3connect.reembedding:reembed",
    "rollback": "m3connect.reembedding:rollback",
    "search": "m3connect.searching.search:search",
    "search_async": "m3connect.searching.search:search_async",
    "search_many": "m3connect.searching.search:search_many",
    "search_many_async": "m3connect.searching.search:search_many_async",
    "train": "m3connect.trainer:train",
    "verify": "m3connect.transfer:verify",
    "write_results": "m3connect.evaluation.reports.files:write",
}

__all__ = [
    "MODES",
    "AuthError",
    "CheckpointError",
    "CollectionInfo",
    "CollectionNotFound",
    "CollectionSchema",
    "Compression",
    "ConfigError",
    "Connector",
    "ConnectorError",
    "Dataset",
    "Document",
    "Embeddings",
    "Encoder",
    "Explanation",
    "F",
    "Filter",
    "Fingerprint",
    "FingerprintMismatch",
    "Hit",
    "InputError",
    "InvalidFilter",
    "M3ConnectError",
    "M3Encoder",
    "Mode",
    "PermanentError",
    "Query",
    "RecordBatch",
    "RequestTooLarge",
    "Result",
    "Rrf",
    "SchemaMismatch",
    "TextHits",
    "TransientError",
    "Unsupported",
    "Weighted",
    "connect",
    "copy",
    "evaluate",
    "evaluate_live",
    "explain",
    "ingest",
    "load_dataset",
    "load_reranker",
    "parse",
    "read_results",
    "reembed",
    "rollback",
    "search",
    "search_async",
    "search_many",
    "search_many_async",
    "train",
    "verify",
    "write_results",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'm3connect' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
