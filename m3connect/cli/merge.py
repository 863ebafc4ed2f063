"""``m3connect merge``: the weighted mean of checkpoints."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated

import typer

from m3connect.cli.lists import numbers
from m3connect.cli.options import Mark, Output


def merge(
    models: Annotated[
        list[str], typer.Argument(help="Checkpoints: names, folders, or m3-mini; two or more.")
    ],
    *,
    weights: Annotated[
        str,
        typer.Option(
            metavar="W,W,...", help="One a model, in their order, between commas; the sum is 1."
        ),
    ],
    output: Annotated[
        FilePath,
        typer.Option(metavar="FOLDER", help="Folder to write; new or empty."),
        Mark.WRITES,
    ],
    printed: Output,
) -> None:
    """Mix models of one architecture into one. Needs torch.

    A model fine-tuned on your texts forgets some of what it could do. The mean of it and of the
    model that it came from often keeps both; measure a few weights with `m3connect eval`.

    - `m3connect merge BAAI/bge-m3 runs/legal/last --weights 0.3,0.7 --output merged`
    """
    given = numbers("--weights", weights)
    from m3connect.errors import ConfigError
    from m3connect.model.checkpoint import open_checkpoint
    from m3connect.model.hub import resolve

    try:
        from m3connect.model.merging import merge as write
    except ImportError as error:
        raise ConfigError('merging needs torch: pip install "m3connect[torch]"') from error
    write([open_checkpoint(resolve(model), model) for model in models], list(given), output)
    result = {"models": models, "weights": given, "output": str(output)}
    printed.show(result, f"{' and '.join(models)} merged into {output}")
