"""An ETL step: Arrow batches in, embedded records out, nothing ever wholly in memory.

The function ``embed`` is what a Ray Data ``map_batches`` or a Spark ``mapInArrow`` calls; here a
loop over a Parquet file does.

Run: python examples/04_arrow_etl.py
"""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from m3connect import M3Encoder, RecordBatch, connect
from m3connect.contract import CollectionSchema

encoder = M3Encoder.load("m3-mini")


def embed(batch: pa.RecordBatch) -> pa.Table:
    """Add the representation columns to a batch with ``id`` and ``text``."""
    columns = encoder.encode(batch.column("text").to_pylist()).to_arrow()
    table = pa.table(batch)
    for field in columns.schema:
        table = table.append_column(field, columns[field.name])
    return table


def to_records(table: pa.Table) -> RecordBatch:
    """The records that a connector takes."""
    from m3connect import Embeddings

    payloads = table.select(["text", "source"]).to_pylist()
    return RecordBatch(table["id"].to_pylist(), payloads, Embeddings.from_arrow(table))


with tempfile.TemporaryDirectory() as folder:
    # Upstream wrote this file.
    rows = [{"id": f"r{n}", "text": f"record number {n}", "source": "crm"} for n in range(64)]
    path = Path(folder) / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)

    mark = encoder.info.fingerprint
    schema = CollectionSchema(mark.dense_width, True, mark.multivector_width, fingerprint=mark)
    with connect("qdrant", collection="rows", path=":memory:") as collection:
        collection.ensure(schema)
        for batch in pq.ParquetFile(path).iter_batches(batch_size=16):
            collection.upsert(to_records(embed(batch)))
        collection.flush()
        print("records:", collection.count())
