"""What a run tells: a line of JSON every few steps, alarms, and at the end one page of curves."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from m3connect.datasets import lines
from m3connect.reporting import charts, pages
from m3connect.training.collate import Texts
from m3connect.training.recipe import AnyRecipe

log = logging.getLogger(__name__)

EMPTY_ALARM = 0.05
"""Share of passages without a lexical term that calls for help."""

LOG_NAME = "log.jsonl"
REPORT_NAME = "report.html"
_CHARTS: Mapping[str, Sequence[str]] = {
    "Loss": ("loss", "integrated", "distilled"),
    "Loss of each part": ("dense", "sparse", "multivector", "encoder", "decoder"),
    "Lexical terms of a passage": ("terms_per_passage",),
    "Share of passages without a lexical term": ("empty_passages",),
    "Gradient norm": ("grad_norm",),
    "Learning rate": ("learning_rate",),
}


class Monitor:
    """Averages what steps report, writes it, and warns.

    Args:
        path: the log; lines are appended. None where another process writes it.
        track: is given the same figures, and the step.
    """

    def __init__(self, path: Path | None, track: Callable[[dict[str, float], int], None]) -> None:
        self.path = path
        self.track = track
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._alarmed = False

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Figures of one batch."""
        for name, value in values.items():
            self._sums[name] += float(value)
            self._counts[name] += 1

    def write(self, step: int, **facts: float) -> None:
        """A line with facts and the means of all that was added since the last."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        if means.get("empty_passages", 0.0) > EMPTY_ALARM and not self._alarmed:
            self._alarmed = True
            log.warning(
                "step %d: %.0f %% of the passages have no lexical term left; the sparse head is "
                'dying. Lower head_learning_rate, start it with sparse_head = "ridge", or raise its '
                "loss weight",
                step,
                100 * means["empty_passages"],
            )
        self._append(step, {**facts, **means})

    def measured(self, step: int, scores: Mapping[str, float]) -> None:
        """A line with development figures."""
        self._append(step, {f"dev_{mode}": score for mode, score in scores.items()})

    def _append(self, step: int, figures: dict[str, float]) -> None:
        self.track(figures, step)
        values = {"step": step, **figures}
        log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")


@torch.no_grad()
def active_terms(weights_NL: Tensor, texts: Texts) -> Tensor:
    """How many terms of each text have a weight above 0, ``[N]``.

    >>> ids = torch.tensor([[0, 7, 7, 9, 2]])
    >>> lexical = (ids > 3)
    >>> texts = Texts(ids, ids >= 0, ids, lexical, lexical)
    >>> active_terms(torch.tensor([[0.0, 0.5, 0.2, 0.1, 0.0]]), texts).tolist()
    [2]
    """
    active = (weights_NL > 0) & texts.lexical
    terms, _ = texts.terms.masked_fill(~active, -1).sort(dim=1)
    first = torch.ones_like(active)
    first[:, 1:] = terms[:, 1:] != terms[:, :-1]
    return (first & (terms >= 0)).sum(1)


def lexical_health(weights_NL: Tensor, texts: Texts) -> dict[str, Tensor]:
    """Active terms a passage, and the share of passages without one."""
    counts = active_terms(weights_NL, texts).float()
    return {"terms_per_passage": counts.mean(), "empty_passages": (counts == 0).float().mean()}


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a log; a run without steps has none.

    Those after the last checkpoint may occur twice; the later ones count.
    """
    if not path.exists():
        return []
    entries = [entry for _, entry in lines.read(path)]
    latest: dict[tuple[float, bool], dict[str, float]] = {
        (entry["step"], "loss" in entry): entry for entry in entries
    }
    return sorted(latest.values(), key=lambda entry: entry["step"])


# ---------------------------------------------------------------------------------------- report


def write_report(recipe: AnyRecipe) -> Path:
    """Draw a run's log into ``report.html`` in its output folder; returns the file.

    Raises:
        ConfigError: matplotlib or jinja2 is not installed.
    """
    entries = read_log(recipe.output / LOG_NAME)
    last = next((entry for entry in reversed(entries) if "loss" in entry), {})
    summary = (
        f"{last.get('step', 0):.0f} steps, {last.get('tokens', 0):,.0f} tokens, "
        f"{last.get('seconds', 0):,.0f} seconds."
    )
    page = pages.page(
        f"Training run {recipe.output.name}",
        summary,
        charts=_curves(entries),
        details={"Recipe": recipe.model_dump_json(indent=2)},
    )
    path = recipe.output / REPORT_NAME
    path.write_text(page, encoding="utf-8")
    return path


def _curves(entries: Sequence[Mapping[str, float]]) -> list[str]:
    """A chart for every group of figures that the log has."""
    development = sorted({name for entry in entries for name in entry if name.startswith("dev_")})
    drawn = []
    for title, names in {**_CHARTS, "nDCG@10 on the development sets": development}.items():
        curves_by_name = {
            name.removeprefix("dev_"): [
                (entry["step"], entry[name]) for entry in entries if name in entry
            ]
            for name in names
        }
        curves_by_name = {name: points for name, points in curves_by_name.items() if points}
        if curves_by_name:
            drawn.append(charts.curves(title, "step", curves_by_name))
    return drawn
