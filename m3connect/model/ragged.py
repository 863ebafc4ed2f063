"""The model over texts end to end, without padding: for inference.

The tokens of all texts of a batch are one sequence. Embeddings, linear layers, norms and heads run on it
as it is, for they know tokens alone; attention stays within each text, by the fastest way that there is
(:func:`attention`). The numbers are those of the padded ``M3Model.forward``; a test holds them equal.

Shapes: B texts, T tokens of all of them, H hidden width, N attention heads, h the width of one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from m3connect.model.backbone import Attention
from m3connect.model.m3 import M3Model

if TYPE_CHECKING:
    from m3connect.types import Leg

_VARLEN = ("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k")
"""The arguments that ``varlen_attn`` begins with in every version of torch that we know."""
_AMPERE = (8, 0)  # the first cards that its kernels run on


@dataclass(frozen=True, slots=True)
class RaggedTexts:
    """B texts end to end, on the model's device.

    Args:
        ids: ``int64 [T]`` token ids.
        offsets: ``int64 [B + 1]``; text i owns ``ids[offsets[i]:offsets[i + 1]]``.
        lengths: the same in Python, as tokens of each text: shapes are known without asking the
            device. Texts of equal length that stand together are attended to together.
        marks: ``int64 [M]`` rising, where further first tokens stand (MCLS), and ``int64 [B]``, how
            many each text has; None without any.
    """

    ids: Tensor
    offsets: Tensor
    lengths: Sequence[int]
    marks: tuple[Tensor, Tensor] | None = None

    @property
    def sizes(self) -> Tensor:
        """``int64 [B]`` tokens of each text, on the device."""
        return self.offsets.diff()

    def places(self) -> Tensor:
        """``int64 [T]``: how many tokens of its own text precede each."""
        starts = torch.repeat_interleave(self.offsets[:-1], self.sizes, output_size=len(self.ids))
        return torch.arange(len(self.ids), device=self.ids.device) - starts


def represent(model: M3Model, texts: RaggedTexts, legs: Sequence[Leg]) -> dict[Leg, Tensor]:
    """The representations that are asked for; call it without gradients.

    Args:
        model: in evaluation mode.
        texts: on its device.
        legs: which representations.

    Returns:
        ``dense [B, H]``, ``sparse [T]`` and ``multivector [T, C]``, as of
        :class:`m3connect.model.heads.Representations`.
    """
    body, heads = model.backbone, model.heads
    embedded = body.embeddings(texts.ids, texts.places())
    states = body.through_layers(embedded, attention(texts, embedded, body.head_width))
    outputs: dict[Leg, Tensor] = {}
    if "dense" in legs:
        outputs["dense"] = F.normalize(_pooled(model, states, texts), dim=-1)
    if "sparse" in legs:
        outputs["sparse"] = heads.lexical(states)
    if "multivector" in legs:
        outputs["multivector"] = heads.vectors(states)
    return outputs


def _pooled(model: M3Model, states: Tensor, texts: RaggedTexts) -> Tensor:
    """``float32 [B, H]``: each text's first state, or the mean of its first tokens' or all states."""
    if model.heads.pooling == "mean":
        return torch.segment_reduce(states.float(), "mean", lengths=texts.sizes, unsafe=True)
    first = states.index_select(0, texts.offsets[:-1]).float()
    if texts.marks is None:
        return first
    places, counts = texts.marks
    rest = states.index_select(0, places).float()
    sums = first + torch.segment_reduce(rest, "sum", lengths=counts, unsafe=True)
    return sums / (1 + counts).unsqueeze(1)


def attention(texts: RaggedTexts, states: Tensor, head_width: int) -> Attention:
    """Attention within each text, for the device and the precision of ``states``.

    On a GPU torch's ``varlen_attn`` in half precision where there is one, else nested tensors. On a
    CPU one call for texts of equal length: measured there, nested tensors take ten times as long.
    """
    device = states.device
    if device.type != "cuda":
        return _by_length(texts)
    varlen = _varlen()
    if (
        varlen is not None
        and states.dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(device) >= _AMPERE
        and head_width % 8 == 0
        and head_width <= 256
    ):
        return _variable(varlen, texts)
    return _nested(texts)


def _by_length(texts: RaggedTexts) -> Attention:
    """One call for the texts of one length that stand together."""
    groups = [(length, len(list(same))) for length, same in groupby(texts.lengths)]

    def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        if len(groups) == 1:
            return _of_one_length(groups[0][0], query, key, value, dropout)
        mixed = torch.empty_like(query)
        end = 0
        for length, count in groups:
            start, end = end, end + length * count
            mixed[start:end] = _of_one_length(
                length, query[start:end], key[start:end], value[start:end], dropout
            )
        return mixed

    return attend


def _of_one_length(
    length: int, query: Tensor, key: Tensor, value: Tensor, dropout: float
) -> Tensor:
    query, key, value = (
        part.view(-1, length, *part.shape[1:]).transpose(1, 2) for part in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, None, dropout)
    return mixed.transpose(1, 2).flatten(0, 1)


def _nested(texts: RaggedTexts) -> Attention:
    """Nested tensors."""
    shortest, longest = min(texts.lengths), max(texts.lengths)

    def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        query, key, value = (
            torch.nested.nested_tensor_from_jagged(
                part, texts.offsets, min_seqlen=shortest, max_seqlen=longest
            ).transpose(1, 2)
            for part in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, None, dropout)
        mixed: Tensor = attended.transpose(1, 2).values()
        return mixed

    return attend


def _variable(varlen: Callable[..., Any], texts: RaggedTexts) -> Attention:
    """Torch's kernels for sequences of varying length."""
    offsets, longest = texts.offsets.to(torch.int32), max(texts.lengths)

    def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        assert not dropout  # of inference alone
        mixed: Tensor = varlen(query, key, value, offsets, offsets, longest, longest)
        return mixed

    return attend


@cache
def _varlen() -> Callable[..., Any] | None:
    """``varlen_attn``, if this torch has it in a form that we know (2.10 and later)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = tuple(inspect.signature(varlen_attn).parameters)[: len(_VARLEN)] == _VARLEN
    return varlen_attn if known else None
