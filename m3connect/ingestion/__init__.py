"""Documents into a collection: read, cut, encoded, written, and resumable at any point."""

from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.embedded import EmbeddedSource
from m3connect.ingestion.estimate import estimate
from m3connect.ingestion.pipeline import ingest, open_source
from m3connect.ingestion.report import Failure, IngestEstimate, IngestReport

__all__ = [
    "DocumentSource",
    "EmbeddedSource",
    "Failure",
    "IngestEstimate",
    "IngestReport",
    "estimate",
    "ingest",
    "open_source",
]
