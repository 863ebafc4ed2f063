"""Polars -> Parquet -> ingest: clean the rows where that is fast, keep them, and ingest the file.

Run: python examples/etl/polars_to_parquet.py
Needs: pip install "m3connect[qdrant]" polars

The file in between is worth its disk: what is in the collection can be told from it, ingested again
with another model, or written to another database.
"""

import tempfile
from pathlib import Path

import polars as pl

from m3connect import M3Encoder, connect, ingest, search

rows = pl.DataFrame(
    {
        "id": [1, 2, 2, 3],
        "text": ["  Keys are rotated every ninety days. ", "Backups run at two.", "old", ""],
        "version": [1, 2, 1, 1],
        "team": ["security", "platform", "platform", "platform"],
    }
)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "articles.parquet")
    clean = (
        rows.lazy()
        .with_columns(pl.col("text").str.strip_chars())
        .filter(pl.col("text") != "")
        .sort("version", descending=True)
        .unique("id", keep="first", maintain_order=True)
    )
    clean.sink_parquet(path)  # streams: the frame need not fit into memory

    encoder = M3Encoder.load("m3-mini")
    with connect("qdrant", collection="articles", path=str(Path(folder, "db"))) as articles:
        report = ingest(str(path), encoder, articles, index_fields={"team": "keyword"})
        print(f"{report.written} written, {report.failed} failed")
        for hit in search(articles, encoder, "when do backups run?", limit=1):
            print(hit.document_id, hit.text)
