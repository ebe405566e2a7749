import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from histokin.evaluate.intervals import patient_weights
from histokin.report.mil.curves import class_curve


def world(n=60, seed=0, *, is_tied=False):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    truth[:2] = [True, False]
    p = rng.random(n) * 0.7 + 0.25 * truth
    return np.round(p, 1) if is_tied else p, truth


def patients_of(n, slides=1):
    return np.array([f"P{number // slides:03d}" for number in range(n)], dtype=object)


def ends(value) -> tuple[float, float]:
    return value.low, value.high


def area(points):
    x, y = np.array(points).T
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_curves_and_their_areas_are_those_of_scikit_learn(seed, is_tied):
    p, truth = world(seed=seed, is_tied=is_tied)
    found = class_curve("m", "tumour", p, truth, patients_of(len(p), 2), n_draws=20)
    assert found.auc.value == pytest.approx(roc_auc_score(truth, p))
    assert found.ap.value == pytest.approx(average_precision_score(truth, p))
    assert area(found.roc) == pytest.approx(found.auc.value)
    assert area(found.pr) == pytest.approx(found.ap.value)  # the drawn steps are the figure beside them
    fpr, tpr, _ = roc_curve(truth, p, drop_intermediate=False)
    theirs = set(zip(fpr.round(9).tolist(), tpr.round(9).tolist(), strict=True))
    assert {(round(x, 9), round(y, 9)) for x, y in found.roc} <= theirs
    assert (found.roc[0], found.roc[-1]) == ((0, 0), (1, 1))
    assert (found.n_positive, found.n) == (int(truth.sum()), len(truth))


def test_equal_probabilities_give_the_diagonal_and_the_prevalence():
    truth = np.array([True, False, False, False])
    found = class_curve("m", "tumour", np.full(4, 0.3), truth, patients_of(4))
    assert found.roc == [(0, 0), (1, 1)]
    assert found.pr == [(0, 0.25), (1, 0.25)]
    assert (found.auc.value, found.ap.value) == (0.5, 0.25)


def height_at(x, fpr, tpr):
    """On the line between the two points round x; of several points above one another the highest."""
    at = max(i for i in range(len(fpr)) if fpr[i] <= x + 1e-9)
    if at == len(fpr) - 1 or fpr[at] >= x:
        return tpr[at]
    return tpr[at] + (x - fpr[at]) / (fpr[at + 1] - fpr[at]) * (tpr[at + 1] - tpr[at])


@pytest.mark.parametrize("slides", [4, 1])
def test_a_band_holds_95_percent_of_the_curves_of_resampled_patients(slides):
    p, truth = world(40, seed=3)
    strata = truth.astype(np.int64) if slides == 1 else None  # of patients of one truth each, drawn within it
    found = class_curve("m", "tumour", p, truth, patients_of(40, slides), n_draws=100)
    places = [0, 7, 25, 41, 50]
    heights = []
    for draw in patient_weights(40 // slides, n_draws=100, strata=strata):
        weight = draw[np.arange(40) // slides]
        if weight[truth].any() and weight[~truth].any():
            fpr, tpr, _ = roc_curve(truth, p, sample_weight=weight, drop_intermediate=False)
            heights.append([height_at(place / 50, fpr, tpr) for place in places])
    low, high = np.quantile(heights, [0.025, 0.975], axis=0)
    for place, *expected in zip(places, low, high, strict=True):
        assert found.roc_band[place] == pytest.approx((place / 50, *expected), abs=1e-6)
    assert all(a <= b for _, a, b in [*found.roc_band, *found.pr_band])
    assert ends(found.auc)[0] < area(found.roc) < ends(found.auc)[1]


def test_bands_narrow_with_patients_and_not_with_slides_of_the_same():
    p, truth = world(30, seed=5)
    few = class_curve("m", "a", p, truth, patients_of(30), n_draws=200)
    same = class_curve("m", "a", np.repeat(p, 4), np.repeat(truth, 4), patients_of(120, 4), n_draws=200)
    more = class_curve("m", "a", np.repeat(p, 4), np.repeat(truth, 4), patients_of(120), n_draws=200)
    width = lambda curve: float(np.mean([high - low for _, low, high in curve.roc_band]))  # noqa: E731
    assert width(same) == pytest.approx(width(few), rel=1e-6)
    assert width(more) < 0.7 * width(few)


def test_shuffled_labels_cover_chance():
    p, truth = world(80, seed=1)
    shuffled = np.random.default_rng(7).permutation(truth)
    found = class_curve("m", "a", p, shuffled, patients_of(80), n_draws=300)
    assert ends(found.auc)[0] < 0.5 < ends(found.auc)[1]


def test_too_few_patients_have_no_band_and_say_so():
    found = class_curve("m", "a", np.array([0.1, 0.4, 0.8]), np.array([False, True, True]), patients_of(3))
    assert (found.roc_band, found.pr_band, found.auc.low) == ([], [], None)
    assert "3 patients" in found.auc.note


def test_long_curves_are_thinned_and_keep_their_ends():
    p, truth = world(3000, seed=2)
    found = class_curve("m", "a", p, truth, patients_of(3000, 600), n_draws=5)
    assert len(found.roc) <= 400
    assert (found.roc[0], found.roc[-1]) == ((0, 0), (1, 1))
    assert area(found.roc) == pytest.approx(found.auc.value, abs=0.005)


@pytest.mark.parametrize("truth", [np.ones(3, bool), np.zeros(3, bool)])
def test_a_class_that_all_or_none_have_is_refused(truth):
    with pytest.raises(ValueError, match="tumour: need slides of the class and others"):
        class_curve("m", "tumour", np.ones(3), truth, patients_of(3))
