"""Texts through the model, and the gradient of a loss over a whole batch with one sub-batch in memory.

Gradient caching: the loss needs all representations at once, the encoder does not (Gao et al. 2021,
https://arxiv.org/abs/2101.06983, here over all three representations):

1. encode all sub-batches without a graph;
2. compute the loss from these representations, and its gradient with respect to them: the cache;
3. encode each sub-batch again, with a graph, and go back from its part of the cache.

Encoding twice costs a third more than encoding once and going back; activations of one sub-batch are
alive at a time, whatever the batch. Dropout draws the same both times.

B texts, L tokens, H hidden width, C multi-vector width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m3connect.training.collate import Texts
from m3connect.training.distributed import highest
from m3connect.types import LEGS, Leg

Reps = dict[Leg, Tensor]
"""Representations of B texts: dense ``[B, H]``, sparse ``[B, L]``, multivector ``[B, L, C]``."""
LossOf = Callable[[Sequence[Reps]], Tensor]
"""The loss of the representations of queries and passages."""
Backward = Callable[[Tensor], None]
NoSync = Callable[[], AbstractContextManager[None]]


# ------------------------------------------------------------------------ texts through the model


def sub_batches(texts: Texts, budget: int) -> list[Tensor]:
    """Rows that go through the encoder together: at most ``budget`` tokens, padding included.

    A text longer than the budget goes alone.
    """
    lengths, order = texts.mask.sum(1).sort(descending=True, stable=True)
    parts = []
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[start]))
        parts.append(order[start : start + size])
        start += size
    return parts


def even_sub_batches(texts: Texts, budget: int) -> list[Tensor]:
    """:func:`sub_batches`, as many in every process: a sharded model's passes are made together.

    Every process has as many texts.
    """
    # Texts of 9 9 2 2 2 2 tokens here, 9 9 9 9 9 9 there, and a budget of 18:
    #
    #   process 0   [9 9] [2 2 2 2]              2 sub-batches -> 3: the one of most rows is halved
    #   process 1   [9 9] [9 9] [9 9]            3
    #   process 0   [9 9] [2 2] [2 2]            no sub-batch is empty, none is beyond the budget
    parts = sub_batches(texts, budget)
    count = highest(len(parts), texts.ids.device)  # sync point: every process comes here
    while len(parts) < count:
        widest = max(range(len(parts)), key=lambda part: len(parts[part]))
        parts[widest : widest + 1] = parts[widest].chunk(2)
    return parts


def encode(model: nn.Module, texts: Texts, parts: Sequence[Tensor], legs: Sequence[Leg]) -> Reps:
    """All texts through the model, in their order, padded to their common length.

    Args:
        model: an ``M3Model``, wrapped or not.
        texts: to encode.
        parts: rows of each sub-batch; every row is in one.
        legs: the representations to return.
    """
    return joined([forward(model, texts, rows, legs) for rows in parts], parts, texts.ids.shape[1])


def forward(model: nn.Module, texts: Texts, rows: Tensor, legs: Sequence[Leg]) -> Reps:
    """Some rows through the model, padded no further than they need."""
    mask = texts.mask[rows]
    longest = int(mask.sum(1).max())
    mask = mask[:, :longest]  # [rows, longest]: what is padding for all of them is cut off
    outputs = model(texts.ids[rows, :longest], None if mask.all() else mask)
    return {leg: rep for leg, rep in zip(LEGS, outputs, strict=True) if leg in legs}


def joined(reps: Sequence[Mapping[Leg, Tensor]], parts: Sequence[Tensor], length: int) -> Reps:
    """The sub-batches' representations as those of one batch."""
    # parts [2 0] [1] -> rows 2 0 1 were encoded in this order -> argsort 1 2 0 puts them back
    back = torch.cat(list(parts)).argsort()
    return {
        leg: torch.cat([lengthened(leg, rep[leg], length) for rep in reps])[back] for leg in reps[0]
    }


def lengthened(leg: Leg, rep: Tensor, length: int) -> Tensor:
    """A representation with zeros for the tokens up to ``length``; no mask lets them count."""
    if leg == "dense":
        return rep
    missing = length - rep.shape[1]
    return F.pad(rep, (0, missing) if leg == "sparse" else (0, 0, 0, missing))


# -------------------------------------------------------------------------------------- gradients


def plain_backward(
    model: nn.Module,
    texts: Sequence[Texts],
    loss_of: LossOf,
    legs: Sequence[Leg],
    budget: int,
    backward: Backward = Tensor.backward,
) -> Tensor:
    """Encode everything with a graph, and go back once. Returns the loss.

    The arguments are those of :func:`cached_backward`.
    """
    reps = [encode(model, part, even_sub_batches(part, budget), legs) for part in texts]
    loss = loss_of(reps)
    backward(loss)
    return loss.detach()


def cached_backward(
    model: nn.Module,
    texts: Sequence[Texts],
    loss_of: LossOf,
    legs: Sequence[Leg],
    budget: int,
    backward: Backward = Tensor.backward,
    no_sync: NoSync = nullcontext,
) -> Tensor:
    """The same gradients as :func:`plain_backward`, in the memory of one sub-batch.

    Args:
        model: an ``M3Model``, wrapped or not.
        texts: queries and passages.
        loss_of: gives the loss of their representations.
        legs: the representations it needs.
        budget: tokens of a sub-batch.
        backward: goes back from the loss (scaled, in half precision).
        no_sync: keeps processes from exchanging gradients; all but the last sub-batch use it.
    """
    parts = [even_sub_batches(part, budget) for part in texts]
    device = texts[0].ids.device
    with torch.no_grad():
        reps, states = _encode_remembering(model, texts, parts, legs, device)
    loss = _fill_cache(reps, loss_of, backward)
    work = [
        (part, rows, rep, state)
        for part, of_part, rep, of_states in zip(texts, parts, reps, states, strict=True)
        for rows, state in zip(of_part, of_states, strict=True)
    ]
    # Processes exchange gradients once, in the last sub-batch (sync point); before, they add up here.
    for number, (part, rows, rep, state) in enumerate(work, start=1):
        with nullcontext() if number == len(work) else no_sync(), replay(state, device):
            _surrogate(forward(model, part, rows, legs), rep, rows).backward()  # type: ignore[no-untyped-call]
    return loss


def _encode_remembering(
    model: nn.Module,
    texts: Sequence[Texts],
    parts: Sequence[Sequence[Tensor]],
    legs: Sequence[Leg],
    device: torch.device,
) -> tuple[list[Reps], list[list[tuple[Tensor, ...]]]]:
    """Step 1: representations, and the state of the random numbers before each sub-batch."""
    reps, states = [], []
    for part, of_part in zip(texts, parts, strict=True):
        of_part_reps, of_states = [], []
        for rows in of_part:
            of_states.append(random_state(device))
            of_part_reps.append(forward(model, part, rows, legs))
        reps.append(joined(of_part_reps, of_part, part.ids.shape[1]))
        states.append(of_states)
    return reps, states


def _fill_cache(reps: Sequence[Reps], loss_of: LossOf, backward: Backward) -> Tensor:
    """Step 2: every representation gets its gradient."""
    for rep in reps:
        for tensor in rep.values():
            tensor.requires_grad_()
    loss = loss_of(reps)
    backward(loss)
    return loss.detach()


def _surrogate(reps: Reps, cache: Reps, rows: Tensor) -> Tensor:
    """Step 3: a number whose gradient is the loss's: ``sum of representation * cached gradient``."""
    terms = []
    for leg, rep in reps.items():
        gradient = cache[leg].grad
        if gradient is not None:
            cut = gradient[rows] if leg == "dense" else gradient[rows, : rep.shape[1]]
            terms.append((rep * cut).sum())
    return torch.stack(terms).sum()


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Where the random numbers stand."""
    if device.type == "cuda":
        return torch.get_rng_state(), torch.cuda.get_rng_state(device)
    return (torch.get_rng_state(),)


@contextmanager
def replay(state: tuple[Tensor, ...], device: torch.device) -> Iterator[None]:
    """Random numbers from a state on; afterwards they go on as if nothing had happened."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.set_rng_state(state[0])
        if devices:
            torch.cuda.set_rng_state(state[1], device)
        yield
