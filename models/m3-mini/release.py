"""Put a training run's result into the package. Users never run this.

    python release.py runs/m3-mini/last [--fusion-weights 1 0.3 1]

The frozen part stays; what the run moved becomes the new ``trained.safetensors``: matrices as 4-bit
differences to the base, everything else in float16 (see ``m3connect.model.packed``).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from m3connect.model import packed, smoothing
from m3connect.model.checkpoint import open_checkpoint, weights_hash
from m3connect.model.config import M3Config
from m3connect.model.weights import load_model
from m3connect.types import FloatArray

TARGET = Path(__file__).parent / "m3connect_m3_mini"
LIMIT = 15_000_000
TRAINED_METADATA = {
    "uint8 [rows, columns / 32, 18]": "a difference to the base's matrix, in the base's blocks",
    "float16": "replaces the base's tensor of that name",
}


def moved(
    base: Mapping[str, NDArray[np.generic]], tensors: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """The tensors that a run changed, and its heads."""
    whole = packed.PackedTensors(base, {})
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in base or not np.array_equal(tensor, whole[name])
    }


def released(
    base: Mapping[str, NDArray[np.generic]],
    tensors: Mapping[str, FloatArray],
    config: M3Config,
    fusion_weights: tuple[float, float, float],
) -> tuple[dict[str, NDArray[np.generic]], M3Config]:
    """The new trained part and the configuration that goes with it."""
    trained = packed.differences(base, moved(base, tensors))
    config = config.model_copy(update={"fusion_weights": fusion_weights})
    return trained, config.retrained(weights_hash({**base, **trained}))


def main() -> None:
    """Write ``trained.safetensors``, ``m3.json`` and ``int8.safetensors``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder with model.safetensors and m3.json")
    parser.add_argument("--into", type=Path, default=TARGET)
    parser.add_argument("--fusion-weights", type=float, nargs=3, default=(1.0, 0.3, 1.0))
    arguments = parser.parse_args()

    target = open_checkpoint(arguments.into).config
    run = open_checkpoint(arguments.run).config
    trained, config = released(
        load_file(arguments.into / "base.safetensors"),
        load_file(arguments.run / "model.safetensors"),
        target.model_copy(update={"multivector_width": run.multivector_width}),
        tuple(arguments.fusion_weights),
    )
    size = sum(tensor.nbytes for tensor in trained.values())
    if size > LIMIT:
        raise SystemExit(f"the trained part has {size:,} bytes, more than {LIMIT:,}")
    save_file(trained, arguments.into / "trained.safetensors", TRAINED_METADATA)
    (arguments.into / "trained.safetensors").chmod(0o644)
    (arguments.into / "m3.json").write_text(config.model_dump_json(indent=2) + "\n")
    smoothing.write(load_model(open_checkpoint(arguments.into)), arguments.into)
    print(f"{len(trained)} tensors, {size:,} bytes, weights {config.weights_hash}")  # noqa: T201


if __name__ == "__main__":
    main()
