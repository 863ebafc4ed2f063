"""What each rule of cutting brings: nDCG@10 with all of them, and without one.

    python benchmarks/passages.py DATASET ... [--queries 100] [--dtype int8]

Of each collection all, or a part: so many queries (seed 0), and the documents that they judge. The texts are read
as Markdown, so that headings and fences are understood. ``=`` marks what a paired test cannot tell from all rules.
What several ways of cutting give alike is encoded once, and searched once where it is every passage.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock, patch

import numpy as np

from m3connect import Embeddings, M3Encoder
from m3connect.datasets import beir
from m3connect.datasets.write import small_copy
from m3connect.evaluation.measure import Result
from m3connect.evaluation.passages import cut
from m3connect.evaluation.run import evaluate
from m3connect.evaluation.significance import compare
from m3connect.ingestion import chunking
from m3connect.ingestion.chunking import CONTEXT, Chunker
from m3connect.types import LEGS, Chunk, Document

METRIC = "ndcg@10"
MODES = ("dense", "sparse", "multivector", "all")


class Markdown(Chunker):
    """Takes every text for Markdown."""

    def chunks(self, document: Document) -> list[Chunk]:
        """As the chunker's."""
        return super().chunks(replace(document, format="markdown"))


class Once:
    """An encoder that encodes no text twice.

    Args:
        encoder: that does it.
    """

    def __init__(self, encoder: M3Encoder) -> None:
        self.encoder, self.info, self.tokenizer = encoder, encoder.info, encoder.tokenizer
        self._known: dict[tuple[str, str], Embeddings] = {}

    def encode(
        self, texts: Sequence[str], *, kind: str = "passage", legs: object = LEGS
    ) -> Embeddings:
        """All representations, of each text's first time."""
        del legs
        new = [text for text in dict.fromkeys(texts) if (kind, text) not in self._known]
        if new:
            made = self.encoder.encode(new, kind=kind)
            for row, text in enumerate(new):
                self._known[kind, text] = made.take(np.array([row]))
        return Embeddings.concat([self._known[kind, text] for text in texts])


NEVER = Mock(return_value=False)
RULES: dict[str, dict[str, object]] = {
    "nothing": {},
    "joining tiny passages": {"TINY": 1 << 30},
    "joining tiny passages and lone headings": {"TINY": 1 << 30, "_is_bare": NEVER},
    "evening out the rest of a cut paragraph": {"SENTENCE": re.compile("(?!)")},
    "dropping fences and lines of marks": {"_is_marks": NEVER},
    "headings before the passage (`--context none`)": {},
}
"""What of the chunker is another way without each."""


def main() -> None:
    """Print one Markdown table for each collection."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--queries", type=int, help="of a part; default the whole collection")
    parser.add_argument("--dtype", default="int8")
    options = parser.parse_args()
    encoder = Once(M3Encoder.load("m3-mini", dtype=options.dtype))
    for folder in options.datasets:
        dataset = beir.load(folder)
        if options.queries is None:
            table(dataset, encoder)
            continue
        with TemporaryDirectory() as scratch:
            part = Path(scratch, folder.name)
            table(small_copy(dataset, part, queries=options.queries, documents=0), encoder)


def table(dataset: beir.Dataset, encoder: Once) -> None:
    """Print it, a line at a time."""
    print(
        f"\n| {dataset.name}, {len(dataset.ids)} documents, {len(dataset.queries)} queries; without | passages | "
        f"{' | '.join(MODES)} |\n|---|---|{'---|' * len(MODES)}"
    )
    base: dict[str, np.ndarray] = {}
    results: dict[str, Result] = {}
    for rule, changes in RULES.items():
        with patch.dict(vars(chunking), changes):
            chunker = Markdown(encoder, context=() if "--context none" in rule else CONTEXT)
            made = cut(dataset, chunker).content
            if made not in results:
                results[made] = evaluate(
                    dataset, encoder, modes=MODES, names=[METRIC], passages=chunker
                )
        result = results[made]
        cells = []
        for row in result.rows:
            figures = row.figures[METRIC]
            same = row.name in base and compare(figures, base[row.name]).p_value >= 0.05
            cells.append(f"{figures.mean():.3f}{' =' if same else ''}")
            base.setdefault(row.name, figures)
        count = result.settings["passages"]["count"]
        print(f"| {rule} | {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
