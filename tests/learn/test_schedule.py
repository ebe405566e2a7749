"""The shapes of rates over a run, and which precision a machine gets."""

import math

import pytest
import torch

from histokin.learn.precision import choose_precision, has_native_bf16
from histokin.learn.schedule import cosine, learning_rate


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


def test_rate_ends_at_its_share_of_the_peak_and_warms_up_as_ever():
    with_end = [learning_rate(step, 400, peak=2.0, warmup=0.1, end=0.25) for step in range(400)]
    without = [learning_rate(step, 400, peak=2.0, warmup=0.1) for step in range(400)]
    assert with_end[:40] == without[:40]
    assert with_end[-1] == pytest.approx(0.5, rel=1e-4)
    assert min(with_end[40:]) == with_end[-1] > 0.5
    # Halfway down the cosine, between 2.0 and 0.5.
    assert (with_end[219] + with_end[220]) / 2 == pytest.approx(1.25)


def test_cosine_gives_the_momentum_of_byol(golden):
    """The reference's golden numbers of the momentum encoder's schedule."""
    case = next(case for case in golden["cases"] if case["id"] == "ema_cosine")
    inputs = case["inputs"]
    values = [cosine(step, inputs["total"], start=inputs["base"], end=inputs["final"]) for step in inputs["steps"]]
    assert values == pytest.approx(case["expected"], rel=1e-12)


def test_cosine_reaches_both_values_exactly_and_stays_there():
    for start, end in [(0.04, 0.4), (1e-4, 1e-4), (1.0, 0.0)]:
        values = [cosine(step, 50, start=start, end=end) for step in range(61)]
        assert values[0] == start
        assert values[25] == pytest.approx((start + end) / 2)
        assert values[50:] == [end] * 11
        assert values == sorted(values, reverse=start > end)
        assert start != end or set(values) == {start}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16 x", True), ("amx_bf16", True), ("not_avx512_bf16x", False)],
)
def test_bf16_is_taken_only_where_a_unit_is_named(flags, expected):
    assert has_native_bf16(flags) is expected


def test_what_is_asked_for_is_what_one_gets():
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert choose_precision("fp32", torch.device("cuda")) == "fp32"
