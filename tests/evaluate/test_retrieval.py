"""Retrieval metrics against the golden lists and the generated set F1 under all exclusion rules."""

from itertools import pairwise

import numpy as np
import pytest

from histokin.evaluate.chance import chance_acc, chance_ap
from histokin.evaluate.items import make_task
from histokin.evaluate.retrieval import (
    Retrieved,
    acc_at_k,
    ap_at_k,
    macro_f1_at_k,
    mean_over,
    mmv_at_k,
    precision_at_k,
)
from histokin.search import top_k

RULES = {"ranktie": "rank", "strict": "strict", "anytie": "anytie", "smallest": "smallest"}


def frame_of(lists, truth, n_relevant, classes):
    k = max(len(entry) for entry in lists)
    labels = np.array([[*entry, *[-1] * (k - len(entry))] for entry in lists])
    n = len(lists)
    return Retrieved(
        np.arange(n),
        np.array(truth),
        labels,
        labels,
        labels.astype(float),
        np.full(n, 99),
        np.array(n_relevant),
        tuple(classes),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_metrics_meet_the_golden_lists(golden, k):
    case = golden[f"retrieval_tiny_k{k}"]
    frame = frame_of(
        [[ord(c) - 65 for c in ranked] for ranked in case["input"]["ranked"]],
        [ord(c) - 65 for c in case["input"]["query_labels"]],
        case["input"]["n_relevant"],
        "ABCDE",
    )
    expected = case["expected"]
    assert acc_at_k(frame, k).mean() == pytest.approx(expected["acc"])
    assert ap_at_k(frame, k, denominator="over-k").mean() == pytest.approx(expected["map_over_k"])
    assert ap_at_k(frame, k).mean() == pytest.approx(expected["map_over_min"])
    assert macro_f1_at_k(frame, k, classes=tuple("ABCDE")) == pytest.approx(expected["macro_f1"])
    if k == 5:  # E occurs neither as truth nor as prediction: without it the mean is over four classes
        assert macro_f1_at_k(frame, k) == pytest.approx(5 / 12)


@pytest.mark.parametrize("leave_out", ["self", "slide", "patient"])
def test_set_f1_gives_the_golden_figures_under_each_exclusion(golden, f1, leave_out):
    expected = golden["retrieval_F1"]["expected"][leave_out]
    task = make_task(f1.items, leave_out=leave_out, max_queries=1000, seed=0)
    groups = {"query_ids": task.queries} if leave_out == "self" else {}
    if not groups:
        groups = {"query_groups": task.groups, "database_groups": task.groups}
    found = top_k(f1.x, f1.x, 10, **groups)
    frame = task.frame(found)
    assert found.ids[0].tolist() == expected["neighbours_of_0"]
    for k in (1, 3, 5, 10):
        want = expected[f"k{k}"]
        assert acc_at_k(frame, k).mean() == pytest.approx(want["acc"], abs=1e-9)
        for name, rule in RULES.items():
            assert mmv_at_k(frame, k, rule=rule).mean() == pytest.approx(want[f"mmv_{name}"], abs=1e-9)
        assert ap_at_k(frame, k, denominator="over-k").mean() == pytest.approx(want["map_over_k"], abs=1e-9)
        assert ap_at_k(frame, k).mean() == pytest.approx(want["map_over_min"], abs=1e-9)
        assert macro_f1_at_k(frame, k) == pytest.approx(want["macro_f1"], abs=1e-9)
    for k in (1, 3, 5):
        blind = chance_acc(frame.n_allowed, frame.n_relevant, k).mean()
        assert blind == pytest.approx(expected["chance_acc"][f"k{k}"], abs=1e-9)
    blind = chance_ap(frame.n_allowed, frame.n_relevant, 5).mean()
    assert blind == pytest.approx(expected["chance_map_over_min_k5"], abs=1e-9)


def test_relabelling_by_a_bijection_changes_nothing_but_smallest(f1):
    found = top_k(f1.x, f1.x, 5, query_groups=f1.patient, database_groups=f1.patient)
    swap = np.array([2, 0, 3, 1])
    frames = []
    for label in (f1.label, swap[f1.label]):
        task = make_task(type(f1.items).of(label, f1.patient, f1.slide), leave_out="patient", max_queries=999, seed=0)
        frames.append(task.frame(found))
    for metric in (acc_at_k, precision_at_k, ap_at_k, mmv_at_k):
        assert (metric(frames[0], 5) == metric(frames[1], 5)).all()
    assert macro_f1_at_k(frames[0], 5) == pytest.approx(macro_f1_at_k(frames[1], 5))


def test_acc_never_falls_with_k(f1):
    task = make_task(f1.items, leave_out="patient", max_queries=999, seed=0)
    frame = task.frame(top_k(f1.x, f1.x, 10, query_groups=f1.patient, database_groups=f1.patient))
    values = [acc_at_k(frame, k) for k in range(1, 11)]
    assert all((after >= before).all() for before, after in pairwise(values))


def test_a_class_of_one_patient_counts_as_misses():
    frame = frame_of([[1, 1], [0, 0]], [0, 0], [0, 5], "ab")
    assert ap_at_k(frame, 2).tolist() == [0, 1]
    assert precision_at_k(frame, 2).tolist() == [0, 1]


def test_mean_over_groups_counts_each_group_once():
    assert mean_over(np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 4])) == 0.5


def test_more_neighbours_than_held_are_refused():
    with pytest.raises(ValueError, match="holds 2 neighbours a query, asked for 3"):
        acc_at_k(frame_of([[1, 1]], [0], [1], "ab"), 3)
