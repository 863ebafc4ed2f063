"""Speed and memory of a training step, against the batch: plain, gradient-cached, FlagEmbedding.

    python benchmarks/train.py [--peer-python ENV/bin/python] [--threads 1] [--rounds 2]
        [--batches 4 8 16 32] [--length 128] [--long 512] [--largest 128] [--limit-gib 8]

The same random checkpoint (4 layers, 256 wide, XLM-R's vocabulary) and the same step: queries of 32
tokens, one passage each, three heads, self-distillation, float32, forward and backward without the
optimizer. Every measurement is a process of its own; ways take turns, and medians are reported.
Memory is the largest the process took beyond the loaded model; no process may take more than the
limit. Then the largest batch (a power of two) that a step of long passages does in 4 GiB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from checkpoint import make_checkpoint

WORKER = Path(__file__).with_name("train_worker.py")
GIB = 2**30
BUDGET = 4 * GIB
STEPS = 3

NAMES = {
    "plain": "m3connect, plain",
    "cached": "m3connect, gradient cache",
    "flagembedding": "FlagEmbedding",
}


class Ways:
    """The ways to train, each with its interpreter.

    Args:
        pythons: interpreter by way.
        checkpoint: that all load.
        threads: of each process.
    """

    def __init__(self, pythons: dict[str, str], checkpoint: Path, threads: int) -> None:
        self.pythons = pythons
        self.checkpoint = checkpoint
        self.threads = threads

    def measure(
        self, way: str, queries: int, length: int, steps: int, limit: int
    ) -> dict[str, Any] | None:
        """One process; None where it would take more than ``limit`` bytes beyond the model."""
        threads = {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "passive"}
        numbers = [str(number) for number in (queries, length, steps, limit)]
        done = subprocess.run(
            [self.pythons[way], str(WORKER), way, str(self.checkpoint), *numbers],
            capture_output=True,
            text=True,
            env=os.environ | threads,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        found: dict[str, Any] | None = json.loads(done.stdout)
        return found

    def largest_batch(self, way: str, length: int, largest: int) -> str:
        """The largest power of two whose step stays within the budget."""
        batch, fits = 1, 0
        while batch <= largest:
            found = self.measure(way, batch, length, 1, BUDGET)
            if found is None or found["bytes"] > BUDGET:
                return str(fits)
            fits, batch = batch, 2 * batch
        return f"{fits} or more (the search ended there)"


def print_speeds(ways: Ways, options: argparse.Namespace) -> None:
    """Tokens a second and memory of every way and batch, as Markdown."""
    speeds: dict[tuple[str, int], list[float]] = defaultdict(list)
    memory: dict[tuple[str, int], list[int]] = defaultdict(list)
    limit = int(options.limit_gib * GIB)
    for _ in range(options.rounds):
        for batch in options.batches:
            for way in ways.pythons:
                found = ways.measure(way, batch, options.length, STEPS, limit)
                if found is not None:  # the first step warms up
                    speeds[way, batch] += [found["tokens"] / s for s in found["seconds"][1:]]
                    memory[way, batch].append(found["bytes"])
    heads = " | ".join(f"batch {batch}" for batch in options.batches)
    print(f"| tokens/s; MiB beyond the model, {options.length}-token passages | {heads} |")
    print("|---" * (len(options.batches) + 1) + "|")
    for way in ways.pythons:
        cells = [
            f"{statistics.median(speeds[way, batch]):,.0f}; "
            f"{statistics.median(memory[way, batch]) / 2**20:,.0f}"
            if speeds[way, batch]
            else f"over {options.limit_gib:g} GiB"
            for batch in options.batches
        ]
        print(f"| {NAMES[way]} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter of the environment with FlagEmbedding")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--length", type=int, default=128, help="tokens of a passage")
    parser.add_argument("--long", type=int, default=512, help="the same, for the largest batch")
    parser.add_argument("--largest", type=int, default=128, help="batch where the search ends")
    parser.add_argument("--limit-gib", type=float, default=8.0, help="beyond the model")
    options = parser.parse_args()

    pythons = {"plain": sys.executable, "cached": sys.executable}
    if options.peer_python:
        pythons["flagembedding"] = options.peer_python
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        make_checkpoint(checkpoint, layers=4, width=256, heads=4)
        ways = Ways(pythons, checkpoint, options.threads)
        print(f"{options.threads} thread(s), medians of {options.rounds} rounds\n")
        print_speeds(ways, options)
        print(f"\n| | largest batch in 4 GiB, {options.long}-token passages |\n|---|---|")
        for way in pythons:
            largest = ways.largest_batch(way, options.long, options.largest)
            print(f"| {NAMES[way]} | {largest} |", flush=True)


if __name__ == "__main__":
    main()
