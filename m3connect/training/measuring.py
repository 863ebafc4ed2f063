"""Development figures during a run: small copies of the recipe's collections, measured on the way.

Training knows neither encoders nor evaluation. What measures a model on one collection is given to it
(:mod:`m3connect.trainer` has the one that is usually meant).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from m3connect.datasets import beir
from m3connect.datasets.beir import Dataset
from m3connect.datasets.write import small_copy
from m3connect.searching.names import Mode
from m3connect.training.recipe import AnyRecipe
from m3connect.training.trainable import Trainable

Measure = Callable[[Trainable, Dataset, Sequence[Mode]], Mapping[str, float]]
"""Mean nDCG@10 by mode of a model on one collection."""
Evaluate = Callable[[Trainable], Mapping[str, float]]
"""Mean nDCG@10 by mode over all development sets."""


def make_evaluate(recipe: AnyRecipe, measure: Measure) -> Evaluate | None:
    """What a recipe's ``[evaluation]`` table asks for; None without one.

    The collections are read now, so that a mistake ends the run before its first step, and copied at
    the first measurement, so that the one process that measures is the one that writes.

    Args:
        recipe: names the collections, and how much of them is taken.
        measure: of one collection.

    Raises:
        InputError: a collection is missing or malformed.
    """
    if recipe.evaluation is None:
        return None
    table, modes = recipe.evaluation, recipe.measured
    whole: dict[str, Dataset] = {}
    for number, name in enumerate(table.datasets, start=1):
        copied = Path(name).name  # two may end alike, such as a/dev and b/dev
        copied = f"{copied}-{number}" if copied in whole else copied
        whole[copied] = beir.load(recipe.data_directory / name)

    @cache
    def small() -> list[Dataset]:
        size = f"{table.queries}-of-{table.documents}"  # a resumed run may ask for another
        return [
            small_copy(
                dataset,
                recipe.output / "development" / size / name,
                queries=table.queries,
                documents=table.documents,
                seed=recipe.seed,
            )
            for name, dataset in whole.items()
        ]

    def evaluate(trainable: Trainable) -> Mapping[str, float]:
        figures = [measure(trainable, dataset, modes) for dataset in small()]
        return {mode: float(np.mean([each[mode] for each in figures])) for mode in figures[0]}

    return evaluate
