"""What ingestion costs beyond encoding, in time and in memory.

Run: python benchmarks/ingest_overlap.py [--docs 1000] [--repeat 3] [--memory 2000 20000]

Time: m3-mini encodes the passages alone, in one call; then what was encoded before is written to an
embedded Qdrant collection; then the same documents are ingested into another. All in turn, best of each, in
seconds of wall time and of processor time. The goal is at most 1.1 of the longer of encoding and writing; where
encoding keeps all cores busy, no less can come out than the processor time of ingestion over that of encoding.
At last one document of that collection is changed ten times: the median from the call until it can be found.

Memory (Linux): the peak of a process that ingests so many documents into embedded Qdrant. Its own memory is what
must not grow; the engine's files are mapped on top, and the system takes those pages back when it needs them.
There the forward pass is left out, since it does not matter and takes hours: the vectors have m3-mini's shapes.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from m3connect import Document, Embeddings, M3Encoder, connect, ingest
from m3connect.contract import Connector, Encoder
from m3connect.ingestion.ledger import Candidate, Stored
from m3connect.ingestion.opening import open_source
from m3connect.ingestion.pipeline import events, prepare
from m3connect.ingestion.report import DeadLetters
from m3connect.ingestion.seen import Seen
from m3connect.ingestion.sink import Sink, Work
from m3connect.types import LEGS, MultiVectors, SparseVectors

CORPUS = Path(__file__).parents[1] / "examples" / "data" / "tldr.jsonl"


class Shapes:
    """m3-mini without its forward pass: real tokens, and vectors of ones in the real shapes."""

    def __init__(self, encoder: Encoder) -> None:
        self.info = encoder.info
        self.tokenizer = encoder.tokenizer

    def encode(self, texts: list[str], *, kind: str = "passage", legs: object = LEGS) -> Embeddings:
        """Everything but the values."""
        del kind, legs
        ids = [np.unique(found.ids) for found in self.tokenizer.encode_batch(list(texts))]
        lengths = np.array([len(found) for found in ids])
        width = self.info.fingerprint.multivector_width
        return Embeddings(
            np.ones((len(ids), self.info.fingerprint.dense_width), np.float32),
            SparseVectors(
                np.cumsum([0, *lengths]),
                np.concatenate(ids).astype(np.uint32),
                np.ones(lengths.sum(), np.float32),
            ),
            MultiVectors(np.cumsum([0, *lengths]), np.ones((lengths.sum(), width), np.float16)),
            lengths.astype(np.int32),
            np.zeros(len(ids), np.bool_),
        )


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--memory", type=int, nargs="*", default=[2000, 20_000])
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(*peak(options.peak_of))
        return
    print("| measured | value |\n|---|---|")
    for n in options.memory:
        command = [sys.executable, __file__, "--peak-of", str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        own, mapped = done.stdout.split()
        print(f"| peak memory, {n} documents | {own} MiB own, {mapped} MiB mapped files |")
    if options.docs:
        found = times(options.docs, options.repeat, options.threads)
        what = f"{found.passages} passages, {found.tokens} tokens: encoding alone"
        print(f"| {what} | {found.encoding} |")
        print(f"| writing alone, to embedded Qdrant | {found.writing} |")
        print(f"| ingestion | {found.ingestion} |")
        longer = max(found.encoding.wall, found.writing.wall)
        print(f"| ingestion / the longer of both | {found.ingestion.wall / longer:.3f} |")
        ratio = found.ingestion.processor / found.encoding.processor
        print(f"| processor time of ingestion / of encoding | {ratio:.3f} |")
        print(f"| an update of one document of {found.changed} tokens | {found.update:.3f} s |")


def documents(n: int) -> Iterator[Document]:
    """The sample corpus over and over, each document with a name of its own."""
    with CORPUS.open(encoding="utf-8") as lines:
        pages = [json.loads(line) for line in lines]
    for at, page in zip(range(n), itertools.cycle(pages), strict=False):
        yield Document(f"{page['id']}-{at}", f"{at}\n{page['text']}", {"lang": page["lang"]})


@dataclass(frozen=True, order=True)
class Seconds:
    """Of wall time, then of processor time, this program's on all cores."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.processor:.2f} s)"


def clock() -> Seconds:
    """Now."""
    return Seconds(time.perf_counter(), time.process_time())


def since(start: Seconds) -> Seconds:
    """What passed."""
    now = clock()
    return Seconds(now.wall - start.wall, now.processor - start.processor)


@dataclass(frozen=True)
class Times:
    """The best of each; ``update`` is a median in seconds. And how much was encoded."""

    encoding: Seconds
    writing: Seconds
    ingestion: Seconds
    update: float
    passages: int
    tokens: int
    changed: int


def times(n: int, repeat: int, threads: int | None) -> Times:
    """Encode alone, write alone, do both; then update one document."""
    encoder = M3Encoder.load("m3-mini", threads=threads)
    source = open_source(documents(n), encoder)
    with Seen() as seen:
        made = [
            event for event in events(source, LEGS, seen, nothing_stored) if isinstance(event, Work)
        ]
    texts = [chunk.encoded for each in documents(n) for chunk in source.chunker.chunks(each)]
    encoding, writing, ingestion = [], [], []
    for _ in range(repeat):
        start = clock()
        tokens = int(encoder.encode(texts).n_tokens.sum())
        encoding.append(since(start))
        with tempfile.TemporaryDirectory() as folder, open_target(folder) as target:
            prepare(source, target, LEGS, {})
            start = clock()
            with Sink(target, DeadLetters()) as sink:
                sink.write(made)
            target.flush()
            writing.append(since(start))
        with tempfile.TemporaryDirectory() as folder, open_target(folder) as target:
            start = clock()
            ingest(documents(n), encoder, target)
            ingestion.append(since(start))
            changed, update = updated(encoder, target)
    return Times(min(encoding), min(writing), min(ingestion), update, len(texts), tokens, changed)


def updated(encoder: Encoder, target: Connector) -> tuple[int, float]:
    """Tokens of a document that is changed ten times, and the median of seconds until it is in."""
    document = max(documents(100), key=lambda each: len(each.text))
    seconds = []
    for turn in range(10):
        changed = replace(document, text=f"{document.text}\nChanged: {turn}.")
        start = time.perf_counter()
        report = ingest([changed], encoder, target)
        seconds.append(time.perf_counter() - start)
    return report.tokens, statistics.median(seconds)


def nothing_stored(asked: Sequence[Candidate]) -> Future[list[Stored]]:
    """What an empty collection holds of documents."""
    answer: Future[list[Stored]] = Future()
    answer.set_result([Stored()] * len(asked))
    return answer


def peak(n: int) -> tuple[int, int]:
    """This process's largest own memory and mapped files, in MiB, ingesting ``n`` documents."""
    encoder = Shapes(M3Encoder.load("m3-mini"))
    done = threading.Event()
    largest = [0, 0]

    def watch() -> None:
        while not done.wait(0.05):
            largest[:] = map(max, largest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder, open_target(folder) as target:
        ingest(documents(n), encoder, target)
    done.set()
    watcher.join()
    return largest[0], largest[1]


def resident() -> tuple[int, int]:
    """MiB of own (anonymous) memory and of mapped files, as Linux tells."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kibibytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return int(kibibytes["RssAnon"]) // 1024, int(kibibytes["RssFile"]) // 1024


def open_target(folder: str) -> Connector:
    """An embedded Qdrant collection."""
    return connect("qdrant", collection="benchmark", path=folder)


if __name__ == "__main__":
    main()
