"""Monitors against golden numbers and closed forms; the alarm's rules."""

import dataclasses

import numpy as np
import pytest
import torch

from histokin.learn.monitors import Look, alignment, feature_std, find_alarms, look_at, rankme, uniformity

SOUND = Look(step=100, rank=60.0, spread=0.7, alignment=0.3, uniformity=-1.5)


def chirp(n, d, s):
    i, j = np.mgrid[:n, :d]
    return torch.from_numpy(np.sin(0.37 * (i * d + j + 1.0) ** 2 + s))


@pytest.mark.parametrize("case_id", ["rankme", "rankme_eps", "alignment_2", "alignment_1", "uniformity", "feature_std"])
def test_golden_numbers(golden, case_id):
    case = next(case for case in golden["cases"] if case["id"] == case_id)
    function = {"rankme": rankme, "alignment": alignment, "uniformity": uniformity, "feature_std": feature_std}
    inputs = [chirp(*v["chirp"]) if isinstance(v, dict) else v for v in case["inputs"].values()]
    assert function[case["function"]](*inputs).item() == pytest.approx(case["expected"], rel=1e-9)


def test_hand_cases():
    assert rankme(torch.eye(3), eps=0).item() == pytest.approx(3)
    assert rankme(torch.ones(5, 4), eps=0).item() == pytest.approx(1)
    assert alignment(torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]])).item() == pytest.approx(2)
    assert uniformity(torch.eye(2)).item() == pytest.approx(-4)


@pytest.mark.parametrize("constant", [torch.ones(16, 8), torch.zeros(16, 8)])
def test_a_constant_encoder_is_flagged(constant):
    look = look_at(10, constant, constant[:4], constant[:4])
    assert (look.spread, look.alignment) == (0, 0)
    assert look.rank == pytest.approx(1, abs=1e-4)
    alarms = find_alarms([look], dim=100, n_probe=100, loss=1.0, trivial=None)
    assert len(alarms) == 2
    assert all("collapsed" in alarm for alarm in alarms)


def test_a_sound_run_raises_no_alarm():
    assert find_alarms([SOUND] * 5, dim=256, n_probe=512, loss=2.3, trivial=4.8) == ()


def test_each_rule_raises_its_own_alarm():
    def alarms(*looks, loss=2.0):
        return find_alarms(looks, dim=256, n_probe=512, loss=loss, trivial=4.8)

    replace = dataclasses.replace
    assert "few directions: effective rank 12.7 of 256" in alarms(replace(SOUND, rank=12.7))[0]
    assert alarms(replace(SOUND, rank=12.9)) == ()
    assert "their spread is 0.099" in alarms(replace(SOUND, spread=0.099))[0]
    assert alarms(replace(SOUND, spread=0.101)) == ()
    falling = [replace(SOUND, rank=rank) for rank in (60, 50, 40, 30)]
    assert "fell at the last three looks (from 60.0 to 30.0)" in alarms(*falling)[0]
    assert alarms(*falling[:3]) == ()
    assert alarms(falling[0], falling[2], falling[1], falling[3]) == ()
    assert "that of a constant encoder (4.800)" in alarms(SOUND, loss=4.75)[0]
    assert alarms(SOUND, loss=4.6) == ()


def test_rank_is_judged_by_what_few_tiles_allow():
    look = dataclasses.replace(SOUND, rank=5.0)
    assert find_alarms([look], dim=2048, n_probe=20, loss=1.0, trivial=None) == ()
