"""An incremental job with deletes: what changed is encoded, what is gone leaves the collection.

Run: python examples/etl/incremental.py
Needs: pip install "m3connect[qdrant]"

Two ways, by what the source can tell. A snapshot: give the whole source and prune; nothing that is
unchanged is encoded. A change log: give the rows that changed, and delete those that are gone by id.
"""

import tempfile

from m3connect import M3Encoder, connect, ingest
from m3connect.ingestion import delete_documents

encoder = M3Encoder.load("m3-mini")
monday = [{"id": f"a{n}", "text": f"Article {n} about keys.", "year": 2020 + n} for n in range(20)]

with (
    tempfile.TemporaryDirectory() as folder,
    connect("qdrant", collection="articles", path=folder) as articles,
):
    report = ingest(monday, encoder, articles, source_name="cms")
    print(f"first run: {report.written} written")

    # A snapshot: a1 is gone, a2 has another text, a3 other metadata, a20 is new. Pruning deletes
    # documents of its own source only, and at most a tenth of them: an empty export harms nothing.
    tuesday = [row for row in monday if row["id"] != "a1"]
    tuesday += [{"id": "a20", "text": "Article 20 about backups.", "year": 2026}]
    tuesday[1] = {**tuesday[1], "text": "Article 2, rewritten."}
    tuesday[2] = {**tuesday[2], "year": 1999}
    report = ingest(tuesday, encoder, articles, source_name="cms", prune=True)
    print(
        f"snapshot: {report.written} written, {report.pruned} pruned, {report.unchanged} unchanged"
    )
    print(f"of the written, {report.metadata_only} without being encoded")

    # A change log: a4 was updated, a5 and a6 were deleted.
    report = ingest([{**monday[4], "text": "Newer."}], encoder, articles, source_name="cms")
    gone = delete_documents(articles, ["a5", "a6"])
    print(f"change log: {report.written} written, {gone} passages deleted")
    print("documents now:", articles.count())
