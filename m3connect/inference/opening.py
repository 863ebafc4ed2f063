"""Which backend runs a checkpoint, and on which devices."""

from __future__ import annotations

import re
from typing import Literal, get_args

from m3connect.errors import ConfigError
from m3connect.inference.backend import Backend
from m3connect.inference.precision import INT8, Dtype
from m3connect.model.checkpoint import Checkpoint

BackendName = Literal["auto", "torch", "onnx"]

_LIGHT_DTYPES = ("auto", "float32", *INT8)
"""What ONNX Runtime computes in."""


def open_backend(
    checkpoint: Checkpoint, backend: str, device: str, dtype: str, threads: int | None
) -> Backend:
    """Load the network on one device; arguments as of :meth:`m3connect.M3Encoder.load`.

    Raises:
        ConfigError: an unknown option, or one that is not possible here.
        CheckpointError: a file is missing, broken or misshapen.
    """
    if backend not in get_args(BackendName):
        raise ConfigError(f"backend {backend!r} is none of {get_args(BackendName)}")
    if dtype not in get_args(Dtype):
        raise ConfigError(f"dtype {dtype!r} is none of {get_args(Dtype)}")
    if backend == "auto":
        light = checkpoint.has_graph and device in ("auto", "cpu") and dtype in _LIGHT_DTYPES
        backend = "onnx" if light or dtype in INT8 else "torch"
    if backend == "torch":
        from m3connect.inference.torch_backend import TorchBackend

        return TorchBackend.load(checkpoint, device, dtype, threads)
    from m3connect.inference.onnx_backend import OnnxBackend

    return OnnxBackend(checkpoint, "cpu" if device == "auto" else device, dtype, threads)


def devices(device: str) -> list[str]:
    """The devices that an option names, one for each process.

    Raises:
        ConfigError: it names none, or no number of CPU workers.

    >>> devices("cuda:1"), devices("cuda:0,cuda:1"), devices("cpu:3")
    (['cuda:1'], ['cuda:0', 'cuda:1'], ['cpu', 'cpu', 'cpu'])
    """
    names: list[str] = []
    for name in map(str.strip, device.split(",")):
        count = re.fullmatch(r"cpu:(\d+)", name)
        if not name or (count and int(count[1]) < 1):
            raise ConfigError(
                f"device {device!r}: give one, such as cpu or cuda:1, several with commas between "
                "them, or cpu:4 for four workers"
            )
        names += ["cpu"] * int(count[1]) if count else [name]
    return names
