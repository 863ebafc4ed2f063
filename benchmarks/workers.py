"""Two worker processes on two cores beside one process on both, and on one.

    python benchmarks/workers.py [--model m3-mini] [--dtype auto] [--texts 300] [--rounds 3]

The texts are those of the sample corpus; the engines take turns, and a figure is the median of its rounds, in
tokens a second of wall time: run it on an idle machine.
"""

import argparse
import json
import statistics
import time
from itertools import islice
from pathlib import Path

from m3connect import M3Encoder
from m3connect.inference.precision import cpu_name

CORPUS = Path(__file__).parents[1] / "examples" / "data" / "tldr.jsonl"
WAYS = {
    "one process, one thread": {"device": "cpu", "threads": 1},
    "one process, both cores": {"device": "cpu", "threads": 2},
    "two workers, a thread each": {"device": "cpu:2", "threads": 1},
}


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with CORPUS.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, options.texts)]
    encoders = {
        name: M3Encoder.load(options.model, dtype=options.dtype, **how)
        for name, how in WAYS.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for encoder in encoders.values():
        encoder.encode(texts[:40])  # the first call is slower than all others
    for _ in range(options.rounds):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            tokens = int(encoder.encode(texts).n_tokens.sum())
            rates[name].append(tokens / (time.perf_counter() - began))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    alone, together, _ = medians.values()
    print(f"{cpu_name()}; {options.model}, {options.texts} texts, {tokens:,} tokens\n")
    print("| | tokens/s | of one thread | of one process on both cores |\n|---|---|---|---|")
    for name, rate in medians.items():
        print(f"| {name} | {rate:,.0f} | {rate / alone:.2f} | {rate / together:.2f} |")


if __name__ == "__main__":
    main()
