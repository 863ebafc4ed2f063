"""Postgres -> dlt -> Qdrant: rows that changed since the last run, with dlt's state and retries.

Run: python examples/etl/postgres_to_qdrant.py postgresql://user:password@host/database
Needs: pip install "m3connect[dlt,qdrant]" "sqlalchemy>=2" "psycopg[binary]"

The table: articles(id, title, body, updated_at). dlt remembers the largest ``updated_at``; a row that
is read twice changes nothing. Rows that were deleted are a matter of incremental.py.
"""

import sys

import dlt
from dlt.sources.sql_database import sql_table

from m3connect.integrations.arrow import Sink
from m3connect.integrations.dlt import destination

articles = sql_table(
    sys.argv[1],
    table="articles",
    incremental=dlt.sources.incremental("updated_at"),
)
sink = Sink("qdrant", "articles", path="qdrant", text_field="body", encoder="m3-mini")
pipeline = dlt.pipeline("articles", pipelines_dir="dlt", destination=destination(sink))
pipeline.run(articles)
print("rows loaded:", pipeline.last_trace.last_normalize_info.row_counts.get("articles", 0))
