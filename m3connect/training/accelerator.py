"""The machine as accelerate sees it: devices, processes, precision, trackers."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, ProjectConfiguration

from m3connect.errors import ConfigError
from m3connect.training.recipe import AnyRecipe, RunTable

TRACKER_FOLDER = "trackers"
_PROJECT = "m3connect"


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
