"""The training objective of the M3 paper (section 3.3), as pure functions of score tensors.

B queries, N candidates, G candidates of a query's own group. A score tensor ``scores_BN`` is already
divided by the temperature; a candidate that must not count has minus infinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from m3connect.types import Leg

TeacherForm = Literal["kl", "m3"]


@dataclass(frozen=True, slots=True)
class Targets:
    """What a batch's scores should look like.

    Args:
        positive_B: ``int64 [B]``, the column of each query's positive.
        allowed_BN: ``bool [B, N]``, false where a candidate is no negative of the query: another
            passage known to be relevant, or one of another query where in-batch negatives are off.
        group_BG: ``int64 [B, G]``, the columns of the query's own candidates, the positive first.
        teacher_BG: ``float [B, G]``, raw scores that a teacher gave these, or None.
    """

    positive_B: Tensor
    allowed_BN: Tensor
    group_BG: Tensor
    teacher_BG: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    """How the three representations' losses become one.

    Args:
        temperature: divides every similarity.
        score_weights: of the integrated score; w in the paper, where it is 1, 0.3, 1.
        loss_weights: lambda in the paper, where it is 1, 0.1, 1. The legs here are the trained ones.
        teacher: how a teacher's scores are used, if there are any.
        teacher_temperature: divides these.
    """

    temperature: float
    score_weights: Mapping[Leg, float]
    loss_weights: Mapping[Leg, float]
    teacher: TeacherForm = "kl"
    teacher_temperature: float = 1.0


def unified_loss(
    similarities: Mapping[Leg, Tensor],
    targets: Targets,
    objective: Objective,
    *,
    self_distill: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """``(L + L') / 2`` of the paper, or ``L`` alone where nothing is distilled.

    ``L`` is the weighted sum of every leg's loss and the integrated score's, over their number (4);
    ``L'`` the weighted sum of every leg's cross-entropy to the integrated score's distribution, over
    the number of legs (3). With a single leg there is nothing to integrate or distil.

    Args:
        similarities: ``[B, N]`` by leg, before the temperature.
        targets: of the same batch.
        objective: temperature and weights.
        self_distill: whether ``L'`` takes part.

    Returns:
        the loss, and its detached parts by name: the legs, ``integrated``, ``distilled``.

    >>> equal = {"dense": torch.zeros(2, 2), "sparse": torch.zeros(2, 2)}
    >>> diagonal = Targets(torch.arange(2), torch.ones(2, 2).bool(), torch.arange(2)[:, None])
    >>> ones = {"dense": 1.0, "sparse": 1.0}
    >>> loss, parts = unified_loss(equal, diagonal, Objective(1.0, ones, ones), self_distill=True)
    >>> round(loss.item(), 4), round(parts["integrated"].item(), 4)  # every term is log 2
    (0.6931, 0.6931)
    """
    legs = list(objective.loss_weights)
    if targets.teacher_BG is not None:
        targets = replace(targets, teacher_BG=targets.teacher_BG / objective.teacher_temperature)
    scaled = {leg: similarities[leg] / objective.temperature for leg in legs}
    scores = {leg: mask(scaled[leg], targets.allowed_BN) for leg in legs}
    parts = {leg: supervised(scores[leg], targets, objective.teacher) for leg in legs}
    weighted = sum_by_weight(parts, objective.loss_weights)
    if len(legs) == 1:
        return weighted, detached(dict[str, Tensor](parts.items()))
    integrated_BN = mask(sum_by_weight(scaled, objective.score_weights), targets.allowed_BN)
    integrated = supervised(integrated_BN, targets, objective.teacher)
    loss = (weighted + integrated) / (len(legs) + 1)
    named = dict[str, Tensor](parts.items()) | {"integrated": integrated}
    if self_distill:
        students = {leg: soft_cross_entropy(scores[leg], integrated_BN) for leg in legs}
        distilled = sum_by_weight(students, objective.loss_weights) / len(legs)
        loss = (loss + distilled) / 2
        named["distilled"] = distilled
    return loss, detached(named)


def supervised(scores_BN: Tensor, targets: Targets, form: TeacherForm) -> Tensor:
    """The loss against what is known: the positive and, where there is one, the teacher's view.

    A teacher is used as ``kl``, cross-entropy to its distribution over the query's own group beside
    InfoNCE, or as ``m3``, which replaces InfoNCE by :func:`ranked_cross_entropy`.
    """
    if targets.teacher_BG is None:
        return info_nce(scores_BN, targets.positive_B)
    if form == "m3":
        return ranked_cross_entropy(scores_BN, targets.group_BG, targets.teacher_BG)
    own_BG = scores_BN.gather(1, targets.group_BG)
    return info_nce(scores_BN, targets.positive_B) + soft_cross_entropy(own_BG, targets.teacher_BG)


def info_nce(scores_BN: Tensor, positive_B: Tensor) -> Tensor:
    """``-log softmax(scores)`` at the positive, mean over the queries.

    >>> round(info_nce(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])).item(), 4)
    0.5032

    That is the mean of log 2 = 0.6931 and log(1 + 1/e) = 0.3133.
    """
    return F.cross_entropy(scores_BN, positive_B)


def soft_cross_entropy(scores_BN: Tensor, teacher_BN: Tensor) -> Tensor:
    """``-sum softmax(teacher) log softmax(scores)``, mean over the queries; the teacher gets no gradient.

    >>> even, sure = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -torch.inf]])
    >>> round(soft_cross_entropy(even, sure).item(), 4)
    0.6931
    """
    probabilities_BN = teacher_BN.detach().softmax(-1)
    # 0 * -inf is NaN: what the teacher rules out asks nothing of the student.
    logs_BN = scores_BN.log_softmax(-1).masked_fill(probabilities_BN == 0, 0.0)
    return -(probabilities_BN * logs_BN).sum(-1).mean()


def ranked_cross_entropy(scores_BN: Tensor, group_BG: Tensor, teacher_BG: Tensor) -> Tensor:
    """Each member of a group against all candidates but the better members, weighted by the teacher.

    Members are taken from the teacher's best to its worst; member i is the target of a cross-entropy
    over all candidates without the members before it, and counts ``softmax(teacher)_i``. (The form
    that the published training code calls ``m3_kd_loss``.)

    >>> scores, group = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[0, 1]])
    >>> loss = ranked_cross_entropy(scores, group, torch.tensor([[1.0, 1.0]]))
    >>> round(loss.item(), 4)  # (log 3 + log 2) / 2
    0.8959
    """
    order_BG = teacher_BG.argsort(dim=1, descending=True, stable=True)
    columns_BG = group_BG.gather(1, order_BG)
    weights_BG = teacher_BG.detach().softmax(-1).gather(1, order_BG)
    loss = scores_BN.new_zeros(())
    for rank in range(columns_BG.shape[1]):
        terms_B = F.cross_entropy(scores_BN, columns_BG[:, rank], reduction="none")
        loss = loss + (weights_BG[:, rank] * terms_B).mean()
        scores_BN = scores_BN.scatter(1, columns_BG[:, rank : rank + 1], -torch.inf)
    return loss


def mask(scores_BN: Tensor, allowed_BN: Tensor) -> Tensor:
    """Minus infinity where a candidate must not count."""
    return scores_BN.masked_fill(~allowed_BN, -torch.inf)


def sum_by_weight(terms: Mapping[Leg, Tensor], weights: Mapping[Leg, float]) -> Tensor:
    """``sum of weight * term`` over the legs that both have.

    >>> terms = {"dense": torch.tensor(2.0), "sparse": torch.tensor(10.0)}
    >>> sum_by_weight(terms, {"dense": 1.0, "sparse": 0.3, "multivector": 1.0}).item()
    5.0
    """
    return torch.stack([weights[leg] * term for leg, term in terms.items()]).sum(0)


def detached(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts for the log: they keep no graph alive."""
    return {name: value.detach() for name, value in parts.items()}
