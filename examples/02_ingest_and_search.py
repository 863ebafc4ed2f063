"""Ingest a folder into an embedded Qdrant and search it in every mode.

Run: python examples/02_ingest_and_search.py [FOLDER]
"""

import sys
from pathlib import Path

from m3connect import M3Encoder, connect, ingest, search
from m3connect.searching.names import MODES

folder = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parents[1] / "docs")
encoder = M3Encoder.load("m3-mini")

with connect("qdrant", collection="handbook") as handbook:
    report = ingest(folder, encoder, handbook)
    print(f"read {report.read}, unchanged {report.unchanged}, passages {report.chunks}")

    for mode in MODES:
        print(f"\n{mode}")
        question = "what happens when a run is interrupted?"
        for hit in search(handbook, encoder, question, mode=mode, limit=3):
            text = " ".join(hit.text.split())
            print(f"  {hit.score:.3f}  {hit.document_id}  {text[:70]}")
