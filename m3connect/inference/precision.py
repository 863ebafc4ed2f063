"""In which precision the network computes: what was asked for, or the fastest that is sound here.

``auto`` leaves float32 only where both hold: the CPU has instructions that make the precision
faster, and the checkpoint says that its cost in nDCG@10 was measured and is within the bound
(``precisions`` in ``m3.json``; ``docs/precision.md`` has the bound and the figures).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from m3connect.errors import ConfigError
from m3connect.types import Precision

Dtype = Literal["auto", "float32", "float16", "bfloat16", "int8", "int8-7bit"]
INT8 = ("int8", "int8-7bit")

INT8_DOTS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
"""Flags of CPUs that multiply 8-bit integers and add them in 32 bits."""
BFLOAT16_DOTS = ("amx_bf16", "bf16")
"""Flags of CPUs that are faster in bfloat16. ``avx512_bf16`` alone tells nothing: on a Xeon with it bfloat16
took 1.5 times as long as float32 (``docs/precision.md``)."""
_WORTH_NAMING = ("avx2", "avx512f", *INT8_DOTS, "avx512_bf16", *BFLOAT16_DOTS)


@dataclass(frozen=True, slots=True)
class Choice:
    """A precision, and why.

    Args:
        precision: in which the network computes.
        why: for people; ends no sentence.
    """

    precision: Precision
    why: str


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first core, by name in lower case; nothing on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    said: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        said.setdefault(key.strip().lower(), value.strip())
    return said


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of this CPU, in Linux' names; empty where the system does not say."""
    said = _cpuinfo()
    return frozenset(said.get("flags", said.get("features", "")).split())  # x86, ARM


def cpu_name() -> str:
    """The CPU's model and those of its flags that decide a precision, for reports.

    A virtual machine may hide the model; the flags are there in any case.
    """
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    flags = [flag for flag in _WORTH_NAMING if flag in cpu_flags()]
    return f"{name} ({', '.join(flags) or 'no flags known'})"


def cpu_cores() -> list[int]:
    """The cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cpu_count() -> int:
    """How many cores this process may use."""
    return len(cpu_cores()) or os.cpu_count() or 1


def int8_scheme(flags: Collection[str]) -> Precision:
    """``int8``, or ``int8-7bit`` for CPUs where 8 bits would overflow.

    Without such instructions an x86 CPU adds two products in 16 bits: 255 * 127 * 2 does not fit,
    with weights of 7 bits it does.

    >>> int8_scheme({"avx2", "avx_vnni"}), int8_scheme({"avx2"})
    ('int8', 'int8-7bit')
    """
    return "int8" if any(flag in flags for flag in INT8_DOTS) else "int8-7bit"


def on_onnx(
    dtype: str,
    *,
    device: str,
    has_int8: bool,
    measured: Collection[str],
    flags: Collection[str],
) -> Choice:
    """The precision on ONNX Runtime.

    Args:
        dtype: what was asked for.
        device: ``cpu`` or ``cuda``.
        has_int8: whether the checkpoint has a graph in 8 bits.
        measured: the checkpoint's ``precisions``.
        flags: of the CPU.

    Raises:
        ConfigError: ONNX Runtime has no such precision here.

    >>> on_onnx("auto", device="cpu", has_int8=True, measured=["int8"], flags=["amx_int8"])
    Choice(precision='int8', why='the CPU has amx_int8')
    """
    if dtype in ("float16", "bfloat16"):
        raise ConfigError(
            f"ONNX Runtime computes in float32 or int8, not {dtype}; use --backend torch"
        )
    if dtype == "float32":
        return Choice("float32", "as asked for")
    scheme = "int8-7bit" if dtype == "int8-7bit" else int8_scheme(flags)
    if dtype in INT8:
        if device != "cpu":
            raise ConfigError(f"int8 runs on the CPU, not on {device}; use --dtype float32")
        if not has_int8:
            raise ConfigError(
                "this checkpoint has no graph.int8.onnx: make one with `m3connect export MODEL "
                "--format onnx --output DIR`"
            )
        return Choice(scheme, "as asked for")
    if device != "cpu":
        return Choice("float32", f"the default on {device}")
    if not has_int8:
        return Choice("float32", "the checkpoint has no graph.int8.onnx")
    if scheme not in measured:
        return Choice(
            "float32", f"this checkpoint does not list {scheme}, whose cost is unknown or too high"
        )
    dots = next((flag for flag in (*INT8_DOTS, "avx2") if flag in flags), None)
    if dots is None:
        return Choice("float32", "the CPU shows no instructions for int8")
    return Choice(scheme, f"the CPU has {dots}")


def on_torch(
    dtype: str, *, device: str, measured: Collection[str], flags: Collection[str]
) -> Choice:
    """The precision on torch; arguments as for :func:`on_onnx`, ``device`` is a type of torch's.

    Raises:
        ConfigError: torch has no such precision here.

    >>> on_torch("auto", device="cpu", measured=["bfloat16"], flags=["avx2"])
    Choice(precision='float32', why='the CPU shows no instructions for bfloat16')
    """
    if dtype in INT8:
        raise ConfigError(
            f"torch computes in float32, float16 or bfloat16, not {dtype}; use --backend onnx"
        )
    if dtype == "float32":
        return Choice("float32", "as asked for")
    if dtype == "float16":
        return Choice("float16", "as asked for")
    if dtype == "bfloat16":
        return Choice("bfloat16", "as asked for")
    if device != "cpu":
        return Choice("float16", f"the default on {device}")
    dots = next((flag for flag in BFLOAT16_DOTS if flag in flags), None)
    if dots is None:
        return Choice("float32", "the CPU shows no instructions for bfloat16")
    if "bfloat16" not in measured:
        return Choice(
            "float32", "this checkpoint does not list bfloat16, whose cost is unknown or too high"
        )
    return Choice("bfloat16", f"the CPU has {dots}")
