"""``m3connect score``: teacher scores for mined training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.options import Mark, ModelChoice, Output, leg_weights
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.training_data.teacher import Teacher


def score(
    examples: Annotated[Path, typer.Argument(help="JSON lines: query, pos, neg.")],
    output: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The same with pos_scores and neg_scores."),
        Mark.WRITES,
    ],
    *,
    cross_encoder: Annotated[
        str | None,
        typer.Option(
            help="A cross-encoder such as BAAI/bge-reranker-v2-m3 is the teacher (needs "
            "sentence-transformers). Default: the model's own combined score.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="D,S,M", help="Of the model's own score. Default: its own.", show_default=False
        ),
    ] = None,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Add a teacher's scores, for knowledge distillation.

    - `m3connect score train.jsonl --output scored.jsonl`
    - `m3connect score train.jsonl --output scored.jsonl --cross-encoder BAAI/bge-reranker-v2-m3`
    """
    from m3connect.training_data import teacher

    by: Teacher
    if cross_encoder is not None:
        by = load_cross_encoder(cross_encoder, model.device)
    else:
        given = leg_weights(weights)
        encoder = model.load()
        by = teacher.own_score(encoder, given or encoder.info.weights)
    unfinished = output.with_name(output.name + ".part")
    count = 0
    with unfinished.open("w", encoding="utf-8") as file:
        for scored in teacher.add_scores(teacher.read(examples), by):
            file.write(json.dumps(scored, ensure_ascii=False) + "\n")
            count += 1
    unfinished.replace(output)
    result = {"scored": count, "output": str(output)}
    printed.show(result, f"{count} examples scored, written to {output}")


def load_cross_encoder(name: str, device: str) -> Teacher:
    """A cross-encoder by name or folder.

    Raises:
        ConfigError: sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise ConfigError(
            f'--cross-encoder needs sentence-transformers ({error}): pip install "m3connect[teacher]"'
        ) from error
    model = CrossEncoder(name, device=None if device == "auto" else device)

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float(value) for value in model.predict(list(pairs), show_progress_bar=False)]

    return score
