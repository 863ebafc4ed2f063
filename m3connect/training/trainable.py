"""What is trained: a checkpoint as a model that can learn, and the model back as a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from m3connect.errors import ConfigError
from m3connect.model.checkpoint import Checkpoint, open_checkpoint, read_tokenizer, weights_hash
from m3connect.model.config import M3Config
from m3connect.model.hub import resolve
from m3connect.model.m3 import M3Model
from m3connect.model.packed import PackedTensors
from m3connect.model.saving import save_m3
from m3connect.model.weights import load_model, read_stored
from m3connect.training.distributed import whole
from m3connect.training.lora import check_lora, merged
from m3connect.training.recipe import LoraTable, ModelTable, Recipe
from m3connect.types import LEGS, Leg


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model in training.

    Args:
        model: in float32.
        tokenizer: the checkpoint's.
        folder: where the checkpoint lies; its tokenizer file goes into ours.
        lora: its adapters, if it has any.
    """

    model: M3Model
    tokenizer: Tokenizer
    folder: Path
    lora: LoraTable | None = None

    @property
    def config(self) -> M3Config:
        """The model's."""
        return self.model.config


def open_trainable(recipe: Recipe) -> Trainable:
    """The model that a recipe starts from; heads that start anew have no meaning yet.

    Raises:
        ConfigError: the name is unknown, or the recipe asks for what this checkpoint cannot give.
        CheckpointError: a file is missing, broken or misshapen.
    """
    if recipe.lora:
        check_lora()
    table = recipe.model
    checkpoint = open_checkpoint(resolve(table.name), table.name)
    if table.dropout is not None:
        checkpoint = replace(checkpoint, config=_with_dropout(checkpoint.config, table.dropout))
    model = _base(checkpoint) if table.start == "base" else load_model(checkpoint)
    layers = checkpoint.config.body.num_hidden_layers
    if table.frozen_layers > layers:
        raise ConfigError(
            f"frozen_layers = {table.frozen_layers}: {table.name} has {layers} layers"
        )
    width = table.multivector_width
    if width is not None and width > model.config.multivector_width:
        raise ConfigError(
            f"multivector_width = {width} is wider than the head's {model.config.multivector_width}"
        )
    dense = checkpoint.config.dense_width
    if any(narrow > dense for narrow in recipe.objective.matryoshka):
        raise ConfigError(
            f"matryoshka = {list(recipe.objective.matryoshka)}: the dense vector has {dense} values"
        )
    return Trainable(model, read_tokenizer(checkpoint.path)[0], checkpoint.path, recipe.lora)


def load_trainable(name: str) -> Trainable:
    """A checkpoint as it is.

    Raises:
        ConfigError: the name is unknown.
        CheckpointError: a file is missing, broken or misshapen.
    """
    checkpoint = open_checkpoint(resolve(name), name)
    return Trainable(load_model(checkpoint), read_tokenizer(checkpoint.path)[0], checkpoint.path)


def _with_dropout(config: M3Config, rate: float) -> M3Config:
    rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
    return config.model_copy(update={"body": config.body.model_copy(update=rates)})


def _base(checkpoint: Checkpoint) -> M3Model:
    """A packed checkpoint without its trained part."""
    stored = read_stored(checkpoint)
    if not isinstance(stored, PackedTensors):
        raise ConfigError(
            f'start = "base": {checkpoint.path} has no trained part of its own; use "checkpoint"'
        )
    width = checkpoint.config.body.hidden_size
    model = M3Model(checkpoint.config.model_copy(update={"multivector_width": width}))
    base = PackedTensors(stored.base, {})
    model.backbone.load_state_dict({name: torch.tensor(base[name]) for name in base})
    return model


def freeze(model: M3Model, table: ModelTable, legs: tuple[Leg, ...]) -> None:
    """Keep from learning what the recipe freezes, and the heads that no loss reaches."""
    backbone, heads = model.backbone, model.heads
    if table.frozen != "nothing":
        backbone.embeddings.requires_grad_(requires_grad=False)
    if table.frozen == "encoder":
        backbone.requires_grad_(requires_grad=False)
    for layer in list(backbone.encoder["layer"].children())[: table.frozen_layers]:
        layer.requires_grad_(requires_grad=False)
    of_leg: dict[Leg, nn.Module] = {
        "sparse": heads.sparse_linear,
        "multivector": heads.colbert_linear,
    }
    for leg in set(LEGS) - set(legs) - {"dense"}:
        of_leg[leg].requires_grad_(requires_grad=False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("the recipe freezes everything that its legs would train")


def recompute_layers(model: M3Model) -> None:
    """Gradient checkpointing: only every layer's input stays in memory."""
    for layer in model.backbone.encoder["layer"].children():
        layer.forward = partial(recomputed, layer.forward, use_reentrant=False)


def gathered(trainable: Trainable) -> Trainable:
    """A copy in one piece, on the CPU, of a model whose weights lie with several processes.

    Every process must call this. The copy has no adapters: they are part of its matrices.
    """
    model = M3Model(trainable.config)
    model.load_tensors(_merged_tensors(trainable))
    return Trainable(model, trainable.tokenizer, trainable.folder)


def _merged_tensors(trainable: Trainable) -> dict[str, Tensor]:
    tensors = {
        name: whole(tensor).detach().cpu() for name, tensor in trainable.model.tensors().items()
    }
    return merged(tensors, trainable.lora) if trainable.lora else tensors


def save_trainable(trainable: Trainable, folder: Path) -> None:
    """Write the model as a checkpoint in our own layout; adapters become part of its matrices."""
    tensors = _merged_tensors(trainable)
    config = trainable.config.retrained(weights_hash(tensors))
    save_m3(config, tensors, trainable.folder, folder)
