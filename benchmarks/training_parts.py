"""What the parts of the recipe are worth: `examples/training/ablation.toml`, one change a row, on one CPU core.

    OMP_NUM_THREADS=1 python benchmarks/training_parts.py run DATA runs/ablation --seed 1
    python benchmarks/training_parts.py table runs/ablation

``DATA`` holds the recipe's train and development sets, one folder each in the BEIR layout. Every row of a seed
learns from the same pairs: of each train set so many queries as the recipe says, and their passages. What
the frozen layers make of these is computed once and kept in memory; a seed takes eight gigabytes.
Rows that are there already are not run again; ``--rows`` names some of them; seeds can run beside each
other. Development figures are those of one sample for all rows and seeds. ``table`` prints what the
logs of all rows say: nDCG@10, of two seeds their mean and half their difference.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from m3connect.datasets import beir
from m3connect.datasets.write import small_copy
from m3connect.searching.names import MODES
from m3connect.trainer import measure
from m3connect.training.frozen import FrozenStates
from m3connect.training.log import LOG_NAME, read_log
from m3connect.training.loop import train
from m3connect.training.measuring import make_evaluate
from m3connect.training.recipe import Recipe, read_recipe
from m3connect.training.trainable import load_trainable

RECIPES = Path(__file__).parents[1] / "examples" / "training"
ALONE = "objective.self_distill_from="
UNTRAINED, MINED, PRETRAINED = "untrained start", "mined negatives", "RetroMAE first"
ROWS = {
    UNTRAINED: [ALONE, "optimizer.steps=0", "batching.neighbours=1"],
    "full recipe": [],
    "no self-distillation": [ALONE],
    MINED: [
        "batching.neighbours=1",
        "batching.negatives=1",
        "objective.self_distill_from=85",  # a fifth of fewer steps
    ],
    "dense alone": [ALONE, 'objective.legs=["dense"]'],
    "sparse alone": [ALONE, 'objective.legs=["sparse"]'],
    "multi-vector alone": [ALONE, 'objective.legs=["multivector"]'],
    "random in-batch negatives": ["batching.neighbours=1"],
    PRETRAINED: ["model.start=checkpoint"],
}
MINED_SHARE = 0.67
"""Of the queries: two passages each are nearly as many tokens."""


def main() -> None:
    """Run rows, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("data", type=Path)
    runs.add_argument("output", type=Path)
    runs.add_argument("--seed", type=int, required=True)
    runs.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    runs.set_defaults(call=lambda given: Rows(given.data, given.output, given.seed).run(given.rows))
    printed = commands.add_parser("table")
    printed.add_argument("output", type=Path)
    printed.set_defaults(call=lambda given: print(table(given.output)))
    given = parser.parse_args()
    given.call(given)


class Rows:
    """The rows of one seed.

    Args:
        data: the sets.
        output: of all seeds.
        seed: of the draw of pairs and of the runs.
    """

    def __init__(self, data: Path, output: Path, seed: int) -> None:
        self.data = data
        self.folder = output / f"seed-{seed}"
        self.seed = seed
        self.recipe = RECIPES / "ablation.toml"
        self.frozen = FrozenStates()
        self.pools = [self._pool(table.path, table.examples) for table in self._plan().data]
        plan = self._plan().model_copy(update={"output": self.folder, "seed": 0})
        self.evaluate = make_evaluate(plan, measure)

    def run(self, names: Sequence[str]) -> None:
        """The rows that are not there yet, in the order of the table: the last needs states of its own."""
        for name in sorted(names, key=list(ROWS).index):
            if _measured(_row(self._output(name))):
                continue
            started = [f"model.name={self._pretrained()}"] if name == PRETRAINED else []
            data = [self._mined(pool) for pool in self.pools] if name == MINED else self.pools
            plan = self._plan(f"output={self._output(name)}", *_paths(data), *ROWS[name], *started)
            if name == PRETRAINED:  # of frozen layers that have moved
                self.frozen = FrozenStates()
            folder = train(plan, evaluate=self.evaluate, frozen=self.frozen)
            if name == UNTRAINED:  # nothing is measured in a run without steps
                self._measure(folder)
            print(f"seed {self.seed}: {name}: {_row(self._output(name))}", flush=True)

    def _measure(self, folder: Path) -> None:
        """The figures of a model into its run's log."""
        assert self.evaluate
        figures = self.evaluate(load_trainable(str(folder)))
        line = {"step": 0, "tokens": 0} | {f"dev_{mode}": value for mode, value in figures.items()}
        (folder.parent / LOG_NAME).write_text(json.dumps(line) + "\n", encoding="utf-8")

    def _output(self, name: str) -> Path:
        return _folder(self.folder, name)

    def _plan(self, *overrides: str) -> Recipe:
        plan = read_recipe(
            self.recipe, [f"data_directory={self.data}", f"seed={self.seed}", *overrides]
        )
        assert isinstance(plan, Recipe)
        return plan

    def _pool(self, name: str, queries: int | None) -> Path:
        """The pairs of a train set that this seed learns from."""
        pool = self.folder / "pairs" / name
        assert queries, f"{name}: the recipe must say how many examples"
        small_copy(beir.load(self.data / name), pool, queries=queries, documents=0, seed=self.seed)
        return pool

    def _mined(self, pool: Path) -> Path:
        """Some of a pool's queries with a mined negative each."""
        mined = pool.with_suffix(".jsonl")
        if not mined.is_file():
            queries = round(MINED_SHARE * len(beir.load(pool).queries))
            call = [sys.executable, "-m", "m3connect", "mine", "--dataset", pool, "--output", mined]
            limits = ["--limit-queries", queries, "--seed", self.seed, "--negatives", 1]
            ranks = ["--mode", "dense", "--first", 2, "--last", 30]
            subprocess.run(map(str, [*call, *limits, *ranks]), check=True)
        return mined

    def _pretrained(self) -> Path:
        """The untrained start after RetroMAE on the pairs' passages."""
        self.run([UNTRAINED])
        start = self._output(UNTRAINED)
        output = self._output("retromae")
        if not (output / "last").is_dir():
            texts = json.dumps([str(pool.absolute()) for pool in self.pools])
            given = [f"output={output}", f"seed={self.seed}", f"model={start / 'last'}"]
            train(read_recipe(RECIPES / "ablation_retromae.toml", [*given, f"texts={texts}"]))
        return output / "last"


def _folder(seed: Path, name: str) -> Path:
    return seed / name.replace(" ", "-")


def _paths(data: Sequence[Path]) -> list[str]:
    tables = ", ".join(f'{{path="{path.absolute()}"}}' for path in data)
    return [f"data=[{tables}]"]


def _row(output: Path) -> dict[str, float]:
    """Tokens and figures of a run: of all lines of its log, the last word on each."""
    merged: dict[str, float] = {}
    for line in read_log(output / LOG_NAME):
        merged |= line
    figures = {mode: merged[f"dev_{mode}"] for mode in MODES if f"dev_{mode}" in merged}
    return {"tokens": merged.get("tokens", 0), **figures}


def _measured(row: dict[str, float]) -> bool:
    """Whether a run came to its end, where it is measured."""
    return len(row) > 1


def table(output: Path) -> str:
    """The rows of all seeds as Markdown."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for name in ROWS:
        for seed in sorted(output.glob("seed-*")):
            row = _row(_folder(seed, name))
            if _measured(row):
                found[name].append(row)
    head = ["row", "seeds", "tokens each", *MODES]
    lines = [head, ["---"] * len(head)]
    for name, rows in found.items():
        tokens = f"{mean(row['tokens'] for row in rows):,.0f}"
        cells = [_cell([row[mode] for row in rows if mode in row]) for mode in MODES]
        lines.append([name, str(len(rows)), tokens, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figures: Sequence[float]) -> str:
    """
    >>> _cell([0.5, 0.52]), _cell([0.5]), _cell([])
    ('0.510 ± 0.010', '0.500', '')
    """
    if len(figures) < 2:
        return "".join(f"{figure:.3f}" for figure in figures)
    return f"{mean(figures):.3f} ± {(max(figures) - min(figures)) / 2:.3f}"


if __name__ == "__main__":
    main()
