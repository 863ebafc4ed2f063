"""The run as one page: curves of the losses, of the lexical head's health, of development figures."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from m3connect.errors import ConfigError
from m3connect.training.monitor import LOG_NAME, read_log
from m3connect.training.recipe import AnyRecipe

REPORT_NAME = "report.html"

_CHARTS: Mapping[str, Sequence[str]] = {
    "Loss": ("loss", "integrated", "distilled"),
    "Loss of each part": ("dense", "sparse", "multivector", "encoder", "decoder"),
    "Lexical terms of a passage": ("terms_per_passage",),
    "Share of passages without a lexical term": ("empty_passages",),
    "Gradient norm": ("grad_norm",),
    "Learning rate": ("learning_rate",),
}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px sans-serif; max-width: 60em; margin: 2em auto; }}
pre {{ background: #f4f4f4; padding: 1em; overflow: auto; }} svg {{ width: 100%; height: auto; }}</style>
<h1>{title}</h1>
<p>{summary}</p>
{charts}
<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"""


def write_report(recipe: AnyRecipe) -> Path:
    """Draw a run's log into ``report.html`` in its output folder; returns the file.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    log = read_log(recipe.output / LOG_NAME)
    figures = sorted({name for entry in log for name in entry if name.startswith("dev_")})
    charts = {**_CHARTS, "nDCG@10 on the development sets": figures}
    last = next((entry for entry in reversed(log) if "loss" in entry), {})
    summary = (
        f"{last.get('step', 0):.0f} steps, {last.get('tokens', 0):,.0f} tokens, "
        f"{last.get('seconds', 0):,.0f} seconds."
    )
    page = _PAGE.format(
        title=html.escape(f"Training run {recipe.output.name}"),
        summary=summary,
        charts="\n".join(
            f"<h2>{title}</h2>\n{_chart(log, names)}"
            for title, names in charts.items()
            if any(name in entry for entry in log for name in names)
        ),
        recipe=html.escape(recipe.model_dump_json(indent=2)),
    )
    path = recipe.output / REPORT_NAME
    path.write_text(page, encoding="utf-8")
    return path


def _chart(log: Sequence[Mapping[str, float]], names: Sequence[str]) -> str:
    """Curves over the steps, as SVG."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            'the report needs matplotlib: pip install "m3connect[training]"'
        ) from error
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for name in names:
        points = [(entry["step"], entry[name]) for entry in log if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=name.removeprefix("dev_"))
    axes.set_xlabel("step")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    return drawing.getvalue()[drawing.getvalue().index("<svg") :]
