"""From representations to the loss: scores of all pairs, who may be whose negative, the losses.

B queries and N passages of this process, M passages of all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from m3connect.model.scores import dense_scores, maxsim_scores, sparse_scores
from m3connect.training.collate import Batch, Texts
from m3connect.training.distributed import gather, processes, rank
from m3connect.training.gradcache import Reps
from m3connect.training.losses import Objective, Targets, info_nce, mask, unified_loss
from m3connect.training.recipe import Recipe
from m3connect.types import LEGS, Leg


@dataclass(frozen=True, slots=True)
class Criterion:
    """The loss of a batch.

    Args:
        objective: temperature and weights.
        in_batch: whether other queries' passages are negatives.
        across_processes: whether other processes' passages are.
        score_queries: queries whose multi-vector similarities are alive at a time.
        matryoshka: widths at which the dense vector must serve alone, too.
    """

    objective: Objective
    in_batch: bool = True
    across_processes: bool = True
    score_queries: int = 8
    matryoshka: tuple[int, ...] = ()

    def __call__(
        self, queries: Reps, passages: Reps, batch: Batch, *, self_distill: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this process's queries, and its parts for the log."""
        passage_texts, keys, asked = batch.passages, batch.passage_keys, batch.query_keys
        first = 0
        if self.across_processes and processes() > 1:
            first = rank() * len(batch.passages)
            passages, passage_texts = _gathered(passages, passage_texts)
            keys, asked = gather(keys), gather(asked)
        scores_by_leg = similarities(
            queries, batch.queries, passages, passage_texts, self.score_queries
        )
        targets = targets_of(batch, keys, asked, first, in_batch=self.in_batch)
        loss, parts = unified_loss(
            scores_by_leg, targets, self.objective, self_distill=self_distill
        )
        for width in self.matryoshka:
            narrow = _at_width(queries["dense"], width), _at_width(passages["dense"], width)
            scores = mask(dense_scores(*narrow) / self.objective.temperature, targets.allowed_BN)
            term = info_nce(scores, targets.positive_B)
            loss = loss + term / len(self.matryoshka)
            parts[f"dense_{width}"] = term.detach()
        return loss, parts


def make_criterion(recipe: Recipe) -> Criterion:
    """The loss that a recipe asks for."""
    table, batching = recipe.objective, recipe.batching
    index = {leg: index for index, leg in enumerate(LEGS)}
    objective = Objective(
        table.temperature,
        {leg: table.score_weights[index[leg]] for leg in table.legs},
        {leg: table.loss_weights[index[leg]] for leg in table.legs},
        "m3" if table.teacher == "m3" else "kl",
        table.teacher_temperature,
    )
    return Criterion(
        objective,
        in_batch=batching.in_batch,
        across_processes=batching.across_processes,
        score_queries=recipe.run.score_queries,
        matryoshka=table.matryoshka,
    )


def similarities(
    queries: Reps,
    query_texts: Texts,
    passages: Reps,
    passage_texts: Texts,
    score_queries: int,
) -> dict[Leg, Tensor]:
    """Every leg's scores ``[B, M]`` of all pairs, before the temperature."""
    scores: dict[Leg, Tensor] = {}
    if "dense" in queries:
        scores["dense"] = dense_scores(queries["dense"], passages["dense"])
    if "sparse" in queries:
        scores["sparse"] = sparse_scores(
            query_texts.terms,
            queries["sparse"],
            query_texts.lexical,
            passage_texts.terms,
            passages["sparse"],
            passage_texts.lexical,
        )
    if "multivector" in queries:
        scores["multivector"] = chunked_maxsim(
            queries["multivector"],
            query_texts.content,
            passages["multivector"],
            passage_texts.content,
            score_queries,
        )
    return scores


def chunked_maxsim(
    query_BLC: Tensor,
    query_mask_BL: Tensor,
    passage_MLC: Tensor,
    passage_mask_ML: Tensor,
    size: int,
) -> Tensor:
    """:func:`maxsim_scores` with the token similarities of ``size`` queries alive at a time.

    Going back computes each chunk's similarities again.
    """
    if len(query_BLC) <= size:
        return maxsim_scores(query_BLC, query_mask_BL, passage_MLC, passage_mask_ML)
    chunks = [
        checkpoint(
            maxsim_scores, vectors, tokens, passage_MLC, passage_mask_ML, use_reentrant=False
        )
        for vectors, tokens in zip(
            torch.split(query_BLC, size), torch.split(query_mask_BL, size), strict=True
        )
    ]
    return torch.cat(chunks)


def targets_of(
    batch: Batch, keys_M: Tensor, asked_A: Tensor, first: int, *, in_batch: bool
) -> Targets:
    """Which passages are right, and which are wrong enough to be negatives.

    A passage whose text is known to answer the query is no negative of it, wherever it stands; nor is
    the positive of another example that asks the same.

    Args:
        batch: this process's.
        keys_M: of all passages that take part.
        asked_A: keys of all queries that take part, each of a group of the passages.
        first: where this process's passages start among them.
        in_batch: whether other queries' passages may be negatives.
    """
    count, group = len(batch.queries), batch.group
    own_BG = torch.arange(count * group, device=keys_M.device).view(count, group) + first
    if in_batch:
        known_BM = (keys_M[None, :, None] == batch.positive_keys[:, None, :]).any(-1)
        # A group begins with its positive.
        known_BM[:, ::group] |= batch.query_keys[:, None] == asked_A
        allowed_BM = (~known_BM).scatter(1, own_BG[:, :1], value=True)
    else:
        allowed_BM = torch.zeros(count, len(keys_M), dtype=torch.bool, device=keys_M.device)
        allowed_BM = allowed_BM.scatter(1, own_BG, value=True)
    return Targets(own_BG[:, 0], allowed_BM, own_BG, batch.teacher)


def _gathered(passages: Reps, texts: Texts) -> tuple[Reps, Texts]:
    reps: Reps = {leg: gather(rep, length_axis=leg != "dense") for leg, rep in passages.items()}
    parts: Sequence[Tensor] = (texts.ids, texts.mask, texts.terms, texts.lexical, texts.content)
    return reps, Texts(*(gather(part, length_axis=True) for part in parts))


def _at_width(dense: Tensor, width: int) -> Tensor:
    return F.normalize(dense[:, :width], dim=-1)
