"""What a search does with the hits it found, as options: the steps of ``searching/refining.py``."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3connect.cli.options import Mark
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.contract import Reranker
    from m3connect.types import Leg

_PANEL = "Hits to answer from"

RerankerName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|URL",
        help="A cross-encoder that scores last: a checkpoint, or a /rerank service.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
    Mark.SERVICE,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refining:
    """Which of the hits are returned, in which order, and with what around them."""

    group_by: Annotated[
        Literal["document"] | None,
        typer.Option(
            help="The best passage of each document alone.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None
    expand: Annotated[
        Literal["nothing", "neighbours", "parent"],
        typer.Option(help="Show what stands around each passage.", rich_help_panel=_PANEL),
    ] = "nothing"
    expand_tokens: Annotated[
        int, typer.Option(help="Tokens of a passage with that.", min=1, rich_help_panel=_PANEL)
    ] = 1024
    highlight: Annotated[
        int, typer.Option(help="Mark so many best sentences.", min=0, rich_help_panel=_PANEL)
    ] = 0
    reranker: RerankerName = None
    min_score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEG=SCORE",
            help="Least score of a leg, such as dense=0.5; repeatable.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    diversity: Annotated[
        float | None,
        typer.Option(
            help="Hits unlike each other: 0 keeps the order, 1 looks at nothing else.",
            min=0,
            max=1,
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None
    pool: Annotated[
        int | None,
        typer.Option(
            help="Hits that these choose from. Default: five times as many.",
            min=1,
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None

    def min_scores(self) -> dict[Leg, float]:
        """``--min-score`` by leg.

        Raises:
            ConfigError: no leg, or no number.
        """
        from m3connect.types import LEGS

        thresholds: dict[Leg, float] = {}
        for given in self.min_score or ():
            name, _, value = given.partition("=")
            leg = next((leg for leg in LEGS if leg == name.strip()), None)
            score = _number(value)
            if leg is None or score is None:
                raise ConfigError(
                    f"--min-score takes LEG=SCORE with {', '.join(LEGS)}, such as dense=0.5; got {given!r}"
                )
            thresholds[leg] = score
        return thresholds


def load_reranker(name: str | None, device: str) -> Reranker | None:
    """The one that ``--reranker`` names.

    Raises:
        ConfigError: an extra is missing, or there is no such model.
    """
    if name is None:
        return None
    from m3connect.inference import reranking
    from m3connect.inference.opening import devices

    return reranking.load_reranker(name, device=devices(device)[0])


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
