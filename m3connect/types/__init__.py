"""The values that flow through m3connect. All are frozen; the hot path is columnar.

vectors.py      Embeddings of a batch of texts; columns.py: as Arrow and back
tokens.py       token vectors as bytes
compression.py  what is kept of embeddings
fingerprint.py  which model made a collection
identifiers.py  names that the tokenizer cut, as terms
records.py      Document, Chunk (a passage), RecordBatch
query.py        Query, the fusions, Hit, Highlight
"""

from m3connect.types.compression import Compression
from m3connect.types.fingerprint import FORMAT_VERSION, Fingerprint, LongMode, Precision
from m3connect.types.query import Fusion, Highlight, Hit, LegScores, Query, Rrf, Weighted
from m3connect.types.records import (
    BOOKKEEPING,
    PASSAGE_FIELDS,
    Chunk,
    Document,
    Payload,
    RecordBatch,
    encoded_text,
    shown,
    stored_text,
)
from m3connect.types.tokens import TokenDtype
from m3connect.types.vectors import (
    LEGS,
    Embeddings,
    FloatArray,
    Leg,
    MultiVectors,
    SparseVector,
    SparseVectors,
    TokenArray,
)

__all__ = [
    "BOOKKEEPING",
    "FORMAT_VERSION",
    "LEGS",
    "PASSAGE_FIELDS",
    "Chunk",
    "Compression",
    "Document",
    "Embeddings",
    "Fingerprint",
    "FloatArray",
    "Fusion",
    "Highlight",
    "Hit",
    "Leg",
    "LegScores",
    "LongMode",
    "MultiVectors",
    "Payload",
    "Precision",
    "Query",
    "RecordBatch",
    "Rrf",
    "SparseVector",
    "SparseVectors",
    "TokenArray",
    "TokenDtype",
    "Weighted",
    "encoded_text",
    "shown",
    "stored_text",
]
