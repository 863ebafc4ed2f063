"""Filters in both forms, and what the fusions do.

Run: python examples/03_filters_and_fusion.py
"""

from functools import partial

from m3connect import Document, F, Hit, M3Encoder, Rrf, Weighted, connect, ingest, search
from m3connect.filters import parse

encoder = M3Encoder.load("m3-mini")
documents = [
    Document("ts-999", "Error TS-999: the cache is cold.", {"lang": "en", "year": 2023}),
    Document(
        "ts-100", "Fehler TS-100: der Zwischenspeicher ist voll.", {"lang": "de", "year": 2024}
    ),
    Document(
        "cache", "How to warm up a cold cache.", {"lang": "en", "year": 2021, "tags": ["howto"]}
    ),
    Document("menu", "The cafeteria opens at eight.", {"lang": "en", "year": 2024}),
]

with connect("qdrant", collection="errors", path=":memory:") as errors:
    ingest(documents, encoder, errors)

    def show(title: str, hits: list[Hit]) -> None:
        """One line a hit, with the score of each leg."""
        print(f"\n{title}")
        for hit in hits:
            dense, sparse, late = hit.scores.dense, hit.scores.sparse, hit.scores.multivector
            legs = [f"{score:.3f}" for score in (dense, sparse, late) if score is not None]
            print(f"  {hit.score:.4f}  {hit.payload['document_id']:<8} {' '.join(legs)}")

    question = "TS-999"
    find = partial(search, errors, encoder, leg_scores=True)
    show("weighted sum, the checkpoint's weights", find(question, mode="all"))
    show("more lexical", find(question, fusion=Weighted(1.0, 1.0)))
    show("reciprocal ranks", find(question, fusion=Rrf(k=60)))
    show("late interaction orders the best 3", find(question, mode="all", rerank=3))

    # The same filter twice: in Python and as text.
    in_python = (F("lang") == "en") & (F("year") >= 2021) & ~F("tags").exists()
    as_text = parse('lang == "en" and year >= 2021 and not tags exists')
    assert in_python == as_text
    show("filtered", find("cold cache", filter=in_python))
