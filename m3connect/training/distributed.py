"""The machine as accelerate sees it, and tensors of all processes with the exact gradient.

Each process scores its own queries against everyone's passages. A passage's gradient is then the sum
over all processes' losses: going back through :func:`gather` adds them up, and the mean that data
parallelism takes over processes makes it the gradient of the mean loss, as with one process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, ProjectConfiguration
from torch import Tensor

from m3connect.errors import ConfigError
from m3connect.training.recipe import AnyRecipe, RunTable

TRACKER_FOLDER = "trackers"
_PROJECT = "m3connect"

# ------------------------------------------------------------------------------------ tensors


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is."""
    return dist.get_rank() if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    """Concatenation over processes; its gradient is summed over processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        received = [torch.empty_like(tensor) for _ in range(processes())]
        dist.all_gather(received, tensor.contiguous())  # sync point; [N, ...] -> [W * N, ...]
        return torch.cat(received)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)  # sync point: the sum over all processes' losses
        start = rank() * ctx.rows
        return gradient[start : start + ctx.rows]


def gather(tensor: Tensor, *, length_axis: bool = False) -> Tensor:
    """The rows of all processes, in their order.

    Args:
        tensor: ``[N, ...]``, with the same N on every process.
        length_axis: whether axis 1 differs among processes; shorter ones are filled with zeros.
    """
    if processes() == 1:
        return tensor
    if length_axis:
        tensor = _lengthened(tensor)
    if tensor.dtype == torch.bool:  # not every backend sends truth values
        return gather(tensor.to(torch.uint8)).bool()
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


@contextmanager
def idle_cores() -> Iterator[None]:
    """This process may use the cores of those of this machine that wait for it."""
    threads, waiting = torch.get_num_threads(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads * waiting)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def highest(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers."""
    if processes() == 1:
        return number
    largest = torch.tensor(number, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that processes may hold in parts; then each of them must call this."""
    # A DTensor; to import its class only to ask would cost every training half a second.
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def _lengthened(tensor: Tensor) -> Tensor:
    missing = highest(tensor.shape[1], tensor.device) - tensor.shape[1]
    return F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing))


# ------------------------------------------------------------------------------------ the machine


def make_accelerator(recipe: AnyRecipe) -> Accelerator:
    """On a machine without accelerators, processes share the work only if told that CPUs do it.

    Raises:
        ConfigError: the machine cannot do what the recipe's ``run`` table asks for.
    """
    run, on_cpu = recipe.run, not torch.accelerator.is_available()
    _check_trackers(run)
    if on_cpu and run.precision == "fp16":  # accelerate would say nothing and stay in float32
        raise ConfigError('run.precision = "fp16" needs a GPU: set "bf16" or "no"')
    folder = str(recipe.output / TRACKER_FOLDER)
    try:
        accelerator = Accelerator(
            mixed_precision=run.precision,
            cpu=on_cpu,
            log_with=list(run.trackers) or None,
            project_config=ProjectConfiguration(logging_dir=folder),
        )
    except ValueError as error:
        raise ConfigError(f'run.precision = "{run.precision}": {error}') from error
    _check_sharding(accelerator)
    return accelerator


def _check_sharding(accelerator: Accelerator) -> None:
    """accelerate leaves a model whole where it cannot shard it, and says nothing."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true" or accelerator.is_fsdp2:
        return
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ConfigError("sharding goes by FSDP's second version: add --fsdp_version 2")
    raise ConfigError("accelerate shards a model over several GPUs only: leave out --use_fsdp")


def _check_trackers(run: RunTable) -> None:
    available = [str(tracker) for tracker in get_available_trackers()]
    for tracker in run.trackers:
        if tracker not in available:
            package = '"m3connect[tensorboard]"' if tracker == "tensorboard" else tracker
            raise ConfigError(f"run.trackers: {tracker} is not installed: pip install {package}")


def start_trackers(accelerator: Accelerator, recipe: AnyRecipe) -> None:
    """Open the recipe's trackers, and give them the recipe as hyper-parameters."""
    if recipe.run.trackers:
        values = flat(recipe.model_dump(mode="json"))
        accelerator.init_trackers(_PROJECT, values)


def flat(values: Any, name: str = "") -> dict[str, Any]:
    """Tables as ``table.key``, lists as JSON; trackers take neither.

    >>> flat({"seed": 1, "run": {"keep": 2}, "edges": [8, 32]})
    {'seed': 1, 'run.keep': 2, 'edges': '[8, 32]'}
    """
    if isinstance(values, dict):
        parts = [flat(value, f"{name}.{key}" if name else key) for key, value in values.items()]
        return {key: value for part in parts for key, value in part.items()}
    return {name: json.dumps(values) if isinstance(values, list) else values}
