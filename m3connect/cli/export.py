"""``m3connect export``: a checkpoint in the layout that another program reads."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated, Literal

import typer

from m3connect.cli.options import Mark, Output

FormatName = Literal[
    "onnx", "m3", "bge-m3", "sentence-transformers", "sentence-transformers-multivector"
]


def export(
    model: Annotated[
        str, typer.Argument(help="Checkpoint: a name such as BAAI/bge-m3, a folder, or m3-mini.")
    ],
    *,
    layout: Annotated[
        FormatName,
        typer.Option(
            "--format",
            help="onnx: for ONNX Runtime, without torch. m3: one safetensors file and m3.json. "
            "bge-m3: the published layout, for FlagEmbedding. sentence-transformers: the dense "
            "vector alone; -multivector: the token vectors alone.",
        ),
    ],
    dtype: Annotated[
        Literal["float32", "int8"] | None,
        typer.Option(
            help="With onnx, the lowest precision that can be run: int8 by default; float32 leaves "
            "its graph out.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        FilePath,
        typer.Option(metavar="FOLDER", help="Folder to write; new or empty."),
        Mark.WRITES,
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", show_default=False)
    ] = None,
    printed: Output,
) -> None:
    """Write a checkpoint in another layout. Needs torch.

    The values are kept, so the export goes on with collections that the original filled.

    - `m3connect export BAAI/bge-m3 --format onnx --output bge-m3-onnx`
    - `m3connect search "keys" --model ./bge-m3-onnx`
    """
    from m3connect.errors import ConfigError
    from m3connect.model.checkpoint import open_checkpoint
    from m3connect.model.hub import resolve

    try:
        from m3connect.model.export import export as write
    except ImportError as error:
        raise ConfigError('exporting needs torch: pip install "m3connect[torch,onnx]"') from error
    checkpoint = open_checkpoint(resolve(model, revision=revision), model)
    write(checkpoint, layout, output, dtype=dtype)
    result = {"model": model, "format": layout, "output": str(output)}
    printed.show(result, f"{model} written to {output} as {layout}")
