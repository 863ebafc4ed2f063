"""``m3connect score``: teacher scores for mined training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.lists import leg_weights
from m3connect.cli.options import Mark, ModelChoice, Output

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
    from m3connect.cli.progress import progress_bar
    from m3connect.training_data import teacher

    by: Teacher
    if cross_encoder is not None:
        from m3connect.inference.reranking import CrossEncoder

        by = CrossEncoder(cross_encoder, device=model.device).logits
    else:
        given = leg_weights(weights)
        encoder = model.load()
        by = teacher.own_score(encoder, given or encoder.info.weights)
    with progress_bar() as progress:
        count = teacher.score_file(examples, output, by, progress=progress)
    result = {"scored": count, "output": str(output)}
    printed.show(result, f"{count} examples scored, written to {output}")
