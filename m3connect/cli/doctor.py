"""``m3connect doctor``: what works on this machine, and what to do about what does not."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from m3connect.cli.console import visible
from m3connect.cli.options import ModelChoice, Output, Target


def doctor(
    *,
    where: Target,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Check Python, the inference backends, the model and the database.

    - `m3connect doctor`
    - `m3connect doctor --target elasticsearch --url http://localhost:9200`
    """
    from m3connect.doctor import examine

    findings = []
    for finding in examine(model.load, where.open):
        findings.append(finding)
        if not printed.as_json:
            marks = {"ok": ("ok     ", "green"), "note": ("note   ", "yellow")}
            mark, color = marks.get(finding.status, ("PROBLEM", "red"))
            typer.echo(f"{typer.style(mark, fg=color)} {finding.name}: {visible(finding.detail)}")
    if printed.as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)
