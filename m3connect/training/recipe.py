"""A recipe: everything that decides a training run, validated before it starts.

A recipe is a TOML file with the tables below; unknown keys are errors, ``--set table.key=value``
overrides one. Lengths are in tokens, special tokens included.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from m3connect.errors import ConfigError
from m3connect.searching.modes import legs_of
from m3connect.searching.names import ALIASES, MODES, Mode
from m3connect.types import LEGS, Leg

PAPER_EDGES = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)
PAPER_SIZES: dict[str, tuple[int, ...]] = {
    "paper-pairs": (700, 570, 388, 288, 224, 180, 157, 128, 104),
    "paper-finetune": (48, 32, 20, 18, 14, 14, 12, 10, 8),
}
"""Queries per process and batch in table 9 of the M3 paper (96 and 24 processes), by length."""


Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "clearml", "aim"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_ranges(edges: Sequence[int], sizes: int | Sequence[int], longest: int) -> None:
    if not edges or list(edges) != sorted(set(edges)):
        raise ValueError(f"edges {list(edges)} must rise")
    if longest > edges[-1]:
        raise ValueError(f"texts of {longest} tokens are beyond the last of edges, {edges[-1]}")
    numbers = [sizes] if isinstance(sizes, int) else sizes
    if min(numbers) < 1 or (not isinstance(sizes, int) and len(sizes) != len(edges)):
        raise ValueError(f"sizes must be one positive number, or one for each of {list(edges)}")


class ModelTable(_Table):
    """Where training starts and what of it moves.

    Args:
        name: a bundled model, a folder or a hub name.
        start: ``base`` leaves out the trained part of a packed checkpoint (its heads too).
        sparse_head: ``ridge`` starts the lexical head from a ridge regression of the terms' inverse
            document frequency on the token states; no weight starts dead.
        multivector_head: ``identity`` starts the multi-vector head from the token states themselves.
        multivector_width: C; below the head's own width its output is projected onto the principal
            components of token vectors of the training data.
        frozen: the part of the encoder that stays as it is.
        frozen_layers: so many of the lowest layers stay, too.
        dropout: in place of the checkpoint's.
    """

    name: str
    start: Literal["checkpoint", "base"] = "checkpoint"
    sparse_head: Literal["keep", "ridge"] = "keep"
    multivector_head: Literal["keep", "identity"] = "keep"
    multivector_width: int | None = Field(default=None, gt=0)
    frozen: Literal["nothing", "embeddings", "encoder"] = "nothing"
    frozen_layers: int = Field(default=0, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_have_a_start(self) -> Self:
        if self.start == "base" and "keep" in (self.sparse_head, self.multivector_head):
            raise ValueError(
                'start = "base" has no heads: set sparse_head = "ridge" and '
                'multivector_head = "identity"'
            )
        if self.frozen_layers and self.frozen == "nothing":
            raise ValueError('frozen_layers freezes from below: set frozen = "embeddings"')
        return self


class LoraTable(_Table):
    """Adapters in place of the encoder's own weights; see ``lora.py``. The heads learn as a whole.

    Args:
        rank: of the difference that a matrix learns.
        alpha: the difference is multiplied with ``alpha / rank``.
        dropout: of what goes into the adapters.
    """

    rank: int = Field(default=8, gt=0)
    alpha: int = Field(default=16, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DataTable(_Table):
    """One dataset.

    Args:
        path: a file or folder as in ``examples.py``; relative to the recipe's data directory.
        examples: at most so many are drawn in an epoch, evenly over the languages; None for all.
        per_passage: at most so many of an epoch's queries share their positive; None for no limit.
        instruction: put before every query.
    """

    path: str
    examples: int | None = Field(default=None, gt=0)
    per_passage: int | None = Field(default=None, gt=0)
    instruction: str = ""


class BatchingTable(_Table):
    """Which examples make a batch: of one dataset and one range of lengths.

    Args:
        query_length, passage_length: tokens after which texts are cut.
        edges: upper ends of the length ranges; an example's length is that of its longest text.
        sizes: queries per process and batch: one number, one a range, or a table of the paper.
        tokens: in place of ``sizes``: passage tokens per process and batch, padding included.
        negatives: hard negatives a query.
        in_batch: whether other queries' passages are negatives, too.
        across_processes: whether those of other processes are.
        neighbours: queries that lie close together come in groups of so many: their passages make
            hard in-batch negatives without mining. 1 for no grouping.
        shuffle_segments: probability that a positive's segments change places (0.002 in the paper).
        smallest: queries per process that the rest of a range must have to be a batch.
    """

    query_length: int = Field(default=512, gt=2)
    passage_length: int = Field(default=512, gt=2)
    edges: tuple[int, ...] = PAPER_EDGES
    sizes: int | tuple[int, ...] | Literal["paper-pairs", "paper-finetune"] | None = None
    tokens: int | None = Field(default=None, gt=0)
    negatives: int = Field(default=0, ge=0)
    in_batch: bool = True
    across_processes: bool = True
    neighbours: int = Field(default=1, gt=0)
    shuffle_segments: float = Field(default=0.0, ge=0, le=1)
    smallest: int = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if (self.sizes is None) == (self.tokens is None):
            raise ValueError("set either sizes or tokens")
        sizes = PAPER_SIZES[self.sizes] if isinstance(self.sizes, str) else self.sizes
        _check_ranges(self.edges, sizes or 1, max(self.query_length, self.passage_length))
        if not self.in_batch and not self.negatives:
            raise ValueError(
                "in_batch = false with negatives = 0 leaves nothing to tell the positive from"
            )
        return self

    def size(self, bucket: int) -> int:
        """Queries per process and batch in a length range."""
        if self.tokens is not None:
            return max(1, self.tokens // (self.edges[bucket] * (1 + self.negatives)))
        if isinstance(self.sizes, str):
            return PAPER_SIZES[self.sizes][bucket]
        return self.sizes[bucket] if isinstance(self.sizes, tuple) else int(self.sizes or 0)


class ObjectiveTable(_Table):
    """The loss; see ``losses.py``. The defaults are the paper's, and the published code's 0.02.

    Args:
        legs: the representations that are trained.
        temperature: divides every similarity.
        score_weights: of dense, sparse, multivector in the integrated score.
        loss_weights: of dense, sparse, multivector in the loss.
        self_distill_from: the step from which the integrated score teaches the single ones (about
            6,000 in the paper); None for never.
        teacher: how teacher scores of the data are used; ``none`` ignores them.
        teacher_temperature: divides the teacher's scores: 1 for the logits of a cross-encoder, the
            model's own ``temperature`` for a model's own scores, which lie close together.
        matryoshka: the dense vector's first so many values are trained to serve alone, too.
    """

    legs: tuple[Leg, ...] = LEGS
    temperature: float = Field(default=0.02, gt=0)
    score_weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    loss_weights: tuple[float, float, float] = (1.0, 0.1, 1.0)
    self_distill_from: int | None = Field(default=None, ge=0)
    teacher: Literal["none", "kl", "m3"] = "none"
    teacher_temperature: float = Field(default=1.0, gt=0)
    matryoshka: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _legs_suffice(self) -> Self:
        if not self.legs or len(set(self.legs)) != len(self.legs):
            raise ValueError("legs must name each trained representation once")
        if self.self_distill_from is not None and len(self.legs) == 1:
            raise ValueError("one leg alone has no integrated score to learn from")
        if self.matryoshka and "dense" not in self.legs:
            raise ValueError("matryoshka needs the leg dense")
        return self


class OptimizerTable(_Table):
    """AdamW with linear warm-up and decay.

    Args:
        learning_rate: of the encoder.
        head_learning_rate: of the heads; None for the encoder's.
        weight_decay: of the encoder's matrices.
        warmup: share of the steps in which the rate rises.
        clip: largest norm of the gradient.
        epochs: passes over the data.
        steps: stop after so many, or with the epochs if these end earlier; None for all, 0 to start
            the heads only.
        accumulate: batches a step.
    """

    learning_rate: float = Field(gt=0)
    head_learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    epochs: int = Field(default=1, gt=0)
    steps: int | None = Field(default=None, ge=0)
    accumulate: int = Field(default=1, gt=0)


class RunTable(_Table):
    """Memory, precision, and what is written when.

    Args:
        precision: ``no`` is float32.
        sub_batch_tokens: tokens that go through the encoder at once; texts are sorted by length.
        gradient_cache: encode twice, so that activations of one sub-batch are alive at a time.
        gradient_checkpointing: keep only every layer's input, and compute the layer again.
        score_queries: queries whose multi-vector similarities are alive at a time.
        log_every, checkpoint_every: in steps.
        keep: checkpoints that are kept.
        trackers: what goes into the log goes there, too; TensorBoard's files into ``trackers/``.
    """

    precision: Literal["no", "bf16", "fp16"] = "no"
    sub_batch_tokens: int = Field(default=16384, gt=0)
    gradient_cache: bool = True
    gradient_checkpointing: bool = False
    score_queries: int = Field(default=8, gt=0)
    log_every: int = Field(default=10, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    keep: int = Field(default=2, gt=0)
    trackers: tuple[Tracker, ...] = ()


def _one_name(mode: Any) -> Any:
    """``dense+sparse`` is ``hybrid``; what is no mode is left for pydantic to refuse."""
    return ALIASES.get(mode, mode) if isinstance(mode, str) else mode


class EvaluationTable(_Table):
    """Development sets, measured during the run.

    Args:
        datasets: folders in the BEIR layout, relative to the data directory.
        queries: at most so many of each.
        documents: so many of each, the relevant ones among them.
        every: in steps; also at the end.
        mode: whose mean nDCG@10 decides which checkpoint is the best. Default: the last of those
            that the recipe's legs make: ``all``, or the one leg's.
        patience: stop after so many measurements without a better one; None for never.
    """

    datasets: tuple[str, ...] = Field(min_length=1)
    queries: int = Field(default=200, gt=0)
    documents: int = Field(default=1000, gt=0)
    every: int = Field(gt=0)
    mode: Annotated[Mode, BeforeValidator(_one_name)] | None = None
    patience: int | None = Field(default=None, gt=0)


class Recipe(_Table):
    """Contrastive training with one, two or all three representations.

    Args:
        output: folder of the checkpoints, the log and the report.
        data_directory: what the paths of data and evaluation are relative to.
        seed: of everything random.
        lora: adapters; None trains the encoder's own weights.
    """

    stage: Literal["contrastive"] = "contrastive"
    output: Path
    data_directory: Path = Path()
    seed: int = Field(default=0, ge=0)
    model: ModelTable
    lora: LoraTable | None = None
    data: tuple[DataTable, ...] = Field(min_length=1)
    batching: BatchingTable
    objective: ObjectiveTable = ObjectiveTable()
    optimizer: OptimizerTable
    run: RunTable = RunTable()
    evaluation: EvaluationTable | None = None

    @property
    def measured(self) -> tuple[Mode, ...]:
        """Modes whose development figures mean something: of trained legs, and the deciding one."""
        chosen = self.evaluation and self.evaluation.mode
        trained = set(self.objective.legs)
        return tuple(
            mode for mode in MODES if mode in (chosen, *trained) or trained >= {*legs_of(mode)}
        )

    @model_validator(mode="after")
    def _adapters_may_learn(self) -> Self:
        if self.lora and self.model.frozen == "encoder":
            raise ValueError('frozen = "encoder" leaves [lora] nothing to adapt: leave one out')
        return self


class RetroMaeRecipe(_Table):
    """Pre-training of the encoder; see ``retromae.py``.

    Args:
        output, data_directory, seed: as in :class:`Recipe`.
        model: the checkpoint to start from; its heads are left as they are.
        max_length: tokens a text is cut to. Beyond the model's own limit, positions are added.
        texts: files with ``text`` in each record, or folders with a ``corpus.jsonl``.
        edges, sizes: length ranges, and texts per process and batch in each (one number for all).
        encoder_mask, decoder_mask: shares of tokens masked from the encoder and from the decoder.
        vocabulary: among which tokens a hidden one is told; ``seen`` are those that occur in the texts, all of
            which are read before the first step. Where they are a small part of the model's own,
            training takes a fraction of the time.
    """

    stage: Literal["retromae"]
    output: Path
    data_directory: Path = Path()
    seed: int = Field(default=0, ge=0)
    model: str
    max_length: int = Field(default=512, gt=4)
    texts: tuple[str, ...] = Field(min_length=1)
    edges: tuple[int, ...] = PAPER_EDGES
    sizes: int | tuple[int, ...] = 32
    encoder_mask: float = Field(default=0.3, gt=0, lt=1)
    decoder_mask: float = Field(default=0.5, gt=0, lt=1)
    vocabulary: Literal["whole", "seen"] = "whole"
    optimizer: OptimizerTable
    run: RunTable = RunTable()
    evaluation: None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        _check_ranges(self.edges, self.sizes, self.max_length)
        return self

    def size(self, bucket: int) -> int:
        """Texts per process and batch in a length range."""
        return self.sizes[bucket] if isinstance(self.sizes, tuple) else self.sizes


AnyRecipe = Recipe | RetroMaeRecipe


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe.

    Args:
        path: the TOML file, or the JSON of a run's ``recipe.json``.
        overrides: ``table.key=value`` each, the value in TOML, or a bare string; without a value
            the key is left out.

    Raises:
        ConfigError: the file is missing or malformed, a key is unknown or a value makes no sense;
            names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is neither TOML nor JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no tables but {type(content).__name__}")
    for override in overrides:
        _apply(content, override)
    kind = RetroMaeRecipe if content.get("stage") == "retromae" else Recipe
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise ConfigError(f"{path}: {details}") from error


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *tables, name = key.strip().split(".")
    if not equals or not name:
        raise ConfigError(f"--set {override!r}: expected table.key=value")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise ConfigError(f"--set {override!r}: {table!r} is no table")
    if text.strip():
        content[name] = _value(text.strip())
    else:
        content.pop(name, None)


def _value(text: str) -> Any:
    """A TOML value; what is none is a string.

    >>> _value("[1, 2]"), _value("0.5"), _value("m3-mini")
    ([1, 2], 0.5, 'm3-mini')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
