"""Support vector machines against hand figures, scikit-learn, other row orders and shuffled labels."""

import numpy as np
import pytest
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC, LinearSVC

from histokin.evaluate.probes import svm
from histokin.evaluate.probes.folds import grouped_folds
from histokin.evaluate.probes.outcome import Part
from histokin.evaluate.probes.scores import macro_auc
from histokin.evaluate.probes.svm import LINEAR_C_GRID, SVMProbe, margins
from histokin.evaluate.vectors import scaled

# The reference's case `svm_hand`: (0, 0) is -1, (2, 0) is +1, gamma .5, C 100; asked (1.5, 0); closed form.
HAND = {"alpha": 1.15651764275, "f_rbf": 0.645156931249, "f_linear": 0.5, "tol": 0.001}
BOTH = pytest.mark.parametrize("kernel", ["linear", "rbf"])


def world(n_groups=6, n_each=20, width=5, n_classes=3, signal=1.5, seed=0):
    """A training part with every class in every group, and a test part of two more groups."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups + 2), n_each)
    truth = np.tile(np.arange(n_each) % n_classes, n_groups + 2)
    x = rng.normal(size=(len(truth), width)) + 0.5 * rng.normal(size=(n_groups + 2, width))[groups]
    x[np.arange(len(x)), truth] += signal
    is_train = groups < n_groups
    train, test = scaled(x[is_train], x[~is_train])
    return Part(train, truth[is_train], groups[is_train], n_classes, 3), test, truth[~is_train]


def test_two_points_give_the_hand_figures():
    train = Part(np.array([[0.0, 0], [2, 0]]), np.array([0, 1]), np.array([0, 1]), 2, 3)
    asked = np.array([[1.5, 0.0]])
    for kernel, gamma, expected in (("rbf", 0.5, HAND["f_rbf"]), ("linear", None, HAND["f_linear"])):
        found = SVMProbe(kernel=kernel, c=100, gamma=gamma).predict(train, asked)
        assert found.values[0] == pytest.approx([-expected, expected], abs=HAND["tol"])
    model = svm.machine(100, 0.5, is_balanced=True)
    assert svm.fit(model, train.x, train.truth)
    assert np.abs(model.dual_coef_) == pytest.approx(np.full((1, 2), HAND["alpha"]), abs=HAND["tol"])
    assert model.intercept_ == pytest.approx([0], abs=HAND["tol"])


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("is_balanced", [True, False])
@BOTH
def test_margins_are_scikit_learns(kernel, n_classes, is_balanced):
    train, test, _ = world(n_classes=n_classes, width=8)
    found = SVMProbe(kernel=kernel, c=10.0, is_balanced=is_balanced, gamma=0.1 if kernel == "rbf" else None)
    weight = "balanced" if is_balanced else None
    model = SVC(C=10, gamma=0.1, class_weight=weight, tol=1e-6, break_ties=True)
    if kernel == "linear":
        model = LinearSVC(C=10, class_weight=weight, tol=1e-8, dual=False, max_iter=10_000)
    model.fit(train.x, train.truth)
    said = found.predict(train, test)
    expected = model.decision_function(test)
    expected = np.column_stack([-expected, expected]) if n_classes == 2 else expected
    assert said.values == pytest.approx(expected, abs=5e-3)
    assert (said.values.argmax(axis=1) == model.predict(test)).mean() > 0.99
    assert said.is_converged
    assert not said.is_probability


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("is_balanced", [True, False])
def test_a_pairwise_linear_machine_is_libsvms(n_classes, is_balanced):
    train, test, _ = world(n_classes=n_classes, width=8)
    said = SVMProbe(c=1.0, is_balanced=is_balanced, is_pairwise=True).predict(train, test)
    model = SVC(C=1, kernel="linear", class_weight="balanced" if is_balanced else None, tol=1e-6)
    expected = model.fit(train.x, train.truth).decision_function(test)
    expected = np.column_stack([-expected, expected]) if n_classes == 2 else expected
    differs = np.abs(said.values - expected).max(axis=1) > 0.01
    assert differs.sum() <= 1  # solved to .001, a row on the border of two classes may give its vote to the other
    assert said.gamma is None
    apart = SVMProbe(c=1.0, is_balanced=is_balanced).predict(train, test)
    assert said.values != pytest.approx(apart.values, abs=0.1)


def test_automatic_gamma_is_the_training_parts_own_and_is_not_chosen():
    train, test, _ = world()
    moved = Part(3 * train.x, train.truth, train.groups, 3, 3)
    for part, variance in ((train, 1), (moved, 9)):
        said = SVMProbe(kernel="rbf", c=1.0, gamma="scale").predict(part, test)
        assert said.gamma == pytest.approx(1 / (5 * variance))
        assert (said.setting, said.is_at_edge, said.is_unchosen) == (1.0, False, False)
    assert len(SVMProbe(kernel="rbf", gamma="scale")._grid()) == 3


def test_pairs_make_no_difference_to_an_rbf_machine(monkeypatch):
    train, test, _ = world()
    for most in (svm.MOST_EXACT, 50):
        monkeypatch.setattr(svm, "MOST_EXACT", most)
        first, second = (
            SVMProbe(kernel="rbf", c=1.0, gamma=0.1, is_pairwise=pairs).predict(train, test) for pairs in (False, True)
        )
        assert (first.values == second.values).all()


def test_more_dimensions_than_rows_are_fitted_too():
    train, test, truth = world(width=300, signal=4.0)
    said = SVMProbe(c=1.0).predict(train, test)
    model = LinearSVC(C=1, class_weight="balanced", tol=1e-8, dual=True, max_iter=100_000).fit(train.x, train.truth)
    assert said.values == pytest.approx(model.decision_function(test), abs=5e-3)
    assert (said.values.argmax(axis=1) == truth).mean() > 0.5


@pytest.mark.parametrize("n_classes", [2, 4])
@BOTH
def test_area_of_the_margins_is_scikit_learns(kernel, n_classes):
    train, test, truth = world(n_classes=n_classes)
    values = SVMProbe(kernel=kernel, c=1.0).predict(train, test).values
    area = macro_auc(values, truth, np.zeros(len(truth), dtype=int), 1)(np.ones((1, 1)))[0]
    expected = np.mean([roc_auc_score(truth == code, values[:, code]) for code in range(n_classes)])
    assert area == pytest.approx(expected)
    assert area > 0.7


@BOTH
def test_rows_in_another_order_change_nothing(kernel):
    train, test, _ = world(n_classes=4)
    order = np.random.default_rng(3).permutation(len(train.x))
    moved = Part(train.x[order], train.truth[order], train.groups[order], 4, 3)
    first, second = (SVMProbe(kernel=kernel).predict(part, test) for part in (train, moved))
    assert (first.values == second.values).all()
    assert (first.setting, first.gamma, first.is_at_edge) == (second.setting, second.gamma, second.is_at_edge)


def slow_choice(train, kernel):
    """Every setting by its own loop: the best pooled inner balanced accuracy, ties to smaller C, then gamma."""
    folds = grouped_folds(train.groups, 3, train.truth)
    best, most = None, -1.0
    settings = [(c, None) for c in LINEAR_C_GRID]
    if kernel == "rbf":
        settings = [(c, multiple) for c in (1, 10, 100) for multiple in (0.1, 1, 10)]
    for c, multiple in settings:
        said = np.zeros(len(train.x), dtype=int)
        for fold in range(3):
            own = folds == fold
            x, test = scaled(train.x[~own], train.x[own])
            model = LinearSVC(C=c, class_weight="balanced", dual="auto", random_state=0)
            if multiple is not None:
                model = SVC(C=c, gamma=multiple / (x.shape[1] * x.var()), class_weight="balanced", break_ties=True)
            said[own] = model.fit(x, train.truth[~own]).predict(test)
        recall = np.mean([(said[train.truth == code] == code).mean() for code in np.unique(train.truth)])
        if recall > most + 1e-9:
            best, most = (c, multiple), recall
    return best


@pytest.mark.parametrize("seed", [0, 1, 2])
@BOTH
def test_settings_are_chosen_as_a_loop_chooses_them(kernel, seed):
    train, test, _ = world(signal=0.8, seed=seed)
    said = SVMProbe(kernel=kernel).predict(train, test)
    c, multiple = slow_choice(train, kernel)
    assert said.setting == c
    assert not said.is_unchosen
    if kernel == "linear":
        assert said.gamma is None
        assert said.is_at_edge == (c in (1e-3, 1e2))
    else:
        assert said.gamma == pytest.approx(multiple / (train.x.shape[1] * train.x.var()))
        assert said.is_at_edge == (c in (1, 100) or multiple in (0.1, 10))


def test_ties_take_the_smaller_c_and_the_smaller_gamma():
    train, test, _ = world(signal=30.0)
    linear, rbf = (SVMProbe(kernel=kernel).predict(train, test) for kernel in ("linear", "rbf"))
    assert (linear.setting, linear.is_at_edge) == (1e-3, True)
    assert (rbf.setting, rbf.is_at_edge) == (1.0, True)
    assert rbf.gamma == pytest.approx(0.1 / 5)


def test_ties_are_settled_by_c_before_gamma():
    grid = SVMProbe(kernel="rbf")._grid()
    assert grid == sorted(grid)
    assert len(grid) == 9


def test_gamma_is_a_multiple_of_one_over_the_dimensions_and_the_variance_of_all_numbers():
    train, test, _ = world()
    wide = Part(3 * train.x + np.arange(5), train.truth, np.zeros_like(train.groups), 3, 3)
    assert SVMProbe(kernel="rbf").predict(wide, test).gamma == pytest.approx(1 / (5 * (9 + np.arange(5).var())))


def test_a_given_setting_is_taken_and_the_other_chosen():
    train, test, _ = world()
    fixed = SVMProbe(kernel="rbf", c=3.0, gamma=0.07).predict(train, test)
    assert (fixed.setting, fixed.gamma, fixed.is_at_edge, fixed.is_unchosen) == (3.0, 0.07, False, False)
    by_c = SVMProbe(kernel="rbf", c=3.0).predict(train, test)
    assert by_c.setting == 3.0
    assert by_c.gamma in [pytest.approx(m / 5) for m in (0.1, 1, 10)]
    by_gamma = SVMProbe(kernel="rbf", gamma=0.07).predict(train, test)
    assert by_gamma.setting in (1, 10, 100)
    assert by_gamma.gamma == 0.07


@BOTH
def test_a_single_group_leaves_nothing_to_choose_on_and_says_so(kernel):
    train, test, _ = world()
    alone = Part(train.x, train.truth, np.zeros_like(train.groups), 3, 3)
    said = SVMProbe(kernel=kernel).predict(alone, test)
    assert (said.setting, said.is_unchosen, said.is_at_edge) == (1.0, True, False)
    assert said.gamma == (None if kernel == "linear" else pytest.approx(1 / 5))
    assert not SVMProbe(kernel=kernel, c=2.0, gamma=0.1 if kernel == "rbf" else None).predict(alone, test).is_unchosen


@BOTH
def test_a_sole_class_needs_no_fit_and_absent_classes_are_never_said(kernel):
    x = np.random.default_rng(0).normal(size=(6, 2))
    sole = Part(x, np.full(6, 1), np.arange(6), 3, 3)
    assert SVMProbe(kernel=kernel).predict(sole, x[:2]).values.tolist() == [[-np.inf, 0, -np.inf]] * 2
    train, test, _ = world()
    kept = train.truth != 1
    lacking = Part(train.x[kept], train.truth[kept], train.groups[kept], 3, 3)
    values = SVMProbe(kernel=kernel).predict(lacking, test).values
    assert (values[:, 1] == -np.inf).all()
    assert np.isfinite(values[:, [0, 2]]).all()


@BOTH
def test_an_inner_fold_of_one_class_harms_nothing(kernel):
    x = np.random.default_rng(0).normal(size=(30, 3))
    truth = np.repeat([0, 1], 15)  # a class a group: inner training parts hold one class
    said = SVMProbe(kernel=kernel).predict(Part(x, truth, truth, 2, 3), x)
    assert np.isfinite(said.values).all()


@BOTH
def test_shuffled_labels_fall_to_chance(kernel):
    train, test, truth = world(n_groups=10, n_each=30, signal=2.0)
    hits = []
    for seed in range(8):
        shuffled = np.random.default_rng(seed).permutation(train.truth)
        blind = Part(train.x, shuffled, train.groups, 3, 3)
        hits.append((SVMProbe(kernel=kernel).predict(blind, test).values.argmax(axis=1) == truth).mean())
    # 60 rows a run and 8 runs: if they were independent the mean's sd would be .022.
    assert np.mean(hits) == pytest.approx(1 / 3, abs=0.1)
    told = SVMProbe(kernel=kernel).predict(train, test).values.argmax(axis=1)
    assert (told == truth).mean() > 0.7


def test_a_solver_that_stops_early_is_told(monkeypatch):
    monkeypatch.setattr(svm, "_MAX_ITER", {"linear": 1, "rbf": 1})
    train, test, _ = world()
    for kernel in ("linear", "rbf"):
        assert (
            not SVMProbe(kernel=kernel, c=1.0, gamma=0.1 if kernel == "rbf" else None).predict(train, test).is_converged
        )


def test_too_many_rows_are_met_by_landmarks_and_marked(monkeypatch):
    train, test, truth = world(n_each=60)
    exact = SVMProbe(kernel="rbf", c=1.0, gamma=0.1).predict(train, test)
    assert not exact.is_approximate
    monkeypatch.setattr(svm, "MOST_EXACT", 100)
    said = SVMProbe(kernel="rbf", c=1.0, gamma=0.1).predict(train, test)  # 360 rows, all of them landmarks
    assert said.is_approximate
    assert said.gamma == 0.1
    kernel = Nystroem(gamma=0.1, n_components=len(train.x), random_state=0).fit(train.x)
    model = LinearSVC(C=1, class_weight="balanced", dual="auto", tol=1e-8, max_iter=10_000, random_state=0)
    model.fit(kernel.transform(train.x), train.truth)
    assert said.values == pytest.approx(model.decision_function(kernel.transform(test)), abs=5e-3)
    assert (said.values.argmax(axis=1) == exact.values.argmax(axis=1)).mean() > 0.9
    monkeypatch.setattr(svm, "N_LANDMARKS", 80)
    few = SVMProbe(kernel="rbf").predict(train, test)
    assert (few.values.argmax(axis=1) == truth).mean() > 0.6
    order = np.random.default_rng(1).permutation(len(train.x))
    moved = Part(train.x[order], train.truth[order], train.groups[order], 3, 3)
    assert (SVMProbe(kernel="rbf").predict(moved, test).values == few.values).all()
    assert not SVMProbe(c=1.0).predict(train, test).is_approximate  # a linear machine takes any number


def test_features_in_half_precision_give_nearly_the_same_margins():
    train, test, _ = world()
    half = Part(train.x.astype(np.float16).astype(np.float64), train.truth, train.groups, 3, 3)
    for kernel in ("linear", "rbf"):
        first, second = (SVMProbe(kernel=kernel, c=1.0).predict(part, test).values for part in (train, half))
        assert first == pytest.approx(second, abs=0.02)  # half has 11 bits: 5e-4 of each number


def test_features_that_do_not_vary_give_a_finite_answer():
    train, test, _ = world()
    flat = Part(np.zeros_like(train.x), train.truth, train.groups, 3, 3)
    for kernel in ("linear", "rbf"):
        assert np.isfinite(SVMProbe(kernel=kernel).predict(flat, np.zeros_like(test)).values).all()


def test_two_classes_mirror_each_other_and_equal_margins_say_the_first():
    class Still:
        def decision_function(self, test):
            return np.array([0.0, 2.0, -2.0])[: len(test)]

    found = margins(Still(), np.zeros((3, 1)), np.array([0, 2]), 3)
    assert found.tolist() == [[0, -np.inf, 0], [-2, -np.inf, 2], [2, -np.inf, -2]]
    assert found.argmax(axis=1).tolist() == [0, 2, 0]


def test_the_word_tells_the_kernel():
    assert (SVMProbe().word, SVMProbe(kernel="rbf").word) == ("svm", "svm-rbf")
    assert SVMProbe().is_standardised


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kernel": "poly"}, "kernel must be linear or rbf"),
        ({"c": 0.0}, "C and gamma must be > 0"),
        ({"kernel": "rbf", "gamma": -1.0}, "C and gamma must be > 0"),
        ({"kernel": "rbf", "gamma": "auto"}, "got None and auto"),
        ({"gamma": "scale"}, "has no gamma"),
        ({"gamma": 1.0}, "has no gamma"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        SVMProbe(**settings)
