"""The RetroMAE task (Xiao et al. 2022, https://arxiv.org/abs/2205.12035), the paper's stage 0.

The encoder sees a text with some tokens masked and must predict them. A decoder of one layer must
predict every token from the text's dense state alone and, for each token, a random part of the other tokens'
embeddings: so much is masked from it that the dense state has to carry the text.

B texts, L tokens, H hidden width, T tokens to be predicted, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

from m3connect.datasets.beir import corpus_file
from m3connect.datasets.lines import Records
from m3connect.errors import ConfigError, InputError
from m3connect.model.backbone import Backbone
from m3connect.model.config import BodyConfig
from m3connect.model.m3 import M3Model
from m3connect.model.tokenize import TextTokenizer, TokenIds
from m3connect.training.recipe import RetroMaeRecipe
from m3connect.training.sampling import PlannedBatch, Rows, cut, generator, tell_left_out
from m3connect.training.surgery import extend_positions
from m3connect.training.trainable import load_trainable, recompute_layers

IGNORED = -100
"""Label of a token that need not be predicted."""
_MEASURED_AT_ONCE = 256
PREDICTED_AT_ONCE = 1024
"""Tokens whose scores over the whole vocabulary are in memory at a time."""


@dataclass(frozen=True, slots=True)
class MaskedTexts:
    """Texts with some tokens masked.

    Args:
        ids: ``int64 [B, L]``, the texts.
        masked_ids: ``int64 [B, L]``, what the encoder sees.
        labels: ``int64 [B, L]``, the masked tokens' ids, elsewhere ``IGNORED``.
        mask: ``bool [B, L]``, true for tokens.
    """

    ids: Tensor
    masked_ids: Tensor
    labels: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> MaskedTexts:
        """On another device."""
        return MaskedTexts(
            self.ids.to(device),
            self.masked_ids.to(device),
            self.labels.to(device),
            self.mask.to(device),
        )


class RetroMaeModel(nn.Module):
    """The encoder, the MLM head that predicts tokens, and the decoder.

    Args:
        model: whose encoder is trained.
        decoder_mask: share of tokens that are masked from each position of the decoder.
        seen: ``int64 [V]``, rising: the only ids that are ever predicted; None for the model's own.
    """

    seen: Tensor | None

    def __init__(self, model: M3Model, decoder_mask: float, seen: Tensor | None = None) -> None:
        super().__init__()
        body = model.config.body
        self.backbone = model.backbone
        self.pool = model.heads.pool  # what is served: some models take the mean of all tokens
        self.register_buffer("seen", seen, persistent=False)
        self.mlm_head = MlmHead(body.hidden_size, body.vocab_size if seen is None else len(seen))
        self.decoder = Decoder(body, decoder_mask)

    def forward(self, texts: MaskedTexts) -> tuple[Tensor, Tensor]:
        """The losses of the encoder and of the decoder."""
        words = self.backbone.embeddings.word_embeddings.weight
        if self.seen is not None:
            words = words[self.seen]
        states = self.backbone(texts.masked_ids, texts.mask)
        masked = texts.labels != IGNORED
        encoder = self.mlm_head(states[masked], self._places(texts.labels[masked]), words)
        decoded = self.decoder(self.pool(states, texts.mask), texts, self.backbone)
        predicted = texts.mask.clone()
        predicted[:, 0] = False  # the first token is the same in every text
        told = self._places(texts.ids[predicted])
        return encoder, self.mlm_head(decoded[predicted], told, words)

    def _places(self, ids: Tensor) -> Tensor:
        """Of ids, among those that may be predicted."""
        return ids if self.seen is None else torch.searchsorted(self.seen, ids)


class MlmHead(nn.Module):
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
            torch.split(states_TH, PREDICTED_AT_ONCE),
            torch.split(ids_T, PREDICTED_AT_ONCE),
            strict=True,
        ):
            total = total + recomputed(self._sum, states, ids, words_VH, use_reentrant=False)
        return total / max(1, len(ids_T))

    def _sum(self, states_TH: Tensor, ids_T: Tensor, words_VH: Tensor) -> Tensor:
        prepared_TH = self.norm(F.gelu(self.dense(states_TH)))
        return F.cross_entropy(F.linear(prepared_TH, words_VH, self.bias), ids_T, reduction="sum")


class Decoder(nn.Module):
    """One layer whose queries know the dense state and their position, nothing of their token."""

    def __init__(self, body: BodyConfig, mask_share: float) -> None:
        super().__init__()
        width, inner = body.hidden_size, body.intermediate_size
        self.heads = body.num_attention_heads
        self.mask_share = mask_share
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mixed, self.widened = nn.Linear(width, width), nn.Linear(width, inner)
        self.narrowed = nn.Linear(inner, width)
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, dense_BH: Tensor, texts: MaskedTexts, backbone: Backbone) -> Tensor:
        """States ``[B, L, H]`` to predict every token from."""
        embeddings = backbone.embeddings
        start = embeddings.first_position
        positions_LH = embeddings.position_embeddings.weight[start : start + texts.ids.shape[1]]
        queries = embeddings.LayerNorm(
            dense_BH[:, None] + positions_LH + embeddings.token_type_embeddings.weight[0]
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
        kept_BLL = (
            torch.rand(len(mask_BL), length, length, device=mask_BL.device) >= self.mask_share
        )
        self_LL = torch.eye(length, dtype=torch.bool, device=mask_BL.device)
        visible_BLL = kept_BLL & mask_BL[:, None] & ~self_LL
        visible_BLL[:, :, 0] = True
        return visible_BLL


class RetroMae:
    """What :class:`m3connect.training.loop.Run` needs to know of the task.

    Args:
        recipe: says what and how.

    Raises:
        InputError: a source of texts is missing or empty.
        ConfigError: the model's tokenizer has no mask token.
        CheckpointError: the model cannot be loaded.
    """

    def __init__(self, recipe: RetroMaeRecipe) -> None:
        self.recipe = recipe
        self.trainable = load_trainable(recipe.model)
        self.names: Sequence[str] = recipe.texts
        self.edges: Sequence[int] = recipe.edges
        self.sources = [open_texts(recipe.data_directory / name) for name in recipe.texts]
        extend_positions(self.trainable.model, recipe.max_length)
        config = self.trainable.config
        self.tokenizer = TextTokenizer(self.trainable.tokenizer, config, recipe.max_length)
        self.special = np.array(config.special_ids)
        self.mask_id = mask_token(self.trainable.tokenizer)
        self.vocabulary = config.body.vocab_size
        seen = self._seen() if recipe.vocabulary == "seen" else None
        self.module: nn.Module = RetroMaeModel(self.trainable.model, recipe.decoder_mask, seen)

    def start(self, plan: Sequence[PlannedBatch]) -> None:  # noqa: ARG002
        """Nothing depends on the plan."""
        self.restart()

    def restart(self) -> None:
        """Everything already has its shape."""
        if self.recipe.run.gradient_checkpointing:
            recompute_layers(self.trainable.model)

    def plan(
        self,
        epoch: int,
        processes: int,
        *,
        draft: bool = False,  # noqa: ARG002 - no plan needs the model
    ) -> list[PlannedBatch]:
        """Texts of one source and one range of lengths together."""
        recipe = self.recipe
        batches: list[PlannedBatch] = []
        for number, source in enumerate(self.sources):
            rows = generator(recipe.seed, epoch, number).permutation(len(source))
            buckets = np.searchsorted(recipe.edges, self._lengths(source, rows))
            found = [
                PlannedBatch(number, part, bucket)
                for bucket in np.unique(buckets).tolist()
                for part in cut(rows[buckets == bucket], recipe.size(bucket), 1, processes)
            ]
            tell_left_out(recipe.texts[number], epoch, len(rows), found)
            batches += found
        order = generator(recipe.seed, epoch).permutation(len(batches))
        return [batches[index] for index in order]

    def _seen(self) -> Tensor:
        """The ids of all tokens of the texts, rising."""
        seen = np.empty(0, np.int64)
        for source in self.sources:
            for tokens in self._tokenised(source, np.arange(len(source))):
                seen = np.union1d(seen, tokens.ids)
        return torch.from_numpy(seen)

    def _lengths(self, source: Records, rows: Rows) -> Rows:
        return np.concatenate([tokens.lengths for tokens in self._tokenised(source, rows)])

    def _tokenised(self, source: Records, rows: Rows) -> Iterator[TokenIds]:
        """Many rows, some at a time."""
        for part in np.array_split(rows, -(-len(rows) // _MEASURED_AT_ONCE)):
            yield self.tokenizer(_texts(source, part), "passage")

    def batch(self, planned: PlannedBatch, epoch: int, rank: int, processes: int) -> MaskedTexts:
        """A process's texts, with other tokens masked in every epoch."""
        rows = np.array_split(planned.rows, processes)[rank]
        tokens = self.tokenizer(_texts(self.sources[planned.dataset], rows), "passage")
        ids = tokens.padded(np.arange(len(tokens)), self.trainable.config.body.pad_token_id)
        mask = np.arange(ids.shape[1]) < tokens.lengths[:, None]
        rng = generator(self.recipe.seed, epoch, planned.dataset, int(rows[0]))
        chosen = (
            mask & ~np.isin(ids, self.special) & (rng.random(ids.shape) < self.recipe.encoder_mask)
        )
        return MaskedTexts(
            torch.from_numpy(ids),
            torch.from_numpy(self._mask(ids, chosen, rng)),
            torch.from_numpy(np.where(chosen, ids, IGNORED)),
            torch.from_numpy(mask),
        )

    def _mask(self, ids: Rows, chosen: NDArray[np.bool_], rng: np.random.Generator) -> Rows:
        """Of the chosen tokens 8 in 10 are masked, 1 is another, 1 stays (as in BERT)."""
        fate = rng.random(ids.shape)
        others = rng.integers(self.vocabulary, size=ids.shape)
        masked = np.where(chosen & (fate < 0.8), self.mask_id, ids)
        return np.where(chosen & (fate >= 0.9), others, masked)

    def backward(
        self,
        model: nn.Module,
        batch: MaskedTexts,
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
        path = corpus_file(path)
    records = Records.open(path)
    if not len(records):
        raise InputError(f"{path}: no texts")
    return records


def _texts(source: Records, rows: Rows) -> list[str]:
    texts = []
    for row in rows.tolist():
        text = source[row].get("text")
        if not isinstance(text, str):
            raise InputError(f"{source.where(row)}: 'text' must hold a string, got {text!r}")
        if not text.strip():
            raise InputError(f"{source.where(row)}: 'text' is blank: there is nothing to learn")
        texts.append(text)
    return texts


def mask_token(tokenizer: Tokenizer) -> int:
    """The id of the mask token.

    Raises:
        ConfigError: the vocabulary has none.
    """
    for name in ("<mask>", "[MASK]"):
        id_ = tokenizer.token_to_id(name)
        if id_ is not None:
            return int(id_)
    raise ConfigError("the tokenizer has neither <mask> nor [MASK]: RetroMAE needs one")
