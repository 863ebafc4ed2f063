"""``m3connect doctor``: what works on this machine, and what to do about what does not."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import typer

from m3connect.cli.console import visible
from m3connect.cli.options import ModelChoice, Output, Target
from m3connect.errors import CollectionNotFound, M3ConnectError

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        name: what was looked at.
        status: ``problem`` makes the command fail.
        detail: what was found, and what to do about it.
    """

    name: str
    status: Status
    detail: str


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
    findings = []
    for finding in (
        *_software(),
        *_model(model),
        *_target(where),
    ):
        findings.append(finding)
        if not printed.as_json:
            marks = {"ok": ("ok     ", "green"), "note": ("note   ", "yellow")}
            mark, color = marks.get(finding.status, ("PROBLEM", "red"))
            typer.echo(f"{typer.style(mark, fg=color)} {finding.name}: {visible(finding.detail)}")
    if printed.as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def _software() -> Iterator[Finding]:
    yield Finding("m3connect", "ok", version("m3connect"))
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("onnxruntime", "ok", version("onnxruntime"))
    try:
        found = version("torch")
    except PackageNotFoundError:
        pip = 'pip install "m3connect[torch]"'
        yield Finding("torch", "note", f"not installed; for GPUs and training: {pip}")
        return
    import torch

    devices = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield Finding("torch", "ok", f"{found}; devices: {', '.join(devices) or 'cpu only'}")


def _model(model: ModelChoice) -> Iterator[Finding]:
    try:
        encoder = model.load()
        tokens = int(encoder.encode(["m3connect"], kind="query").n_tokens[0])
    except M3ConnectError as error:
        yield Finding("model", "problem", f"{model.model}: {error}")
        return
    mark = encoder.info.fingerprint
    yield Finding(
        "model",
        "ok",
        f"{encoder.info.name}: {', '.join(mark.legs)}; dense {mark.dense_width}, multi-vector "
        f"{mark.multivector_width} wide, up to {mark.max_length} tokens; encoded {tokens} tokens",
    )
    from m3connect.inference import M3Encoder
    from m3connect.inference.precision import cpu_name

    if isinstance(encoder, M3Encoder):  # a service chooses for itself
        backend = encoder.backend
        yield Finding(
            "precision",
            "ok",
            f"{backend.choice.precision} on {backend.name}, {backend.device}: "
            f"{backend.choice.why}; this CPU: {cpu_name()}",
        )


def _target(where: Target) -> Iterator[Finding]:
    from m3connect.types import LEGS

    try:
        connector = where.open()
    except M3ConnectError as error:
        yield Finding("target", "problem", str(error))
        return
    with connector:
        try:
            info = connector.describe()
        except CollectionNotFound:
            yield _engine(connector.capabilities.engine)
            hint = f"does not exist yet; m3connect ingest PATH --collection {where.collection} makes it"
            yield Finding("collection", "note", f"{where.collection!r} {hint}")
        except M3ConnectError as error:
            yield Finding("target", "problem", str(error))
            return
        else:
            yield _engine(info.engine)
            made = info.schema.fingerprint
            by = f"made by {made.model}" if made else "without a fingerprint"
            yield Finding(
                "collection",
                "ok",
                f"{where.collection!r}: {connector.count()} passages, {', '.join(info.schema.legs)}, {by}",
            )
        can = connector.capabilities
        yield Finding(
            "native",
            "ok",
            f"search {', '.join(sorted(can.legs))}; fusion {', '.join(sorted(can.fusions)) or '-'}"
            f"; MaxSim {'in the engine' if can.maxsim else 'on the client'}",
        )
        if left_out := [leg for leg in LEGS if leg not in can.stores]:
            yield Finding(
                "stores", "note", f"{can.engine} cannot store {', '.join(left_out)} vectors"
            )
        limits = ", ".join(
            f"{name} {value:,}" for name, value in asdict(can.limits).items() if value is not None
        )
        yield Finding("limits", "ok", limits)


def _engine(engine: str) -> Finding:
    return Finding("target", "ok", f"{engine} reachable")
