"""What the losses share."""

import pytest
import torch

from histokin.learn.losses.rows import (
    bank_similarity,
    exact_dtype,
    exactly,
    log_sum_exp,
    refuse_rows,
    softmax_loss,
    unit,
)


def test_unit_rows_have_length_one_at_any_scale_and_in_half_precision():
    x = torch.tensor([[3.0, 4.0], [3e-9, 4e-9], [3e15, 4e15]])
    assert torch.allclose(unit(x), torch.tensor([[0.6, 0.8]]).expand(3, 2))
    large = torch.full((1, 4), 6e4, dtype=torch.float16)  # its square overflows in half precision
    assert torch.allclose(unit(large), torch.full((1, 4), 0.5))


def test_a_zero_row_stays_zero_and_takes_no_gradient():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    (unit(x) * torch.tensor([1.0, 2.0])).sum().backward()
    assert unit(x)[0].tolist() == [0, 0]
    assert x.grad[0].tolist() == [0, 0]
    assert x.grad[1].abs().sum() > 0


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([torch.float16], torch.float32),
        ([torch.bfloat16, torch.float32], torch.float32),
        ([torch.float32, torch.float64], torch.float64),
    ],
)
def test_arithmetic_is_float32_or_better(dtypes, expected):
    assert exact_dtype(*(torch.ones(1, dtype=dtype) for dtype in dtypes)) == expected


def test_exactly_turns_autocast_off_also_for_tensors_passed_by_name():
    product = exactly(lambda *, x: x @ x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert product(x=torch.ones(2, 2)).dtype == torch.float32
    with pytest.raises(TypeError, match="needs tensors"):
        product(x=3)


def test_an_empty_row_of_logits_has_no_mass_and_no_gradient():
    logits = torch.tensor([[-torch.inf, -torch.inf], [0.0, -torch.inf]], requires_grad=True)
    mass = log_sum_exp(logits)
    mass[1].backward(retain_graph=True)
    assert mass.tolist() == [-torch.inf, 0]
    assert logits.grad.tolist() == [[0, 0], [1, 0]]
    assert log_sum_exp(torch.zeros(2, 0)).tolist() == [-torch.inf] * 2


def test_a_small_softmax_loss_keeps_its_relative_precision():
    assert softmax_loss(torch.tensor([30.0]), torch.tensor([0.0])).item() == pytest.approx(9.357622968839e-14, rel=1e-5)
    assert softmax_loss(torch.tensor([1.0]), torch.tensor([-torch.inf])).item() == 0


def test_bank_rows_shared_or_by_anchor_give_the_same_cosines():
    generator = torch.Generator().manual_seed(0)
    v, bank = unit(torch.randn(3, 4, generator=generator)), torch.randn(9, 4, generator=generator).half()
    rows = torch.tensor([8, 0, 0, 5])
    shared = bank_similarity(v, bank, rows)
    assert torch.allclose(shared, bank_similarity(v, bank, rows.repeat(3, 1)), atol=1e-6)
    assert torch.allclose(shared, torch.cosine_similarity(v[:, None], bank[rows].float()[None], dim=2), atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (torch.tensor([0, 1, 2]), r"integers of shape \(2,\) or \(2, M\)"),
        (torch.tensor([0.0, 1.0]), "must be integers"),
        (torch.tensor([0, 9]), r"must lie in 0\.\.8, got 0\.\.9"),
        (torch.tensor([0, -1]), r"must lie in 0\.\.8, got -1\.\.0"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, match):
    with pytest.raises(ValueError, match=match):
        refuse_rows("index", rows, 9, (2,), (2, None))
    refuse_rows("index", torch.tensor([[-1], [8]]), 9, (2, None), lowest=-1)
