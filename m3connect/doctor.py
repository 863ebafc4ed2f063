"""What works on this machine, and what to do about what does not."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from m3connect.contract import Connector, Encoder
from m3connect.errors import CollectionNotFound, M3ConnectError
from m3connect.filters import EVERY_TENANT
from m3connect.types import LEGS

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part.

    Args:
        name: of the part.
        status: ``note`` asks for attention, ``problem`` for a change.
        detail: what was found, and what to do about it.
    """

    name: str
    status: Status
    detail: str


def examine(load: Callable[[], Encoder], connect: Callable[[], Connector]) -> Iterator[Finding]:
    """Look at Python, the inference backends, a model and a collection, one after the other.

    Args:
        load: gives the encoder; its errors are findings.
        connect: gives the connector, likewise.
    """
    yield from examine_software()
    yield from examine_model(load)
    yield from examine_collection(connect)


def examine_software() -> Iterator[Finding]:
    """Versions, and the devices of torch."""
    yield Finding("m3connect", "ok", version("m3connect"))
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("onnxruntime", "ok", version("onnxruntime"))
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        pip = 'pip install "m3connect[torch]"'
        yield Finding("torch", "note", f"not installed; for GPUs and training: {pip}")
        return
    try:
        import torch
    except (ImportError, OSError) as error:  # a library that it needs is missing, or another one's
        yield Finding("torch", "problem", f"{torch_version} cannot be imported: {error}")
        return
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield Finding("torch", "ok", f"{torch_version}; devices: {', '.join(devices) or 'cpu only'}")


def examine_model(load: Callable[[], Encoder]) -> Iterator[Finding]:
    """What a model is, and how it is computed."""
    try:
        encoder = load()
        tokens = int(encoder.encode(["m3connect"], kind="query").n_tokens[0])
    except M3ConnectError as error:
        yield Finding("model", "problem", str(error))
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


def examine_collection(connect: Callable[[], Connector]) -> Iterator[Finding]:
    """What a database does itself, and what its collection holds."""
    try:
        connector = connect()
    except M3ConnectError as error:
        yield Finding("target", "problem", str(error))
        return
    with connector:
        try:
            info = connector.describe()
        except CollectionNotFound:
            yield _engine(connector.capabilities.engine)
            hint = f"does not exist yet; m3connect ingest PATH --collection {connector.collection} makes it"
            yield Finding("collection", "note", f"{connector.collection!r} {hint}")
        except M3ConnectError as error:
            yield Finding("target", "problem", str(error))
            return
        else:
            yield _engine(info.engine)
            made = info.schema.fingerprint
            by = f"made by {made.model}" if made else "without a fingerprint"
            passages = connector.count(EVERY_TENANT)
            yield Finding(
                "collection",
                "ok",
                f"{connector.collection!r}: {passages} passages, {', '.join(info.schema.legs)}, {by}",
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
            f"{name} {value:,}"
            for name, value in asdict(can.limits).items()
            if isinstance(value, int)
        )
        yield Finding("limits", "ok", limits)


def _engine(engine: str) -> Finding:
    return Finding("target", "ok", f"{engine} reachable")
