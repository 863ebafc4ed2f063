"""Options that several commands share, and what they open. Heavy imports are inside."""

from __future__ import annotations

import json
from collections import abc
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from m3connect.contract import Connector
    from m3connect.inference import M3Encoder
    from m3connect.types import Leg

Target = Annotated[
    str, typer.Option(help="Database: qdrant, milvus, elasticsearch.", rich_help_panel="Target")
]
Url = Annotated[
    str | None,
    typer.Option(
        help="Server address. Without one the embedded engine is used.", rich_help_panel="Target"
    ),
]
Path = Annotated[
    str | None,
    typer.Option(help="Where the embedded engine keeps its data.", rich_help_panel="Target"),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        help="Key or token for the server; better set as M3CONNECT_API_KEY.",
        rich_help_panel="Target",
        show_default=False,
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Further option of the connector as NAME=VALUE; repeatable.", rich_help_panel="Target"
    ),
]
Collection = Annotated[str, typer.Option(help="Collection to use.", rich_help_panel="Target")]
Model = Annotated[
    str,
    typer.Option(
        help="Checkpoint: a name such as BAAI/bge-m3, a folder, or m3-mini (bundled).",
        rich_help_panel="Model",
    ),
]
BackendName = Literal["auto", "onnx", "torch"]
DtypeName = Literal["auto", "float32", "float16", "bfloat16"]
Backend = Annotated[
    BackendName, typer.Option(help="ONNX Runtime or torch.", rich_help_panel="Model")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel="Model")]
Dtype = Annotated[DtypeName, typer.Option(help="Precision.", rich_help_panel="Model")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

DEFAULT_TARGET = "qdrant"
DEFAULT_COLLECTION = "documents"
DEFAULT_MODEL = "m3-mini"


def open_connector(
    target: str,
    collection: str,
    url: str | None,
    path: str | None,
    api_key: str | None,
    target_option: list[str] | None,
) -> Connector:
    """The connector that the options name; nothing is sent yet.

    Raises:
        ConfigError: an unknown target or option.
    """
    from m3connect.connecting.registry import connect, text_options

    given = {"url": url, "path": path, "api_key": api_key}
    options = {name: value for name, value in given.items() if value is not None}
    further = _pairs(target_option or [], text_options(target))
    return connect(target, collection=collection, **options, **further)


def load_encoder(
    model: str,
    backend: BackendName,
    device: str,
    dtype: DtypeName,
    batch_tokens: int | None = None,
    max_length: int | None = None,
) -> M3Encoder:
    """The encoder that the options name.

    Raises:
        CheckpointError: there is no such checkpoint, or it is broken.
        ConfigError: an extra is missing.
    """
    from m3connect.inference import M3Encoder

    return M3Encoder.load(
        model,
        backend=backend,
        device=device,
        dtype=dtype,
        batch_tokens=batch_tokens,
        max_length=max_length,
    )


def parse_legs(modes: str | None) -> tuple[Leg, ...]:
    """``--modes`` as legs; all of them when it was not given.

    >>> parse_legs("multivector, dense")
    ('dense', 'multivector')
    """
    from m3connect.types import LEGS

    named = {part.strip() for part in modes.split(",")} if modes is not None else set(LEGS)
    if not named <= set(LEGS):
        raise typer.BadParameter(f"--modes takes {', '.join(LEGS)}, got {modes!r}")
    return tuple(leg for leg in LEGS if leg in named)


def _pairs(options: list[str], texts: abc.Container[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that reads as JSON is taken as such, but for ``texts``.

    >>> _pairs(["timeout=30", "consistency_level=Strong", "password=30"], {"password"})
    {'timeout': 30, 'consistency_level': 'Strong', 'password': '30'}
    """
    pairs: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected NAME=VALUE, got {option!r}")
        pairs[name] = value if name in texts else _json_or_text(value)
    return pairs


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
