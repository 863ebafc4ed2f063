"""Time and memory of exact search in every mode over a synthetic corpus on disk.

    python benchmarks/evaluation.py [--passages 1000000] [--queries 500] [--width 1024]

Random vectors, written once into a folder for the run. "anonymous MB" is the largest amount of memory
that is not a file mapped from disk (RssAnon), which the system could not take back; Linux only.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

import numpy as np

from m3connect.evaluation import shards
from m3connect.evaluation.offline import OfflineSearch
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.searching.modes import MIRACL
from m3connect.searching.names import MODES
from m3connect.types import Embeddings, MultiVectors, SparseVectors

TERMS, TOKENS, TOKEN_WIDTH, VOCABULARY = 60, 8, 128, 250_002
QUERY_TERMS, QUERY_TOKENS = 8, 16


def embeddings(
    rng: np.random.Generator, n: int, width: int, *, terms: int, tokens: int
) -> Embeddings:
    """Random representations of ``n`` texts; frequent terms are frequent, as in a language."""
    dense = rng.standard_normal((n, width), dtype=np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    picked = np.minimum(rng.zipf(1.2, (n, terms)), VOCABULARY - 1).astype(np.uint32)
    rows = [np.unique(row) for row in picked]
    indptr = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    weights = rng.random(int(indptr[-1]), dtype=np.float32)
    vectors = rng.standard_normal((n * tokens, TOKEN_WIDTH), dtype=np.float32).astype(np.float16)
    return Embeddings(
        dense,
        SparseVectors(indptr, np.concatenate(rows), weights),
        MultiVectors(np.arange(n + 1, dtype=np.int64) * tokens, vectors),
        np.full(n, tokens, np.int32),
        np.zeros(n, np.bool_),
    )


def anonymous_mb() -> float:
    """Memory of this process that is not a mapped file."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024


def main() -> None:
    """Write the corpus, search it in every mode, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--width", type=int, default=1024)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        stored = []
        for start in range(0, options.passages, shards.SHARD_ROWS):
            size = min(shards.SHARD_ROWS, options.passages - start)
            path = Path(folder) / f"{start:09d}.arrow"
            shards.write(path, embeddings(rng, size, options.width, terms=TERMS, tokens=TOKENS))
            stored.append(shards.read(path))
        asked = embeddings(
            rng, options.queries, options.width, terms=QUERY_TERMS, tokens=QUERY_TOKENS
        )
        peak = [anonymous_mb()]
        search = OfflineSearch(
            tuple(f"p{number:09d}" for number in range(options.passages)),
            EmbeddingStore.of(stored),
            asked,
            MIRACL,
            progress=lambda *_: peak.append(max(peak.pop(), anonymous_mb())),
        )
        disk = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
        print(f"{options.passages} passages, {options.queries} queries, {disk:.1f} GB on disk\n")
        print("| mode | seconds | ms a query | anonymous MB |\n|---|---|---|---|")
        for mode in MODES:
            peak[:] = [anonymous_mb()]
            start = time.perf_counter()
            for _ in search.run(mode):
                pass
            took = time.perf_counter() - start
            print(
                f"| {mode} | {took:.1f} | {1000 * took / options.queries:.1f} | {peak[0]:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
