"""Tokens a second of encoding on a CPU, beside FlagEmbedding and sentence-transformers.

    python benchmarks/encode.py [--peer-python ENV/bin/python] [--threads 2] [--rounds 3] [--clock cpu]

The same random checkpoint (12 layers, 384 wide, as m3-mini), the same texts; all three outputs, of
sentence-transformers the dense vector alone, for it has no other. Every engine runs in a process of its
own; they take turns, so that another load on the machine meets all of them. Of a busy machine take
``--clock cpu``: seconds of the processor, which waiting does not count against. The peers' environment needs
FlagEmbedding 1.4 and transformers 4, and sentence-transformers with its extras onnx and openvino; an engine
that does not start has a row that says so. FlagEmbedding's default batch of 256 takes minutes, so it runs
once and only on the mixed texts.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from checkpoint import make_checkpoint
from tokenizers import Tokenizer

from m3connect import M3Encoder
from m3connect.inference.precision import cpu_name
from m3connect.model.checkpoint import Checkpoint, read_tokenizer
from m3connect.model.export import export
from m3connect.model.hub import resolve
from m3connect.model.tokenize import TextTokenizer

WORKER = Path(__file__).with_name("encode_worker.py")
QUERY = "how much protein should a woman eat per day"
QUERY_REPEATS = 30


@dataclass(frozen=True)
class Engine:
    """One row of the table.

    Args:
        name: for people.
        kind: what the worker runs.
        batch: batch size, where the engine wants one.
        once: whether it is so slow that it runs once, on the mixed texts.
    """

    name: str
    kind: str
    batch: int = 0
    once: bool = False


OURS = [
    Engine("m3connect, ONNX Runtime, float32", "onnx float32"),
    Engine("m3connect, ONNX Runtime, int8", "onnx int8"),
    Engine("m3connect, torch, float32", "torch float32"),
    Engine("m3connect, torch, bfloat16", "torch bfloat16"),
    Engine("the same, padded (what training runs)", "padded"),
    Engine("its linear layers' products alone", "products"),
]
PEERS = [
    Engine("FlagEmbedding, batch 8", "flagembedding", 8),
    Engine("FlagEmbedding, batch 32", "flagembedding", 32),
    Engine("FlagEmbedding, batch 256 (default)", "flagembedding", 256, once=True),
    Engine("sentence-transformers, ONNX, dense alone, batch 8", "st onnx", 8),
    Engine("sentence-transformers, OpenVINO, dense alone, batch 8", "st openvino", 8),
]
PEER_KINDS = {engine.kind for engine in PEERS}


class Worker:
    """A process that has loaded an engine; ``loaded`` is None if it could not."""

    def __init__(self, python: str, kind: str, folder: Path, threads: int, clock: str) -> None:
        checkpoint = folder / ("published" if kind in PEER_KINDS else "exported")
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "true",
        }
        self.process = subprocess.Popen(
            [python, WORKER, kind, checkpoint, folder / "texts.json", str(threads), clock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        line = self._line()
        self.loaded = float(json.loads(line)) if line else None

    def seconds(self, workload: str, batch: int) -> float:
        """Encode a workload once."""
        assert self.process.stdin is not None
        print(
            json.dumps({"workload": workload, "batch": batch}),
            file=self.process.stdin,
            flush=True,
        )
        if not (line := self._line()):
            raise SystemExit(f"worker ended: {self.process.args}; run it by hand to see why")
        return float(json.loads(line))

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def texts(tokenizer: Tokenizer, *, small: bool) -> dict[str, list[str]]:
    """English-like words in three mixes of lengths."""
    words = [
        piece[1:]
        for piece in (tokenizer.id_to_token(id_) for id_ in range(10_000, 40_000))
        if piece[0] == "\u2581" and piece[1:].isascii() and piece[1:].isalpha() and len(piece) > 3
    ]
    rng, lengths = random.Random(0), np.random.default_rng(0)

    def text(tokens: int) -> str:
        return " ".join(rng.choices(words, k=max(1, tokens - 2)))

    share = 8 if small else 1
    mixed = np.clip(lengths.lognormal(4.7, 0.75, 256 // share), 4, 512).astype(int)
    return {
        "mixed": [text(int(tokens)) for tokens in mixed],
        "uniform 32": [text(32) for _ in range(512 // share)],
        "uniform 512": [text(512) for _ in range(48 // share)],
        "query": [QUERY],
    }


def measure(engine: Engine, worker: Worker, rounds: int, found: dict[str, list[float]]) -> None:
    """One turn of an engine: every workload once, and some queries."""
    for workload in ("mixed",) if engine.once else ("mixed", "uniform 32", "uniform 512"):
        found.setdefault(workload, []).append(worker.seconds(workload, engine.batch))
    if not engine.once:
        repeats = max(1, QUERY_REPEATS // rounds)
        answers = [worker.seconds("query", engine.batch) for _ in range(repeats)]
        found.setdefault("query", []).extend(answers)


def print_table(
    engines: list[Engine],
    workers: dict[str, Worker],
    found: dict[str, dict[str, list[float]]],
    tokens: dict[str, int],
) -> None:
    """Medians, as Markdown."""
    names = ("mixed", "uniform 32", "uniform 512")
    best = min(
        (
            statistics.median(times["mixed"])
            for name, times in found.items()
            if name.startswith("FlagEmbedding") and times
        ),
        default=None,
    )
    print(
        f"| tokens/s | {' | '.join(names)} | mixed, of FlagEmbedding's best "
        "| one query, ms, p50 / p99 | load, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for engine in engines:
        times = found[engine.name]
        if not times:
            print(f"| {engine.name} (did not start) | | | | | | |")
            continue
        cells = [
            f"{tokens[name] / statistics.median(times[name]):,.0f}" if name in times else ""
            for name in names
        ]
        query = percentiles(times["query"]) if "query" in times else ""
        load = f"{workers[engine.kind].loaded:.1f}"
        ratio = f"{best / statistics.median(times['mixed']):.2f}" if best else ""
        print(f"| {engine.name} | {' | '.join(cells)} | {ratio} | {query} | {load} |")


def print_m3_mini(threads: int) -> None:
    """The bundled model: load time and one query."""
    started = time.perf_counter()
    encoder = M3Encoder.load("m3-mini", threads=threads)
    loaded = time.perf_counter() - started
    times = []
    for _ in range(QUERY_REPEATS):
        started = time.perf_counter()
        encoder.encode([QUERY], kind="query")
        times.append(time.perf_counter() - started)
    print(
        f"\nm3-mini on {threads} thread(s): loaded in {loaded:.2f} s, "
        f"one query {percentiles(times)} ms (p50 / p99)"
    )


def percentiles(seconds: list[float]) -> str:
    """Half of the calls and all but a hundredth of them take no longer, in milliseconds."""
    return " / ".join(f"{value * 1e3:.1f}" for value in np.percentile(seconds, [50, 99]))


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter of the environment with FlagEmbedding")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="an eighth of the texts")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="engines by their kind")
    options = parser.parse_args()

    tokenizer = read_tokenizer(resolve("m3-mini"))[0]
    workloads = texts(tokenizer, small=options.small)
    engines = OURS + (PEERS if options.peer_python else [])
    if options.small:  # 32 mixed texts: a batch of 256 is one of 32
        engines = [engine for engine in engines if not engine.once]
    if options.only:
        engines = [engine for engine in engines if engine.kind in options.only]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "texts.json").write_text(json.dumps(workloads))
        config = make_checkpoint(folder / "published", layers=12, width=384, heads=12)
        export(Checkpoint(folder / "published", "bge-m3", config), "onnx", folder / "exported")
        count = TextTokenizer(tokenizer, config, config.max_length)
        lengths = {name: count(each, "passage").lengths for name, each in workloads.items()}
        workers = {
            kind: Worker(
                options.peer_python if kind in PEER_KINDS else sys.executable,
                kind,
                folder,
                options.threads,
                options.clock,
            )
            for kind in dict.fromkeys(engine.kind for engine in engines)
        }
        found: dict[str, dict[str, list[float]]] = {engine.name: {} for engine in engines}
        for turn in range(options.rounds):
            for engine in engines:
                if workers[engine.kind].loaded is not None and not (engine.once and turn):
                    measure(engine, workers[engine.kind], options.rounds, found[engine.name])
        print(f"{cpu_name()}\n")
        print(
            f"{options.threads} thread(s), {options.clock} time, medians of {options.rounds} rounds; "
            "tokens of a text:"
        )
        for name, counted in lengths.items():
            print(f"- {name}: {len(counted)} texts, mean {counted.mean():.0f}, max {counted.max()}")
        print()
        tokens = {name: int(counted.sum()) for name, counted in lengths.items()}
        print_table(engines, workers, found, tokens)
        for worker in workers.values():
            worker.stop()
    if not options.small:
        for threads in sorted({1, options.threads}):
            print_m3_mini(threads)


if __name__ == "__main__":
    main()
