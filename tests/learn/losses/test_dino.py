"""DINO against a loop written from the formula, its centre, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import dino, updated_center

TEMPERATURES = {"student_temperature": 0.1, "teacher_temperature": 0.05}


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize(("G", "V"), [(1, 2), (2, 2), (2, 5)])
@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("K", [1, 6])
def test_equals_the_loop_over_pairs(G, V, B, K):
    rng = np.random.default_rng(G * 100 + V * 10 + B + K)
    student, teacher, center = rng.normal(size=(V, B, K)), rng.normal(size=(G, B, K)), rng.normal(size=K)
    losses, entropies = [], []
    for i in range(G):
        for v in range(V):
            if i == v:
                continue
            for b in range(B):
                P, Q = softmax((teacher[i, b] - center) / 0.05), softmax(student[v, b] / 0.1)
                losses.append(-sum(P * np.log(Q)))
                entropies.append(-sum(P * np.log(P)))
    result = dino(*map(torch.from_numpy, (student, teacher)), center=torch.from_numpy(center), **TEMPERATURES)
    assert result.loss.item() == pytest.approx(np.mean(losses), rel=1e-9, abs=1e-12)
    assert result.entropy.item() == pytest.approx(np.mean(entropies), rel=1e-9, abs=1e-12)
    assert result.kl.item() == pytest.approx(np.mean(losses) - np.mean(entropies), rel=1e-9, abs=1e-12)


def test_both_collapses_show_in_the_entropy():
    settings = {"center": torch.zeros(8)} | TEMPERATURES
    uniform = dino(torch.zeros(2, 4, 8), torch.zeros(2, 4, 8), **settings)
    assert [part.item() for part in uniform] == pytest.approx([math.log(8), math.log(8), 0], abs=1e-6)
    one_hot = torch.zeros(2, 4, 8)
    one_hot[:, :, 3] = 100
    assert [part.item() for part in dino(one_hot, one_hot, **settings)] == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_view_is_never_compared_with_itself():
    student, teacher = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))[:, :2]
    student = student.requires_grad_()
    settings = {"center": torch.zeros(5)} | TEMPERATURES
    one_teacher = dino(student, teacher[:1], **settings).loss
    one_teacher.backward()
    assert student.grad[0].abs().max() == 0
    assert student.grad[1].abs().max() > 0


def test_large_logits_stay_finite():
    student = (1e4 * torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))).half().requires_grad_()
    result = dino(student, student[:2], center=torch.zeros(1, 5), **TEMPERATURES)
    result.loss.backward()
    assert all(part.isfinite() for part in result)
    assert student.grad.isfinite().all()


def test_the_center_moves_to_the_mean_of_all_views_and_keeps_its_shape():
    teacher = torch.arange(12.0).reshape(2, 3, 2)
    assert updated_center(torch.zeros(2), teacher, momentum=0.0).tolist() == [5, 6]
    moved = updated_center(torch.tensor([[10.0, 10.0]]), teacher, momentum=0.9)
    assert moved.tolist() == [pytest.approx([9.5, 9.6])]
    assert updated_center(torch.zeros(2).half(), teacher.half(), momentum=0.5).dtype == torch.float32


def test_the_center_takes_no_gradient():
    teacher = torch.ones(2, 3, 4, requires_grad=True)
    assert not updated_center(torch.zeros(4), teacher, momentum=0.9).requires_grad


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"teacher": torch.zeros(2, 4, 7)}, "need .V >= 2"),
        ({"teacher": torch.zeros(4, 4, 8)}, "G <= V"),
        ({"student": torch.zeros(1, 4, 8), "teacher": torch.zeros(1, 4, 8)}, "V >= 2"),
        ({"student": torch.zeros(3, 0, 8), "teacher": torch.zeros(2, 0, 8)}, "at least one tile"),
        ({"center": torch.zeros(7)}, "center must be"),
        ({"student_temperature": 0}, "student_temperature must be > 0"),
        ({"teacher_temperature": 0}, "teacher_temperature must be > 0"),
    ],
)
def test_misuse_is_refused(change, match):
    sound = {"student": torch.zeros(3, 4, 8), "teacher": torch.zeros(2, 4, 8), "center": torch.zeros(8)} | TEMPERATURES
    with pytest.raises(ValueError, match=match):
        dino(**(sound | change))


def test_a_center_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="teacher must be"):
        updated_center(torch.zeros(4), torch.zeros(3, 4), momentum=0.9)
    with pytest.raises(ValueError, match="center must be"):
        updated_center(torch.zeros(3), torch.zeros(2, 3, 4), momentum=0.9)
    with pytest.raises(ValueError, match="momentum must lie in"):
        updated_center(torch.zeros(4), torch.zeros(2, 3, 4), momentum=1.1)
