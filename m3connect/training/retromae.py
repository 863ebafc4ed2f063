"""The RetroMAE task (Xiao et al. 2022, https://arxiv.org/abs/2205.12035), the paper's stage 0.

The encoder sees a text with some tokens hidden and must name them. A decoder of one layer must name
every token from the text's dense state alone and, for each token, a random part of the other tokens'
embeddings: so much is hidden from it that the dense state has to carry the text.

B texts, L tokens, H hidden width, T tokens to be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from m3connect.datasets.lines import Records
from m3connect.errors import ConfigError, InputError
from m3connect.model.backbone import Backbone
from m3connect.model.config import BodyConfig
from m3connect.model.m3 import M3Model
from m3connect.model.tokenize import TextTokenizer
from m3connect.training.drawing import generator
from m3connect.training.planning import PlannedBatch, Rows, cut
from m3connect.training.positions import extend_positions
from m3connect.training.recipe import RetroMaeRecipe
from m3connect.training.trainable import load_subject, recompute_layers

IGNORED = -100
"""Label of a token that need not be named."""
_MEASURED_AT_ONCE = 256
NAMED_AT_ONCE = 1024
"""Tokens whose scores over the whole vocabulary are in memory at a time."""


@dataclass(frozen=True, slots=True)
class HiddenTexts:
    """Texts with some tokens hidden.

    Args:
        ids: ``int64 [B, L]``, the texts.
        hidden: ``int64 [B, L]``, what the encoder sees.
        labels: ``int64 [B, L]``, the hidden tokens' ids, elsewhere ``IGNORED``.
        mask: ``bool [B, L]``, true for tokens.
    """

    ids: Tensor
    hidden: Tensor
    labels: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> HiddenTexts:
        """On another device."""
        return HiddenTexts(
            self.ids.to(device),
            self.hidden.to(device),
            self.labels.to(device),
            self.mask.to(device),
        )


class RetroMaeModel(nn.Module):
    """The encoder, the head that names tokens, and the decoder.

    Args:
        model: whose encoder is trained.
        decoder_mask: share of tokens that each position of the decoder does not see.
    """

    def __init__(self, model: M3Model, decoder_mask: float) -> None:
        super().__init__()
        body = model.config.body
        self.backbone = model.backbone
        self.naming = Naming(body.hidden_size, body.vocab_size)
        self.decoder = Decoder(body, decoder_mask)

    def forward(self, texts: HiddenTexts) -> tuple[Tensor, Tensor]:
        """The losses of the encoder and of the decoder."""
        words = self.backbone.embeddings.word_embeddings.weight
        states = self.backbone(texts.hidden, texts.mask)
        named = texts.labels != IGNORED
        encoder = self.naming(states[named], texts.labels[named], words)
        decoded = self.decoder(states[:, 0], texts, self.backbone)
        wanted = texts.mask.clone()
        wanted[:, 0] = False  # the first token is the same in every text
        return encoder, self.naming(decoded[wanted], texts.ids[wanted], words)


class Naming(nn.Module):
    """The head of a masked language model; its last matrix is that of the word embeddings."""

    def __init__(self, hidden_size: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states_TH: Tensor, ids_T: Tensor, words_VH: Tensor) -> Tensor:
        """Mean cross-entropy of the ids, in chunks: T times the vocabulary would not fit."""
        total = states_TH.new_zeros(())
        for states, ids in zip(
            torch.split(states_TH, NAMED_AT_ONCE), torch.split(ids_T, NAMED_AT_ONCE), strict=True
        ):
            total = total + recomputed(self._sum, states, ids, words_VH, use_reentrant=False)
        return total / max(1, len(ids_T))

    def _sum(self, states_TH: Tensor, ids_T: Tensor, words_VH: Tensor) -> Tensor:
        prepared_TH = self.norm(F.gelu(self.dense(states_TH)))
        return F.cross_entropy(F.linear(prepared_TH, words_VH, self.bias), ids_T, reduction="sum")


class Decoder(nn.Module):
    """One layer whose queries know the dense state and their place, nothing of their token."""

    def __init__(self, body: BodyConfig, hidden_share: float) -> None:
        super().__init__()
        width, inner = body.hidden_size, body.intermediate_size
        self.heads = body.num_attention_heads
        self.hidden_share = hidden_share
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mixed, self.widened = nn.Linear(width, width), nn.Linear(width, inner)
        self.narrowed = nn.Linear(inner, width)
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, dense_BH: Tensor, texts: HiddenTexts, backbone: Backbone) -> Tensor:
        """States ``[B, L, H]`` to name every token from."""
        embeddings = backbone.embeddings
        start = embeddings.first_position
        places = embeddings.position_embeddings.weight[start : start + texts.ids.shape[1]]
        queries = embeddings.LayerNorm(
            dense_BH[:, None] + places + embeddings.token_type_embeddings.weight[0]
        )
        content = torch.cat([dense_BH[:, None], embeddings(texts.ids)[:, 1:]], dim=1)
        attended = self._attend(queries, content, self._visible(texts.mask))
        states: Tensor = self.first_norm(queries + self.mixed(attended))
        normed: Tensor = self.second_norm(states + self.narrowed(F.gelu(self.widened(states))))
        return normed

    def _attend(self, queries: Tensor, content: Tensor, visible: Tensor) -> Tensor:
        query, key, value = (
            projection(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, source in (
                (self.query, queries),
                (self.key, content),
                (self.value, content),
            )
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None])
        return mixed.transpose(1, 2).flatten(2)

    def _visible(self, mask_BL: Tensor) -> Tensor:
        """``bool [B, L, L]``: the dense state always, oneself never, of the others a random part."""
        length = mask_BL.shape[1]
        drawn = torch.rand(len(mask_BL), length, length, device=mask_BL.device) >= self.hidden_share
        oneself = torch.eye(length, dtype=torch.bool, device=mask_BL.device)
        visible = drawn & mask_BL[:, None] & ~oneself
        visible[:, :, 0] = True
        return visible


class RetroMae:
    """What :class:`m3connect.training.loop.Run` needs to know of the task.

    Args:
        recipe: says what and how.

    Raises:
        InputError: a source of texts is missing or empty.
        ConfigError: the model's tokenizer has no token that hides others.
        CheckpointError: the model cannot be loaded.
    """

    def __init__(self, recipe: RetroMaeRecipe) -> None:
        self.recipe = recipe
        self.subject = load_subject(recipe.model)
        self.names: Sequence[str] = recipe.texts
        self.edges: Sequence[int] = recipe.edges
        self.sources = [open_texts(recipe.data_directory / name) for name in recipe.texts]
        extend_positions(self.subject.model, recipe.max_length)
        config = self.subject.config
        self.tokenizer = TextTokenizer(self.subject.tokenizer, config, recipe.max_length)
        self.special = np.array(config.special_ids)
        self.hiding = hiding_token(self.subject.tokenizer)
        self.vocabulary = config.body.vocab_size
        self.module: nn.Module = RetroMaeModel(self.subject.model, recipe.decoder_mask)

    def start(self, plan: Sequence[PlannedBatch]) -> None:  # noqa: ARG002
        """Nothing depends on the plan."""
        self.restart()

    def restart(self) -> None:
        """Everything already has its shape."""
        if self.recipe.run.gradient_checkpointing:
            recompute_layers(self.subject.model)

    def plan(
        self,
        epoch: int,
        processes: int,
        *,
        draft: bool = False,  # noqa: ARG002 - no plan needs the model
    ) -> list[PlannedBatch]:
        """Texts of one source and one range of lengths together."""
        recipe = self.recipe
        batches = []
        for number, source in enumerate(self.sources):
            rows = generator(recipe.seed, epoch, number).permutation(len(source))
            buckets = np.searchsorted(recipe.edges, self._lengths(source, rows))
            for bucket in np.unique(buckets).tolist():
                parts = cut(rows[buckets == bucket], recipe.size(bucket), 1, processes)
                batches += [PlannedBatch(number, part, bucket) for part in parts]
        order = generator(recipe.seed, epoch).permutation(len(batches))
        return [batches[at] for at in order]

    def _lengths(self, source: Records, rows: Rows) -> Rows:
        parts = np.array_split(rows, -(-len(rows) // _MEASURED_AT_ONCE))
        return np.concatenate(
            [self.tokenizer(_texts(source, part), "passage").lengths for part in parts]
        )

    def batch(self, planned: PlannedBatch, epoch: int, rank: int, processes: int) -> HiddenTexts:
        """A process's texts, with other tokens hidden in every epoch."""
        part = np.array_split(planned.rows, processes)[rank]
        tokens = self.tokenizer(_texts(self.sources[planned.dataset], part), "passage")
        ids = tokens.padded(np.arange(len(tokens)), self.subject.config.body.pad_token_id)
        mask = np.arange(ids.shape[1]) < tokens.lengths[:, None]
        rng = generator(self.recipe.seed, epoch, planned.dataset, int(part[0]))
        chosen = (
            mask & ~np.isin(ids, self.special) & (rng.random(ids.shape) < self.recipe.encoder_mask)
        )
        return HiddenTexts(
            torch.from_numpy(ids),
            torch.from_numpy(self._hide(ids, chosen, rng)),
            torch.from_numpy(np.where(chosen, ids, IGNORED)),
            torch.from_numpy(mask),
        )

    def _hide(self, ids: Rows, chosen: NDArray[np.bool_], rng: np.random.Generator) -> Rows:
        """Of the chosen tokens 8 in 10 are hidden, 1 is another, 1 stays (as in BERT)."""
        fate = rng.random(ids.shape)
        others = rng.integers(self.vocabulary, size=ids.shape)
        hidden = np.where(chosen & (fate < 0.8), self.hiding, ids)
        return np.where(chosen & (fate >= 0.9), others, hidden)

    def backward(
        self,
        model: nn.Module,
        batch: HiddenTexts,
        step: int,  # noqa: ARG002 - every step is the same
        share: float,
        accelerator: Accelerator,
    ) -> Mapping[str, Tensor]:
        """Add a batch's gradients; returns the losses."""
        encoder, decoder = model(batch)
        accelerator.backward((encoder + decoder) * share)
        loss = (encoder + decoder).detach()
        return {"loss": loss, "encoder": encoder.detach(), "decoder": decoder.detach()}


def open_texts(path: Path) -> Records:
    """The texts of a file, or of a folder's corpus.

    Raises:
        InputError: nothing there, or nothing in it.
    """
    if path.is_dir():
        names = ("corpus.jsonl", "corpus.jsonl.gz")
        path = next((path / name for name in names if (path / name).is_file()), path / names[0])
    records = Records.open(path)
    if not len(records):
        raise InputError(f"{path}: no texts")
    return records


def _texts(source: Records, rows: Rows) -> list[str]:
    found = []
    for row in rows.tolist():
        text = source[row].get("text")
        if not isinstance(text, str):
            raise InputError(f"{source.where(row)}: 'text' must hold a string, got {text!r}")
        found.append(text)
    return found


def hiding_token(tokenizer: Tokenizer) -> int:
    """The id that stands for a hidden token.

    Raises:
        ConfigError: the vocabulary has none.
    """
    for name in ("<mask>", "[MASK]"):
        id_ = tokenizer.token_to_id(name)
        if id_ is not None:
            return int(id_)
    raise ConfigError("the tokenizer has neither <mask> nor [MASK]: RetroMAE needs one")
