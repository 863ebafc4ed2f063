"""Speed and memory of a training step, against the batch: plain, gradient-cached, FlagEmbedding.

    python benchmarks/train.py [--peer-python ENV/bin/python] [--threads 1] [--rounds 3]

The same random checkpoint (4 layers, 256 wide, XLM-R's vocabulary) and the same step: queries of 32
tokens, one passage each, three heads, self-distillation, float32, forward and backward without the
optimizer. Every measurement is a process of its own; ways take turns, and medians are reported.
Memory is the largest the process took beyond the loaded model. Then the largest batch (a power of
two) that a step of 512-token passages does in 4 GB.
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

import torch

from m3connect.model.checkpoint import read_tokenizer
from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.hub import resolve
from m3connect.model.m3 import M3Model
from m3connect.model.saving import save_published

WORKER = Path(__file__).with_name("train_worker.py")
GIB = 2**30
BUDGET = 4 * GIB
BATCHES = (4, 8, 16, 32)
LENGTH = 128
LONG = 512
LARGEST = 256


def make_checkpoint(folder: Path) -> None:
    """Random weights in the published layout, which both can load."""
    torch.manual_seed(0)
    source = resolve("m3-mini")
    body = BodyConfig(
        model_type="xlm-roberta",
        vocab_size=read_tokenizer(source)[0].get_vocab_size(),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    config = M3Config(
        name="random",
        body=body,
        multivector_width=256,
        max_length=512,
        special_ids=(0, 1, 2, 3),
        weights_hash="random",
    )
    save_published(config, M3Model(config).tensors(), source, folder)


def measure(
    python: str, kind: str, checkpoint: Path, queries: int, length: int, steps: int, threads: int
) -> dict[str, Any] | None:
    """One process; None where it ran out of memory."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [python, WORKER, kind, checkpoint, str(queries), str(length), str(steps)]
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode < 0:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def largest_batch(python: str, kind: str, checkpoint: Path, threads: int) -> str:
    """The largest power of two whose step stays within the budget."""
    batch, fits = 1, 0
    while batch <= LARGEST:
        found = measure(python, kind, checkpoint, batch, LONG, 1, threads)
        if found is None or found["bytes"] > BUDGET:
            return str(fits)
        fits, batch = batch, 2 * batch
    return f"{fits} or more"


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter of the environment with FlagEmbedding")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    pythons = {"plain": sys.executable, "cached": sys.executable}
    if options.peer_python:
        pythons["flagembedding"] = options.peer_python
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        make_checkpoint(checkpoint)
        speeds: dict[tuple[str, int], list[float]] = defaultdict(list)
        memory: dict[tuple[str, int], list[int]] = defaultdict(list)
        for _ in range(options.rounds):
            for batch in BATCHES:
                for kind, python in pythons.items():
                    found = measure(python, kind, checkpoint, batch, LENGTH, 3, options.threads)
                    if found is not None:  # the first step warms up
                        speeds[kind, batch] += [found["tokens"] / s for s in found["seconds"][1:]]
                        memory[kind, batch].append(found["bytes"])
        heads = " | ".join(f"batch {batch}" for batch in BATCHES)
        print(f"| tokens/s; MiB beyond the model, {LENGTH}-token passages | {heads} |")
        print("|---" * (len(BATCHES) + 1) + "|")
        for kind in pythons:
            cells = [
                f"{statistics.median(speeds[kind, batch]):,.0f}; "
                f"{statistics.median(memory[kind, batch]) / 2**20:,.0f}"
                if speeds[kind, batch]
                else "out of memory"
                for batch in BATCHES
            ]
            print(f"| {kind} | {' | '.join(cells)} |")
        print(f"\n| | largest batch in 4 GiB, {LONG}-token passages |\n|---|---|")
        for kind, python in pythons.items():
            print(f"| {kind} | {largest_batch(python, kind, checkpoint, options.threads)} |")


if __name__ == "__main__":
    main()
