"""What every loss promises: exact arithmetic whatever the input, constants without gradient, a 0-d result."""

import pytest
import torch

from histokin.learn import losses

B, D, N, T = 48, 16, 96, 0.05


def world():
    """Features of two views that agree in part, and everything constant that a loss may ask for."""
    generator = torch.Generator().manual_seed(3)
    first, noise = torch.randn(2, B, D, generator=generator)
    bank = torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=1)
    index = torch.randperm(N, generator=generator)[:B]
    bank[index] = torch.nn.functional.normalize(first + torch.randn(B, D, generator=generator), dim=1)
    negatives = torch.randint(N, (B, 8), generator=generator)
    return first, first + 0.7 * noise, bank, index, negatives


def run(name, first, second, bank, index, negatives):
    near = torch.arange(B) % 2 == 0
    bank = bank.to(second.dtype)
    four = first.repeat(4, 1) + 0.1 * second.repeat(4, 1).roll(1, 0)
    result = {
        "nt_xent": lambda: losses.nt_xent(first, second, temperature=T),
        "info_nce_queue": lambda: losses.info_nce_queue(first, second, bank, temperature=T),
        "weighted_info_nce": lambda: losses.weighted_info_nce(
            first, second, bank, torch.arange(B * N).reshape(B, N) % 4 / 3, temperature=T
        ),
        "group_info_nce": lambda: losses.group_info_nce(first, second, clusters=8, iterations=3, temperature=T),
        "pair_linear": lambda: losses.pair_contrastive(first, second, near, margin=9, power=1, normalise=False),
        "pair_squared": lambda: losses.pair_contrastive(first, second, near, margin=1.4, power=2, normalise=True),
        "npid_softmax": lambda: losses.npid_softmax(first, bank, index, temperature=T, chunk=40),
        "npid_nce": lambda: losses.npid_nce(first, bank, index, negatives, temperature=T, Z=1e5),
        "npid_sampled_ce": lambda: losses.npid_sampled_ce(first, bank, index, negatives, temperature=T),
        "npid_proximal": lambda: losses.npid_proximal(first, bank, index),
        "sgcl_spatial": lambda: losses.sgcl_spatial(first, bank, index[:, None].repeat(1, 2), negatives, temperature=T),
        "sgcl_inner": lambda: losses.sgcl_inner(four, [bank] * 4, index, negatives, temperature=T),
        "barlow_twins": lambda: losses.barlow_twins(first, second),
        "vicreg": lambda: losses.vicreg(first, second),
        "byol": lambda: losses.byol(first, second, first.roll(1, 1), second),
        "simsiam": lambda: losses.simsiam(first, second, first.roll(1, 1), second),
        "dino": lambda: losses.dino(
            torch.stack([first, first.roll(1, 1), first.flip(1)]),
            torch.stack([second, second.roll(1, 1)]),
            center=second.mean(0).float(),
            student_temperature=0.1,
            teacher_temperature=T,
        ),
        "koleo": lambda: losses.koleo(first),
        "kde": lambda: losses.kde(first),
    }[name]()
    return (result, ()) if isinstance(result, torch.Tensor) else (result[0], result[1:])


EVERY = [
    "nt_xent", "info_nce_queue", "weighted_info_nce", "group_info_nce", "pair_linear", "pair_squared", "npid_softmax",
    "npid_nce", "npid_sampled_ce", "npid_proximal", "sgcl_spatial", "sgcl_inner", "barlow_twins", "vicreg", "byol",
    "simsiam", "dino", "koleo", "kde",
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_half_features_under_autocast_keep_value_and_direction(name, dtype):
    first, second, bank, index, negatives = world()
    exact, half = first.clone().requires_grad_(), first.to(dtype).requires_grad_()
    expected, _ = run(name, exact, second, bank, index, negatives)
    expected.backward()
    with torch.autocast("cpu", dtype=dtype):
        loss, parts = run(name, half, second.to(dtype), bank, index, negatives)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(part.isfinite().all() for part in parts)
    assert half.grad.isfinite().all()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert torch.cosine_similarity(half.grad.float().flatten(), exact.grad.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("name", EVERY)
def test_autocast_changes_not_a_bit_of_float32(name):
    plain, _ = run(name, *world())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = run(name, *world())
    assert cast.equal(plain)


@pytest.mark.parametrize("name", EVERY)
def test_the_result_is_0d_its_parts_are_detached_and_float64_stays(name):
    first, second, bank, index, negatives = world()
    first = first.requires_grad_()
    loss, parts = run(name, first, second, bank, index, negatives)
    assert loss.shape == ()
    assert loss.requires_grad
    assert not any(part.requires_grad for part in parts)
    double, _ = run(name, first.double(), second.double(), bank, index, negatives)
    assert double.dtype == torch.float64
    assert double.item() == pytest.approx(loss.item(), rel=2e-5)


@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_is_that_of_the_value(name):
    first, second, bank, index, negatives = world()
    first, second = first.double().requires_grad_(), second.double()
    loss, _ = run(name, first, second, bank, index, negatives)
    loss.backward()
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        along = 1e-6 * torch.randn(B, D, generator=generator, dtype=torch.float64)
        above, below = (run(name, (first + s * along).detach(), second, bank, index, negatives)[0] for s in (1, -1))
        assert ((above - below) / 2).item() == pytest.approx((first.grad * along).sum().item(), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "info_nce_queue", "weighted_info_nce", "npid_softmax", "npid_nce", "npid_sampled_ce", "npid_proximal",
        "sgcl_spatial", "sgcl_inner", "byol", "simsiam", "dino",
    ],
)  # fmt: skip
def test_constants_take_no_gradient(name):
    first, second, bank, index, negatives = world()
    first, second, bank = first.requires_grad_(), second.requires_grad_(), bank.requires_grad_()
    if name == "sgcl_inner":  # the local rows of this test's world are made from both views
        second = second.detach().requires_grad_()
        loss = losses.sgcl_inner(first.repeat(4, 1), [bank] * 4, index, negatives, temperature=T).loss
    else:
        loss, _ = run(name, first, second, bank, index, negatives)
    loss.backward()
    assert first.grad.abs().sum() > 0
    assert second.grad is None
    assert bank.grad is None


@pytest.mark.parametrize("name", [name for name in EVERY if name not in {"barlow_twins", "vicreg", "dino"}])
def test_a_dead_row_keeps_loss_and_gradient_finite(name):
    first, second, bank, index, negatives = world()
    first[3] = 0
    first = first.requires_grad_()
    loss, _ = run(name, first, second, bank, index, negatives)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.abs().max() < 1e4  # a zero row normalised plainly would take 1e12
