"""The losses against numpy, written out."""

import numpy as np
import pytest
import torch

from m3connect.training.losses import (
    Objective,
    Targets,
    info_nce,
    ranked_cross_entropy,
    soft_cross_entropy,
    unified_loss,
)
from m3connect.types import Leg

TAU = 0.02
WEIGHTS: dict[Leg, float] = {"dense": 1.0, "sparse": 0.3, "multivector": 1.0}
LAMBDAS: dict[Leg, float] = {"dense": 1.0, "sparse": 0.1, "multivector": 1.0}
SIMILARITIES: dict[Leg, list[list[float]]] = {
    "dense": [[0.60, 0.55, 0.10], [0.20, 0.70, 0.68], [0.31, 0.29, 0.33]],
    "sparse": [[0.10, 0.00, 0.05], [0.02, 0.20, 0.00], [0.00, 0.08, 0.07]],
    "multivector": [[0.52, 0.50, 0.30], [0.41, 0.44, 0.47], [0.20, 0.25, 0.21]],
}


def softmax(rows):
    shifted = np.exp(rows - rows.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def by_hand(similarities, self_distill):
    """Loss and its gradients for diagonal targets, from the paper's formulas."""
    count = 3
    eye = np.eye(count)
    scaled = {leg: np.array(values) / TAU for leg, values in similarities.items()}
    integrated = sum(WEIGHTS[leg] * scaled[leg] for leg in scaled)
    teacher = softmax(integrated)

    def nce(scores):
        return -np.log(softmax(scores)[range(count), range(count)]).mean()

    def distil(scores):
        return -(teacher * np.log(softmax(scores))).sum(axis=1).mean()

    loss = (sum(LAMBDAS[leg] * nce(scaled[leg]) for leg in scaled) + nce(integrated)) / 4
    inter = (teacher - eye) / count
    gradients = {
        leg: (LAMBDAS[leg] * (softmax(scaled[leg]) - eye) / count + WEIGHTS[leg] * inter) / 4
        for leg in scaled
    }
    if self_distill:
        loss = (loss + sum(LAMBDAS[leg] * distil(scaled[leg]) for leg in scaled) / 3) / 2
        for leg, scores in scaled.items():
            taught = LAMBDAS[leg] * (softmax(scores) - teacher) / count / 3
            gradients[leg] = (gradients[leg] + taught) / 2
    return loss, {leg: gradient / TAU for leg, gradient in gradients.items()}


def diagonal(count=3, candidates=3):
    positive = torch.arange(count)
    allowed = torch.ones(count, candidates, dtype=torch.bool)
    return Targets(positive, allowed, positive[:, None])


@pytest.mark.parametrize("self_distill", [False, True])
def test_unified_loss_and_its_gradients_are_the_papers(self_distill):
    """Loss and gradients on three queries and passages equal the formulas written out in numpy."""
    tensors = {
        leg: torch.tensor(values, dtype=torch.float64, requires_grad=True)
        for leg, values in SIMILARITIES.items()
    }
    objective = Objective(TAU, WEIGHTS, LAMBDAS)
    loss, _ = unified_loss(tensors, diagonal(), objective, self_distill=self_distill)
    loss.backward()
    expected, gradients = by_hand(SIMILARITIES, self_distill)
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    for leg, gradient in gradients.items():
        np.testing.assert_allclose(tensors[leg].grad.numpy(), gradient, atol=1e-10)


def test_teacher_gets_no_gradient():
    """Distillation moves the student and leaves the teacher alone."""
    student = torch.tensor([[0.1, 0.2]], requires_grad=True)
    teacher = torch.tensor([[0.5, 0.1]], requires_grad=True)
    soft_cross_entropy(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_a_candidate_that_is_not_allowed_changes_nothing():
    """Scores of a masked passage have no influence on the loss and get no gradient."""
    objective = Objective(TAU, WEIGHTS, LAMBDAS)
    targets = diagonal(candidates=4)
    targets.allowed_BN[:, 3] = False
    losses = []
    for extra in (-1.0, 0.9):
        tensors = {
            leg: torch.tensor([[*row, extra] for row in values], requires_grad=True)
            for leg, values in SIMILARITIES.items()
        }
        loss, _ = unified_loss(tensors, targets, objective, self_distill=True)
        loss.backward()
        losses.append(loss.item())
        for tensor in tensors.values():
            assert tensor.grad[:, 3].abs().max() == 0
            assert tensor.grad.isfinite().all()
    assert losses[0] == losses[1]


def test_one_leg_alone_is_plain_info_nce():
    """Training one representation uses its own loss only."""
    tensors: dict[Leg, torch.Tensor] = {"sparse": torch.tensor(SIMILARITIES["sparse"])}
    objective = Objective(TAU, {"sparse": 0.3}, {"sparse": 1.0})
    loss, parts = unified_loss(tensors, diagonal(), objective, self_distill=False)
    assert loss.item() == info_nce(tensors["sparse"] / TAU, torch.arange(3)).item()
    assert set(parts) == {"sparse"}


def test_ranked_cross_entropy_does_not_depend_on_the_order_of_the_group():
    """Members are ranked by the teacher, wherever they stand."""
    scores = torch.tensor([[0.3, 0.9, 0.1, 0.4]])
    teacher = torch.tensor([[2.0, 0.5, 1.0]])
    group = torch.tensor([[0, 1, 2]])
    order = torch.tensor([2, 0, 1])
    first = ranked_cross_entropy(scores, group, teacher)
    second = ranked_cross_entropy(scores, group[:, order], teacher[:, order])
    assert first.item() == pytest.approx(second.item())
    expected = 0.0
    for rank, (column, gone) in enumerate([(0, []), (2, [0]), (1, [0, 2])]):
        left = [score for at, score in enumerate(scores[0].tolist()) if at not in gone]
        term = np.log(np.exp(left).sum()) - scores[0, column].item()
        expected += torch.tensor([2.0, 1.0, 0.5]).softmax(0)[rank].item() * term
    assert first.item() == pytest.approx(expected, abs=1e-6)


def test_teacher_scores_enter_every_term():
    """With ``kl`` each leg's loss is InfoNCE and the cross-entropy to the teacher in the group."""
    scores = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.9, 0.3]])
    teacher = torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    targets = Targets(
        torch.tensor([0, 1]), torch.ones(2, 3).bool(), torch.tensor([[0, 2], [1, 0]]), teacher
    )
    objective = Objective(1.0, {"dense": 1.0}, {"dense": 1.0}, "kl")
    loss, _ = unified_loss({"dense": scores}, targets, objective, self_distill=False)
    own = torch.tensor([[0.5, 0.1], [0.9, 0.2]])
    expected = info_nce(scores, targets.positive_B) + soft_cross_entropy(own, teacher)
    assert loss.item() == pytest.approx(expected.item())
    objective = Objective(1.0, {"dense": 1.0}, {"dense": 1.0}, "kl", teacher_temperature=0.1)
    loss, _ = unified_loss({"dense": scores}, targets, objective, self_distill=False)
    expected = info_nce(scores, targets.positive_B) + soft_cross_entropy(own, 10 * teacher)
    assert loss.item() == pytest.approx(expected.item())
