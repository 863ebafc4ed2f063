"""What ingestion costs a document while the collection grows, without a model: rate, memory, second looks.

    python benchmarks/ingest.py [--targets qdrant milvus elasticsearch none] [--docs 10000 100000]
        [--elasticsearch-url URL]

Each row is a process of its own. Documents are of 100 characters, words are their tokens, and instead of a
forward pass each passage gets vectors that are drawn by its text: 64 wide, 8 terms, 4 token vectors. So what
is left is what ingestion itself and the database cost.

- documents/s: until all are acknowledged and the database was flushed; ``writing`` until the last was
  acknowledged, without the engine's own work at the end, which indexes what is new.
- processor time a document: of this process, the embedded engine in it included.
- own: the peak of this process's anonymous memory; mapped: of the files that an embedded engine maps,
  whose pages the system takes back when it needs them (Linux).
- nothing changed: 10,000 of the documents once more, in seconds of wall and of processor time.
- an update: one changed document, from the call until it can be found; median of ten, and processor time.

Progress is told on stderr every half a minute, with the processor time a document since the last line.

Qdrant and Milvus are the embedded engines; without a URL an Elasticsearch node of the tests is started.
``none`` forgets what is written to it: its memory is what ingestion itself holds, without an engine.
"""

import argparse
import itertools
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from databases import heading, place, server
from tokenizers import Tokenizer

from m3connect import Document, Embeddings, connect, ingest
from m3connect.contract import ModelInfo
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Fingerprint, Leg, MultiVectors, RecordBatch, SparseVectors

CORPUS = Path(__file__).parents[1] / "examples" / "data" / "tldr.jsonl"
CHARACTERS = 100
AGAIN = 10_000
WIDTH, TERMS, TOKENS = 64, 8, 4
POOL = 4096
COLUMNS = (
    "target",
    "documents",
    "documents/s",
    "writing, documents/s",
    "processor ms a document",
    "own MiB",
    "mapped MiB",
    "on disk MB",
    "nothing changed, s per 10,000",
    "an update, s",
)


class Drawn:
    """An encoder without a network: words, and small vectors that a text always draws again.

    Args:
        tokenizer: cuts the texts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        made_by = Fingerprint("drawn", "drawn", "words", LEGS, WIDTH, WIDTH, 512, "mean")
        self.info = ModelInfo("drawn", made_by, (1.0, 0.3, 1.0))
        rng = np.random.default_rng(0)
        self._dense = rng.normal(size=(POOL, WIDTH)).astype(np.float32)
        self._terms = np.array(
            [np.sort(rng.choice(30_000, TERMS, replace=False)) for _ in range(POOL)], np.uint32
        )
        tokens = rng.normal(size=(POOL, TOKENS, WIDTH))
        tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
        self._tokens = tokens.astype(np.float16)

    def encode(
        self, texts: Sequence[str], *, kind: str = "passage", legs: Sequence[Leg] = LEGS
    ) -> Embeddings:
        """Vectors by the checksums of the texts."""
        del kind
        drawn = np.array([zlib.crc32(text.encode()) for text in texts], np.int64)
        low, high = drawn % POOL, drawn // POOL % POOL
        dense = (
            self._dense[low] + self._dense[high]
        )  # two of them, so that few texts share a vector
        n = len(texts)
        sparse = SparseVectors(
            np.arange(n + 1, dtype=np.int64) * TERMS,
            self._terms[low].ravel(),
            np.full(n * TERMS, 0.2, np.float32),
        )
        multi = MultiVectors(
            np.arange(n + 1, dtype=np.int64) * TOKENS, self._tokens[high].reshape(-1, WIDTH)
        )
        return Embeddings(
            dense / np.linalg.norm(dense, axis=1, keepdims=True) if "dense" in legs else None,
            sparse if "sparse" in legs else None,
            multi if "multivector" in legs else None,
            np.full(n, TOKENS, np.int32),
            np.zeros(n, np.bool_),
        )


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", default=["qdrant", "milvus", "elasticsearch"])
    parser.add_argument("--docs", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--elasticsearch-url")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.targets[0], options.elasticsearch_url, *options.docs)))
        return
    print(heading(COLUMNS), flush=True)
    for target in options.targets:
        with server(target, options.elasticsearch_url) as url:
            for n in options.docs:
                there = [] if url is None else ["--elasticsearch-url", url]
                command = [sys.executable, __file__, "--one", "--targets", target]
                command += ["--docs", str(n), *there]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                print(f"| {' | '.join(json.loads(done.stdout))} |", flush=True)


def documents(n: int) -> Iterator[Document]:
    """The beginnings of the sample corpus' pages over and over, each with a number of its own."""
    with CORPUS.open(encoding="utf-8") as lines:
        pages = [json.loads(line) for line in lines]
    for at, page in zip(range(n), itertools.cycle(pages), strict=False):
        text = page["text"][:CHARACTERS]
        yield Document(f"{page['id']}-{at}", f"{at}\n{text}", {"lang": page["lang"]})


def measured(target: str, url: str | None, n: int) -> list[str]:
    """The cells of one row."""
    encoder = Drawn(HashEncoder().tokenizer)
    with place(url) as (collection, where, size), Memory() as memory:
        options = {"path": where} if url is None else {"url": where}
        connector = (
            Forgetting(collection=collection)
            if target == "none"
            else connect(target, collection=collection, **options)
        )
        with connector:
            clock = Clock()
            told = Told(target, n, clock, memory)
            report = ingest(documents(n), encoder, connector, progress=told)
            seconds, processor = clock.read()
            assert report.written == n, report
            own, mapped = memory.own, memory.mapped
            row = [target, f"{n:,}", f"{n / seconds:,.0f}", f"{n / told.acknowledged:,.0f}"]
            row += [f"{processor / n * 1e3:.2f}", f"{own:,}", f"{mapped:,}"]
            if target == "none":
                return [*row, "-", "-", "-"]
            clock = Clock()
            again = ingest(documents(min(n, AGAIN)), encoder, connector)
            noticed = [each / min(n, AGAIN) * AGAIN for each in clock.read()]
            assert again.unchanged == min(n, AGAIN), again
            updates = []
            for turn in range(10):
                changed = Document("one", f"A text that changes: {turn}.")
                clock = Clock()
                ingest([changed], encoder, connector)
                updates.append(clock.read())
        bytes_ = size()
    wall, worked = np.median(updates, axis=0)
    return [
        *row,
        f"{bytes_ / 1e6:,.0f}",
        f"{noticed[0]:.2f} ({noticed[1]:.2f})",
        f"{wall:.3f} ({worked:.3f})",
    ]


class Forgetting(MemoryConnector):
    """Takes records, and holds none of them."""

    def upsert(self, batch: RecordBatch) -> None:
        """Nothing is kept."""


class Clock:
    """Seconds of wall and of processor time since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Both."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


class Told:
    """Is told how far a run has come, and says so on stderr every half a minute.

    Args:
        target: of the run.
        n: documents that there are.
        clock: of the run.
        memory: of the process.
    """

    def __init__(self, target: str, n: int, clock: Clock, memory: "Memory") -> None:
        self.acknowledged = 0.0  # seconds until the last document was
        self._target, self._n, self._clock, self._memory = target, n, clock, memory
        self._said = 0, 0.0, 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """As ``m3connect.progress.Progress``."""
        del total
        if stage != "documents":
            return
        wall, processor = self._clock.read()
        self.acknowledged = wall
        before, then, worked = self._said
        if wall - then >= 30 and done > before:
            self._said = done, wall, processor
            each = (processor - worked) / (done - before) * 1e3
            print(
                f"{self._target}: {done:,} of {self._n:,}, {done / wall:,.0f}/s, {each:.2f} processor ms a "
                f"document, {self._memory.own:,} MiB own",
                file=sys.stderr,
                flush=True,
            )


class Memory:
    """The peak of own (anonymous) memory and of mapped files in MiB, looked at all the time."""

    def __enter__(self) -> Self:
        self.own = self.mapped = 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            text = Path("/proc/self/status").read_text(encoding="ascii")
            kibibytes = {
                line.split(":")[0]: int(line.split()[1])
                for line in text.splitlines()
                if line.startswith("Rss")
            }
            self.own = max(self.own, kibibytes["RssAnon"] // 1024)
            self.mapped = max(self.mapped, kibibytes["RssFile"] // 1024)


if __name__ == "__main__":
    main()
