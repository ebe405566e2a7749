"""The no-match threshold: golden cases, exact arithmetic, the error rate it promises and what breaks it."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

from histokin.errors import SearchError
from histokin.search.calibration import (
    Bests,
    NoMatch,
    best_elsewhere,
    draw_queries,
    fewest_patients,
    is_stale,
    search_elsewhere,
)

# Cases no_match_threshold and no_match_p_value of the reference.
GOLDEN = [.62, .55, .71, .8, .66, .58, .74, .69, .77, .83, .5, .6, .64, .68, .72, .75, .79, .81, .85]  # fmt: skip


def names(n, prefix="p"):
    return np.array([f"{prefix}{i:03d}" for i in range(n)], dtype=object)


def calibrated(best, **options):
    options = {"kind": "tile", "fingerprint": "f"} | options
    return NoMatch.of(np.asarray(best, dtype=float), options.pop("patients", names(len(best))), **options)


def test_threshold_and_p_values_meet_the_golden_cases():
    bests = Bests.of(np.array(GOLDEN), names(19))
    assert bests.threshold(0.1) == 0.55
    assert bests.threshold(0.04) is None
    assert [bests.p_value(s) for s in (0.49, 0.55, 0.9)] == pytest.approx([0.05, 0.15, 1.0])


def test_the_floor_is_that_of_exact_fractions():
    for n in range(1, 120):
        bests = Bests(tuple(names(n)), tuple(range(n)))
        for percent in (1, 5, 10, 29, 35, 57, 58):
            nth = math.floor(Fraction(percent, 100) * (n + 1))
            assert bests.threshold(percent / 100) == (nth - 1 if nth else None)


def test_a_query_is_refused_just_where_its_p_value_is_at_most_alpha():
    rng = np.random.default_rng(0)
    for n, alpha in ((19, 0.05), (39, 0.1), (60, 0.29)):
        bests = rng.integers(0, 30, n) / 30  # with ties
        model = calibrated(bests, alpha=alpha)
        for score in np.arange(-1, 32) / 30:
            verdict = model.judge(score)
            assert verdict.is_refused == (verdict.p_value <= alpha + 1e-12)


def test_below_nineteen_patients_nothing_can_be_said_at_five_percent():
    assert [fewest_patients(a) for a in (0.05, 0.1, 0.29, 0.5, 0.04)] == [19, 9, 3, 1, 24]
    assert calibrated(GOLDEN).judge(0.4).is_refused is True
    verdict = calibrated(GOLDEN[:18]).judge(0.4)
    assert (verdict.is_refused, verdict.threshold, verdict.n_patients) == (None, None, 18)
    assert verdict.note == "cannot be calibrated: 18 of the 19 patients needed at alpha 0.05"


def test_classes_with_enough_patients_have_thresholds_of_their_own_and_others_say_what_they_were_judged_by():
    best = np.concatenate([np.arange(19) / 100 + 0.8, np.arange(5) / 100 + 0.3])
    organ = np.array(["colon"] * 19 + ["skin"] * 5, dtype=object)
    model = calibrated(best, groups=organ)
    colon, skin, unknown, strange = (model.judge(0.5, group) for group in ("colon", "skin", "", "liver"))
    assert (colon.basis, colon.threshold, colon.is_refused, colon.n_patients, colon.note) == (
        "colon",
        0.8,
        True,
        19,
        "",
    )
    assert (skin.basis, skin.threshold, skin.is_refused, skin.n_patients) == ("", 0.3, False, 24)
    assert skin.note == "judged by all classes together: skin has 5 of the 19 patients needed"
    assert (unknown.is_refused, unknown.note) == (False, "")
    assert strange.note == "judged by all classes together: liver has 0 of the 19 patients needed"


def test_a_patient_is_one_number_the_median_of_its_queries():
    patients = np.array(["b", "a", "b", "b", "a", "c"], dtype=object)
    bests = Bests.of(np.array([0.1, 0.4, 0.9, 0.3, 0.6, np.nan]), patients)
    assert bests.patient == ("a", "b")  # c met nobody else
    assert bests.best == pytest.approx((0.5, 0.3))


def test_best_elsewhere_is_the_loop_over_other_patients_and_agrees_with_searching_one_by_one():
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(12, 5)), rng.normal(size=(40, 5))
    own, held = names(4)[rng.integers(0, 4, 12)], names(5)[rng.integers(0, 5, 40)]
    similarity = queries @ rows.T
    expected = [max(similarity[i, j] for j in range(40) if held[j] != own[i]) for i in range(12)]
    assert best_elsewhere(similarity, own, held).tolist() == expected

    asked = []

    def search(some, patient):
        asked.append(patient)
        return similarity[some][:, held != patient].max(axis=1)

    assert search_elsewhere(search, own).tolist() == expected
    assert sorted(asked) == sorted(set(own))  # one call a patient


def test_an_archive_of_one_patient_has_nobody_else():
    assert np.isnan(best_elsewhere(np.ones((2, 3)), names(1).repeat(2), names(1).repeat(3))).all()
    assert np.isnan(best_elsewhere(np.ones((2, 0)), names(2), names(0))).all()
    assert calibrated([np.nan, np.nan]).judge(0.5).n_patients == 0


def test_rows_without_a_patient_are_refused_since_they_would_pass_for_one():
    nobody = np.array(["p", ""], dtype=object)
    for call in (
        lambda: Bests.of(np.ones(2), nobody),
        lambda: draw_queries(nobody),
        lambda: best_elsewhere(np.ones((2, 2)), nobody, nobody),
        lambda: search_elsewhere(lambda rows, _: np.ones(len(rows)), nobody),
    ):
        with pytest.raises(ValueError, match="name it by its slide"):
            call()


def test_draws_are_of_every_patient_and_class_and_do_not_depend_on_who_else_is_there():
    patients = names(5).repeat(6)
    kind = np.tile(np.array(["a", "a", "a", "b", "b", "b"], dtype=object), 5)
    rows = draw_queries(patients, groups=kind)
    assert sorted(zip(patients[rows], kind[rows], strict=True)) == [(p, k) for p in names(5) for k in "ab"]
    assert (np.diff(rows) > 0).all()
    fewer = draw_queries(patients[6:], groups=kind[6:])
    assert (fewer + 6).tolist() == rows[rows >= 6].tolist()
    assert len(draw_queries(patients, each=4)) == 20
    assert draw_queries(patients, each=9).tolist() == list(range(30))
    assert len({tuple(draw_queries(patients, seed=seed)) for seed in range(5)}) > 1


def refused_share(each, *, n_trials=500, n_patients=29, n_tiles=8, alpha=0.1):
    """Of one tile of a new patient, asked of an archive of its own for each trial."""
    rng = np.random.default_rng(5)
    patients = names(n_patients).repeat(n_tiles)
    n_refused = 0
    for trial in range(n_trials):
        tiles = rng.normal(size=(n_patients + 1, 1, 4)) + 0.6 * rng.normal(size=(n_patients + 1, n_tiles, 4))
        tiles /= np.linalg.norm(tiles, axis=2, keepdims=True)
        archive = tiles[:-1].reshape(-1, 4)
        rows = draw_queries(patients, each=each, seed=trial)
        best = best_elsewhere(archive[rows] @ archive.T, patients[rows], patients)
        model = calibrated(best, patients=patients[rows], alpha=alpha)
        n_refused += model.judge((archive @ tiles[-1, 0]).max()).is_refused
    return n_refused, n_trials


def test_the_promised_share_of_new_patients_is_refused():
    share = binomtest(*refused_share(each=1)).proportion_ci(0.999, "wilson")
    assert share.low <= 0.1 <= share.high


@pytest.mark.slow
def test_medians_of_many_tiles_refuse_more_single_tiles_than_promised():
    """Negative control: why one query a patient is drawn unless asked otherwise."""
    assert binomtest(*refused_share(each=8)).proportion_ci(0.999, "wilson").low > 0.1


def test_the_local_ratio_compares_with_the_five_nearest_patients_that_are_known():
    model = calibrated([0.9, 0.8, 0.7, 0.6, 0.5, 0.1])
    hits = ("p001", "p001", "x", "p000", "p004", "p003", "p001", "p002", "p005")
    assert model.local_ratio(0.35, hits) == pytest.approx(0.35 / 0.7)
    assert model.local_ratio(0.35, ("p003", "p004")) == pytest.approx(0.35 / 0.55)
    assert math.isnan(model.local_ratio(0.35, ("x",)))
    assert math.isnan(calibrated([-0.5]).local_ratio(0.35, ("p000",)))


def test_the_local_ratio_sees_novelty_that_a_dense_class_hides():
    """A dense class (b near .99) and a wide one (b near .5): .8 passes the common threshold, not beside the dense."""
    model = calibrated(np.r_[np.full(20, 0.99), np.linspace(0.4, 0.6, 20)])
    assert model.judge(0.8).is_refused is False
    assert model.local_ratio(0.8, tuple(names(5))) < 0.85
    assert model.local_ratio(0.8, tuple(names(40)[20:25])) > 1


def test_what_was_never_calibrated_on_is_named():
    columns = {"scanner": np.array(["A", "B", "", "A"], dtype=object), "site": np.array([""] * 4, dtype=object)}
    model = calibrated([0.1, 0.2, 0.3, 0.4], seen=columns)
    assert model.strangers({"scanner": "A", "site": "", "stain": "HE"}) == ()
    assert model.strangers({"scanner": "C", "site": "x"}) == (
        "scanner C is none of those calibrated on: A, B",
        "site x is none of those calibrated on: none known",
    )


def test_a_calibration_survives_json_to_the_last_bit():
    rng = np.random.default_rng(0)
    organ = np.array(["colon", "skin", ""], dtype=object)[rng.integers(0, 3, 30)]
    model = calibrated(rng.random(30), groups=organ, seen={"site": organ}, kind="region", alpha=0.07)
    again = NoMatch.of_json(json.loads(json.dumps(model.to_json())))
    assert again == model
    assert [name for name, _ in again.groups] == ["colon", "skin"]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"format": 2}, "has format 2, this version reads 1"), ({"kind": "cell"}, "cannot be read"),
     ({"pooled": None}, "cannot be read"), ({"alpha": 1.5}, "alpha must lie between 0 and 1")],
)  # fmt: skip
def test_a_calibration_that_is_not_one_is_refused(change, said):
    with pytest.raises(SearchError, match=f"{said}.*Calibrate the index again"):
        NoMatch.of_json(calibrated([0.1]).to_json() | change)


def test_more_than_a_tenth_of_changed_patients_makes_a_calibration_stale():
    assert not is_stale(3, 30)
    assert is_stale(4, 30)
    assert not is_stale(0, 0)
    assert is_stale(1, 0)
