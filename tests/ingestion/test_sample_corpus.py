"""The corpus that the repository ships."""

from collections import Counter
from pathlib import Path

from m3connect.ingestion.sources import read
from m3connect.types import Document

CORPUS = Path(__file__).parents[2] / "examples" / "data" / "tldr.jsonl"


def test_the_sample_corpus_is_sound():
    """A few hundred documents with ids of their own, evenly in eight languages, small."""
    documents = list(read([CORPUS]))
    assert all(isinstance(document, Document) for document in documents)
    assert 300 < len({document.id for document in documents}) == len(documents) < 500
    languages = Counter(document.metadata["lang"] for document in documents)
    assert len(languages) == 8
    assert min(languages.values()) >= 30
    assert CORPUS.stat().st_size < 400_000
