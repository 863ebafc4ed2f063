"""Tensors of all processes, with the exact gradient.

Each process scores its own queries against everyone's passages. A passage's gradient is then the sum
over all processes' losses: going back through :func:`gather` adds them up, and the mean that data
parallelism takes over processes makes it the gradient of the mean loss, as with one process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor


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
        found = [torch.empty_like(tensor) for _ in range(processes())]
        dist.all_gather(found, tensor.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
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


def highest(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers."""
    if processes() == 1:
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that processes may hold in parts; then each of them must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _lengthened(tensor: Tensor) -> Tensor:
    missing = highest(tensor.shape[1], tensor.device) - tensor.shape[1]
    return F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing))
