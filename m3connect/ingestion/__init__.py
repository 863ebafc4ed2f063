"""Documents into a collection: read, cut, encoded, written, and resumable at any point."""

from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource, are_encoded
from m3connect.ingestion.encoding import EncodeReport, encode_to_parquet, read_lines
from m3connect.ingestion.estimate import estimate
from m3connect.ingestion.formats import Fields, Options
from m3connect.ingestion.listing import Remarks, Selection, find
from m3connect.ingestion.opening import open_source
from m3connect.ingestion.pipeline import ingest
from m3connect.ingestion.report import Failure, IngestEstimate, IngestReport
from m3connect.ingestion.sources import count, read, read_files

__all__ = [
    "DocumentSource",
    "EncodeReport",
    "EncodedSource",
    "Failure",
    "Fields",
    "IngestEstimate",
    "IngestReport",
    "Options",
    "Remarks",
    "Selection",
    "are_encoded",
    "count",
    "encode_to_parquet",
    "estimate",
    "find",
    "ingest",
    "open_source",
    "read",
    "read_files",
    "read_lines",
]
