"""What training a model of bge-m3's size takes, by stage of the paper: tokens, memory of a card, hours.

    python benchmarks/train_plan.py [--cards 8] [--rate 20000] [--threads 1]

The recipes of `examples/training` as they are, planned by `m3connect train --dry-run` for a random
checkpoint of bge-m3's shape (24 layers, 1024 wide, 8192 tokens), on texts that are drawn: of each range of
lengths as many as one batch takes, so each range is a batch in as many; with your own texts the shares are yours.
The steps are the paper's, of the last stage, of which it does not tell them, 10,000; the batches are those
of one card in the paper, times the cards here. ``--rate`` is what a card does in a second: a dry run on that card
without ``--rate`` measures it. The last row is such a measurement, on this machine's CPU, with 64 tokens a text.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from checkpoint import make_checkpoint

from m3connect.training.recipe import PAPER_EDGES, PAPER_SIZES, read_recipe

RECIPES = Path(__file__).parents[1] / "examples" / "training"
NEGATIVES = 7
STEPS = 10_000  # of the last stage


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cards", type=int, default=8)
    parser.add_argument("--rate", type=float, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(
        f"| stage | steps | tokens, billions | memory of a card, GiB | hours, {options.cards} cards at "
        f"{options.rate:,.0f} tokens/s |\n|---|---|---|---|---|"
    )
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(folder / "model", layers=24, width=1024, heads=16, max_length=8192)
        masked = ["--processes", str(options.cards), "--rate", str(options.rate)]
        write(
            folder / "texts.jsonl",
            texts(read_recipe(RECIPES / "retromae.toml").sizes, options.cards),
        )
        row("retromae", dry_run("retromae", folder, *masked))
        write(folder / "pairs.jsonl", pairs(PAPER_SIZES["paper-pairs"], options.cards, 0))
        row("pairs", dry_run("pairs", folder, *masked))
        write(
            folder / "train.jsonl", pairs(PAPER_SIZES["paper-finetune"], options.cards, NEGATIVES)
        )
        row("unified", dry_run("unified", folder, *masked, "--set", f"optimizer.steps={STEPS}"))
        write(folder / "train.jsonl", [example(64, at, 1) for at in range(8)])
        short = ["batching.passage_length=64", "batching.query_length=32", "batching.sizes=4"]
        short += ["batching.negatives=1", "run.precision=no"]
        found = dry_run("unified", folder, *(each for key in short for each in ("--set", key)))
        print(
            f"\nmeasured on this CPU, {options.threads} thread(s): {found['rate']:.1f} tokens a second"
        )


def dry_run(stage: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `m3connect train --dry-run --json` tells of a recipe."""
    model = "model" if stage == "retromae" else "model.name"
    command = [sys.executable, "-m", "m3connect", "train", str(RECIPES / f"{stage}.toml")]
    command += ["--dry-run", "--json", "--set", f"{model}={folder / 'model'}"]
    command += ["--set", f"data_directory={folder}", "--set", f"output={folder / 'run'}"]
    command += ["--set", "optimizer.epochs=1000000"]  # it is the steps that end the run
    done = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def row(stage: str, found: dict[str, Any]) -> None:
    """One line of the table."""
    memory = {name: size / 2**30 for name, size in found["memory"].items()}
    parts = ", ".join(f"{name} {size:.1f}" for name, size in memory.items())
    print(
        f"| {stage} | {found['steps']:,} | {found['tokens'] / 1e9:,.1f} | {sum(memory.values()):.0f}: {parts} | "
        f"{found['seconds'] / 3600:,.0f} |",
        flush=True,
    )


def texts(sizes: Sequence[int], cards: int) -> Iterator[dict[str, Any]]:
    """Of each range of lengths two batches: a step accumulates 16 in all."""
    for edge, size in zip(PAPER_EDGES, sizes, strict=True):
        for at in range(2 * size * cards):
            yield {"text": words(edge, at)}


def pairs(sizes: Sequence[int], cards: int, negatives: int) -> Iterator[dict[str, Any]]:
    """Of each range of lengths a batch."""
    for edge, size in zip(PAPER_EDGES, sizes, strict=True):
        for at in range(size * cards):
            yield example(edge, at, negatives)


def example(length: int, at: int, negatives: int) -> dict[str, Any]:
    """A short query and passages that are nearly as long as their range allows."""
    passages = [words(length, f"{at}.{other}") for other in range(1 + negatives)]
    return {"query": words(24, at), "pos": passages[:1], "neg": passages[1:]}


def words(length: int, name: object) -> str:
    """A text of its own of about so many tokens, and no more."""
    return f"{length}.{name}" + " the" * (length - 16)


def write(path: Path, rows: Sequence[dict[str, Any]] | Iterator[dict[str, Any]]) -> None:
    """As JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in rows)


if __name__ == "__main__":
    main()
