"""The learning rate's shape, and which precision a machine gets."""

import math

import pytest
import torch

from histokin.learn.precision import choose_precision, has_native_bf16
from histokin.learn.schedule import learning_rate


def test_rate_rises_over_the_warm_up_and_falls_to_nothing():
    rates = [learning_rate(step, 200, peak=4e-3, warmup=0.1) for step in range(200)]
    assert max(rates) == pytest.approx(4e-3, rel=1e-3)
    assert rates.index(max(rates)) == 20
    assert 0 < rates[0] < rates[19] / 10
    assert rates[-1] < 1e-6
    assert rates[109] == pytest.approx(4e-3 * 0.5 * (1 + math.cos(math.pi * (109.5 / 200 - 0.1) / 0.9)))


@pytest.mark.parametrize("warmup", [0.0, 0.1])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_short_runs_have_a_rate_at_every_step(steps, warmup):
    assert all(0 < learning_rate(step, steps, peak=1.0, warmup=warmup) <= 1 for step in range(steps))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16 x", True), ("amx_bf16", True), ("not_avx512_bf16x", False)],
)
def test_bf16_is_taken_only_where_a_unit_is_named(flags, expected):
    assert has_native_bf16(flags) is expected


def test_what_is_asked_for_is_what_one_gets():
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert choose_precision("fp32", torch.device("cuda")) == "fp32"
