"""Documents into a collection: read, cut, encoded, written, and resumable at any point.

pipeline.py    start here: documents -> admit -> look up -> cut -> encode -> write, on one page;
               steps.py has each step
opening.py     what a source is (paths, tables, dicts, embeddings), and whether the collection fits
listing.py     which files paths stand for: files.py is one, wherever it lies, folders.py those below a
               folder, selection.py which of them (patterns.py: .gitignore)
sources.py     documents of files, formats.py each format (separated.py, row_groups.py;
               m3connect.conversion has those that a library reads)
web.py         pages of the web as files; fetching.py gets one, within limits; sitemaps.py lists of them
tables.py      tables and records in memory; values.py is the one table of conversions
documents.py   documents as a source; encoded.py records that come with their vectors
chunking.py    documents into passages; headings.py where they stand
ledger.py      what the collection holds, and why a run can be killed at any point
seen.py        the ids that a run has come across
losses.py      what documents lose though they do not fail; lines.py a list of a run as JSON lines;
               replaying.py dead letters again
ownership.py   whose a document is, and what a run over one source may replace
sink.py        the only one that writes and counts
restoring.py   a copy of a collection comes back whole; pruning.py what goes again
encoding.py    documents to a Parquet file; planning.py what a run would do; report.py what it did
"""

from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource
from m3connect.ingestion.encoding import EncodeReport, encode_to_parquet, read_lines
from m3connect.ingestion.formats import Fields, Options
from m3connect.ingestion.listing import find
from m3connect.ingestion.losses import LOSSES, Loss, LossReport
from m3connect.ingestion.opening import choose_legs, open_source
from m3connect.ingestion.pipeline import ingest
from m3connect.ingestion.planning import IngestPlan, plan
from m3connect.ingestion.pruning import NotPruned, delete_documents
from m3connect.ingestion.replaying import Replayed, replay
from m3connect.ingestion.report import Failure, IngestReport
from m3connect.ingestion.selection import Remarks, Selection
from m3connect.ingestion.sources import count, read, read_files
from m3connect.ingestion.web import Web

__all__ = [
    "LOSSES",
    "DocumentSource",
    "EncodeReport",
    "EncodedSource",
    "Failure",
    "Fields",
    "IngestPlan",
    "IngestReport",
    "Loss",
    "LossReport",
    "NotPruned",
    "Options",
    "Remarks",
    "Replayed",
    "Selection",
    "Web",
    "choose_legs",
    "count",
    "delete_documents",
    "encode_to_parquet",
    "find",
    "ingest",
    "open_source",
    "plan",
    "read",
    "read_files",
    "read_lines",
    "replay",
]
