"""An ETL step: Arrow batches in, embedded records out, nothing ever wholly in memory.

``encode_batch`` is what a Ray Data ``map_batches`` or a Spark ``mapInArrow`` calls, and a ``Sink`` can be
pickled and sent to workers; here a loop over a Parquet file does both. What lands in the collection is
what ``m3connect ingest`` makes of the same file, so a batch that is retried changes nothing.

Run: python examples/04_arrow_etl.py
"""

import pickle
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from m3connect import M3Encoder, connect
from m3connect.integrations.arrow import Sink, encode_batch

encoder = M3Encoder.load("m3-mini")

with tempfile.TemporaryDirectory() as folder:
    # Upstream wrote this file.
    rows = [{"id": f"r{n}", "text": f"record number {n}", "source": "crm"} for n in range(64)]
    path = Path(folder) / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)

    database = str(Path(folder) / "qdrant")
    sent = pickle.dumps(Sink("qdrant", "rows", encoder=None, path=database))

    with pickle.loads(sent) as sink:  # noqa: S301 - our own; in a worker, where it connects
        for batch in pq.ParquetFile(path).iter_batches(batch_size=16):
            passages = encode_batch(batch, encoder)  # on the machine with the accelerator
            print("written:", sink.write(passages).written)
            print("a retry writes:", sink.write(passages).written)

    with connect("qdrant", collection="rows", path=database) as collection:
        print("records:", collection.count())
