"""Training by a recipe with everything that the recipe asks for: where training and evaluation meet.

``m3connect/training`` measures with a callable that it is given; the usual one is made here, of the
encoder and the evaluation, which training itself must not import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from m3connect.errors import ConfigError
from m3connect.progress import Progress, silent
from m3connect.training.recipe import AnyRecipe, read_recipe

if TYPE_CHECKING:
    from m3connect.datasets.beir import Dataset
    from m3connect.searching.names import Mode
    from m3connect.training.frozen import FrozenStates
    from m3connect.training.measuring import Evaluate
    from m3connect.training.trainable import Trainable

_PACKAGES = ("torch", "accelerate", "matplotlib", "jinja2")
"""Of the extra ``training``."""


def train(
    recipe: AnyRecipe | str | Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    frozen: FrozenStates | None = None,
) -> Path:
    """Run a recipe, measure it on its development sets, and write the page of its curves.

    Runs once, or once a process under ``torchrun`` or ``accelerate launch``.

    Args:
        recipe: as :func:`m3connect.training.recipe.read_recipe` gives it, or its file.
        resume: go on from the last checkpoint in the recipe's output folder; see
            :func:`m3connect.training.loop.train` for what may have changed.
        progress: told of every step, in the first process.
        frozen: remembers what frozen layers make of texts: a
            :class:`m3connect.training.frozen.FrozenStates`, for several epochs or runs.

    Returns:
        the folder of the trained model: the best that was measured, else the last. ``report.html``
        lies beside it.

    Raises:
        ConfigError: an extra is missing, or the recipe does not suit the model or the output folder.
        InputError: data or a development set is missing or malformed, or too little for a batch.
        CheckpointError: the model that it starts from cannot be loaded.
        M3ConnectError: the disk is full; the last checkpoint is there.
    """
    check_installed()
    from accelerate import PartialState

    from m3connect.training import log, loop

    plan = read_recipe(Path(recipe)) if isinstance(recipe, str | Path) else recipe
    evaluate = make_evaluate(plan)
    folder = loop.train(plan, evaluate=evaluate, resume=resume, progress=progress, frozen=frozen)
    if PartialState().is_main_process:
        log.write_report(plan)
    return folder


def check_installed() -> None:
    """See that what training needs is installed.

    Raises:
        ConfigError: it is not; prints the pip line.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f'training needs {", ".join(missing)}: pip install "m3connect[training]"')


def make_evaluate(recipe: AnyRecipe) -> Evaluate | None:
    """What measures a recipe's run on its development sets, which are read now; None without any.

    Raises:
        ConfigError: the extra ``eval`` is missing.
        InputError: a set is missing or malformed.
    """
    from m3connect.training import measuring

    if recipe.evaluation:
        from m3connect.evaluation import requires

        requires.check()
    return measuring.make_evaluate(recipe, measure)


def measure(trainable: Trainable, dataset: Dataset, modes: Sequence[Mode]) -> Mapping[str, float]:
    """Mean nDCG@10 by mode of a model on one collection, by exact search.

    Multi-vectors score every document, not the dense leg's candidates: one leg is measured alone.

    Args:
        trainable: the model as it is now.
        dataset: the collection.
        modes: to measure.
    """
    from m3connect.evaluation import run
    from m3connect.inference import M3Encoder
    from m3connect.inference.precision import Choice
    from m3connect.inference.torch_backend import TorchBackend
    from m3connect.searching.modes import PAPER, preset_for

    backend = TorchBackend(trainable.model, Choice("float32", "as trained"))
    encoder = M3Encoder(trainable.config, trainable.tokenizer, "", backend)
    preset = preset_for(encoder.info, PAPER)
    preset = replace(preset, multivector=replace(preset.multivector, pool="everything"))
    result = run.evaluate(dataset, encoder, modes=modes, preset=preset, names=("ndcg@10",))
    return {row.name: float(row.figures["ndcg@10"].mean()) for row in result.rows}
