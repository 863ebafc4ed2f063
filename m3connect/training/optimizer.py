"""AdamW with a rate for the encoder and one for the heads; linear warm-up and decay."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from m3connect.model.tensors import HEADS
from m3connect.training.checkpoints import RunState
from m3connect.training.recipe import OptimizerTable


def make_optimizer(module: nn.Module, table: OptimizerTable) -> torch.optim.Optimizer:
    """Everything that may learn; weight decay pulls on matrices only, and not on heads."""
    learning = [item for item in module.named_parameters() if item[1].requires_grad]
    heads = [weight for name, weight in learning if _of_head(name)]
    body = [weight for name, weight in learning if not _of_head(name)]
    matrices = [weight for weight in body if weight.dim() > 1]
    vectors = [weight for weight in body if weight.dim() <= 1]
    rate = table.learning_rate
    groups = [
        {"params": matrices, "lr": rate, "weight_decay": table.weight_decay},
        {"params": vectors, "lr": rate, "weight_decay": 0.0},
        {"params": heads, "lr": table.head_learning_rate or rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]])


def _of_head(name: str) -> bool:
    return any(part in HEADS for part in name.split("."))


def make_schedule(
    optimizer: torch.optim.Optimizer, table: OptimizerTable, state: RunState
) -> LambdaLR:
    """Linear up over ``warmup``, linear down to 0 at the last step."""
    return LambdaLR(optimizer, lambda step: rate_factor(step, state.total, table.warmup))


def rate_factor(step: int, total: int, warmup: float) -> float:
    """What the learning rate is multiplied with in a step, 0 being the first.

    >>> [round(rate_factor(step, 10, 0.2), 3) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.125]
    """
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (total - step) / max(1, total - rising))
