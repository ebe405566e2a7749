"""Robustness index and clustering score against golden figures, loops and planted truths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from histokin.errors import EvaluationError, StoreError
from histokin.evaluate.robustness import K_GRID, agreement, choose_k, clustering_score, robustness_index

# Cases robustness_index_F1 and clustering_score_tiny of the reference's golden file, tolerance 1e-9.
INDEX_F1 = {1: 0.558558558559, 11: 0.550438596491, 46: 0.540577481633, 60: 0.526183216227}
TINY = {"bio": [0, 0, 0, 1, 1, 1], "center": [0, 1, 0, 1, 0, 1], "cluster": [0, 0, 1, 1, 1, 1]}
ARI_TINY = (0.324324324324, -0.216216216216)


class Cohort:
    """Patients of one centre each, whose tiles are of two classes; each patient has two slides."""

    def __init__(self, *, n_patients=24, n_tiles=20, seed=0):
        self.rng = np.random.default_rng(seed)
        self.patients = np.repeat(np.arange(n_patients), n_tiles)
        self.centres = self.patients % 2
        self.slides = self.patients * 2 + np.arange(len(self.patients)) % 2
        self.classes = self.rng.integers(0, 2, len(self.patients))

    def features(self, *, biology=0.0, site=0.0, d=16):
        x = self.rng.normal(size=(len(self.patients), d))
        x[:, 0] += biology * (2 * self.classes - 1)
        x[:, 1] += site * (2 * self.centres - 1)
        return x

    def index(self, x, k=10, **options):
        return robustness_index(x, self.classes, self.centres, self.patients, self.slides, k, **options)


def loop(x, classes, centres, groups, k):
    """SO, OS, SS, OO counted one neighbour at a time, and the null from the allowed tiles one at a time."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    counts, expected = dict.fromkeys(("SO", "OS", "SS", "OO"), 0), dict.fromkeys(("SO", "OS", "SS", "OO"), 0.0)
    for i in range(len(x)):
        allowed = [j for j in range(len(x)) if groups[j] != groups[i]]
        near = sorted(allowed, key=lambda j: (float(((unit[i] - unit[j]) ** 2).sum()), j))[:k]
        kind = {
            j: "SO"[int(classes[i] != classes[j])]
            + "SO"[int(centres[i] != centres[j])]  # same class and other centre: SO
            for j in allowed
        }
        for j in near:
            counts[kind[j]] += 1
        for j in allowed:
            expected[kind[j]] += min(k, len(allowed)) / len(allowed)
    return counts, expected["SO"] / (expected["SO"] + expected["OS"])


@pytest.mark.parametrize("k", INDEX_F1)
def test_set_f1_gives_the_golden_index(f1, k):
    found = robustness_index(f1.x, f1.label, f1.site, f1.patient, f1.slide, k, leave_out="slide")
    assert found.value == pytest.approx(INDEX_F1[k], abs=1e-9)
    assert found.interval.method == "bca"
    assert found.interval.low < found.value < found.interval.high
    assert (found.k, found.n_queries, found.n_patients, found.leave_out) == (k, 240, 24, "slide")


@pytest.mark.parametrize("leave_out", ["patient", "slide"])
@pytest.mark.parametrize("k", [1, 7, 500])
def test_index_shares_and_null_equal_a_loop(leave_out, k):
    rng = np.random.default_rng(3)
    patients = np.sort(rng.integers(0, 9, 60))
    slides = patients * 3 + rng.integers(0, 3, 60)
    classes, centres = rng.integers(0, 3, 60), (patients + (rng.random(60) < 0.2)) % 3
    x = rng.normal(size=(60, 5)) + classes[:, None]
    found = robustness_index(x, classes, centres, patients, slides, k, leave_out=leave_out)
    counts, null = loop(x, classes, centres, {"patient": patients, "slide": slides}[leave_out], k)
    total = sum(counts.values())
    assert found.value == pytest.approx(counts["SO"] / (counts["SO"] + counts["OS"]))
    assert found.shares == pytest.approx({name: count / total for name, count in counts.items()})
    assert found.null == pytest.approx(null)
    assert ("fewer than 500 tiles" in found.warning) == (k == 500)


def test_planted_biology_is_near_one_and_a_planted_site_near_zero():
    cohort = Cohort()
    biology = cohort.index(cohort.features(biology=2.5))
    site = cohort.index(cohort.features(site=2.5))
    assert biology.value > 0.97
    assert biology.shares["OS"] + biology.shares["OO"] < 0.05
    assert site.value < 0.03
    assert site.interval.high < 0.1
    assert biology.interval.low > 0.9
    assert biology.null == site.null == pytest.approx(0.5, abs=0.03)


def test_labels_that_mean_nothing_give_the_null():
    # 40 cohorts of other sizes than half and half: 3 in 4 tiles of the first class, 2 in 3 patients of one centre.
    gaps, nulls = [], []
    for seed in range(40):
        cohort = Cohort(n_patients=12, seed=seed)
        cohort.classes = (cohort.rng.random(len(cohort.patients)) < 0.25).astype(int)
        cohort.centres = (cohort.patients % 3 == 0).astype(int)
        found = cohort.index(cohort.features())
        gaps.append(found.value - found.null)
        nulls.append(found.null)
    assert abs(np.mean(gaps)) < 4 * np.std(gaps, ddof=1) / math.sqrt(40)
    assert abs(np.mean(nulls) - 0.5) > 0.02  # so that a null of one half would fail


def test_the_null_leaves_one_half_with_many_classes():
    cohort = Cohort()
    cohort.classes = np.arange(len(cohort.patients)) // 2 % 8
    assert cohort.index(cohort.features()).null < 0.2


def test_duplicates_in_the_same_patient_answer_only_under_the_slide_rule():
    # Every tile has a copy on the patient's other slide that carries the other class; all else follows the class.
    n = 60
    rng = np.random.default_rng(0)
    patients, classes = np.arange(n) // 5, np.arange(n) % 2
    x = rng.normal(size=(n, 12)) * 0.1 + 3 * np.eye(12)[classes]
    both = np.concatenate([x, x])
    columns = (
        np.concatenate([classes, 1 - classes]),
        np.tile(patients % 2, 2),
        np.tile(patients, 2),
        np.concatenate([patients, patients + 100]),
    )
    leaky = robustness_index(both, *columns, 1, leave_out="slide")
    clean = robustness_index(both, *columns, 1)
    assert leaky.value == 0
    assert leaky.shares["OS"] == 1
    assert clean.shares["OS"] < 0.5
    # Without their own patient's copies, queries of either half meet other patients' tiles alone.
    counts, _ = loop(both, columns[0], columns[1], columns[2], 1)
    assert clean.value == pytest.approx(counts["SO"] / (counts["SO"] + counts["OS"]))


def test_a_patient_of_one_kind_cannot_vouch_for_itself():
    # Each patient is a cloud of its own. Leaving the slide out finds the patient again (SS); leaving it out does not.
    cohort = Cohort()
    x = cohort.features() + 20 * cohort.rng.normal(size=(24, 16))[cohort.patients]
    assert cohort.index(x, 5, leave_out="slide").shares["SO"] == 0
    assert cohort.index(x, 5).shares["SO"] > 0.1


@given(seed=st.integers(0, 2**32 - 1))
def test_neither_frame_nor_length_nor_order_nor_names_matter(seed):
    rng = np.random.default_rng(seed)
    cohort = Cohort(n_patients=6, n_tiles=8, seed=seed % 5)
    x = cohort.features(biology=1, site=1, d=6)
    expected = cohort.index(x, 5)
    order = rng.permutation(len(x))
    turned = (x * rng.uniform(0.1, 10, (len(x), 1)) @ np.linalg.qr(rng.normal(size=(6, 6)))[0])[order]
    found = robustness_index(
        turned,
        [f"class {9 - one}" for one in cohort.classes[order]],
        [f"centre {one}" for one in cohort.centres[order]],
        cohort.patients[order],
        cohort.slides[order],
        5,
    )
    assert found.value == pytest.approx(expected.value)
    assert found.null == pytest.approx(expected.null)
    assert found.shares == pytest.approx(expected.shares)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.interval.low, expected.interval.high))


def test_half_precision_moves_the_index_by_less_than_a_hundredth():
    cohort = Cohort()
    x = cohort.features(biology=1, site=1)
    single, half = (cohort.index(x.astype(dtype)) for dtype in (np.float32, np.float16))
    assert half.value == pytest.approx(single.value, abs=0.01)
    assert single.value == pytest.approx(cohort.index(x).value, abs=1e-4)
    assert half.null == single.null


def test_the_interval_resamples_patients_not_tiles():
    cohort = Cohort(n_patients=8)
    found = cohort.index(cohort.features(biology=1, site=1))
    assert (found.interval.cluster, found.interval.n_clusters) == ("patient", 8)
    assert found.interval.note == "optimistic, 8 patients"
    again = cohort.index(cohort.features(biology=1, site=1), seed=1)
    assert again.interval != found.interval
    few = Cohort(n_patients=4)
    assert few.index(few.features()).interval.method == "n/a"


def test_queries_can_be_sampled_while_all_tiles_answer():
    cohort = Cohort()
    x = cohort.features(biology=1, site=1)
    few, all_ = cohort.index(x, max_queries=96), cohort.index(x)
    assert (few.n_queries, few.n_patients) == (96, 24)
    assert few.value == pytest.approx(all_.value, abs=0.1)
    assert few.null == pytest.approx(all_.null, abs=0.02)


def test_where_class_and_centre_are_one_there_is_no_index_and_it_is_said():
    cohort = Cohort()
    cohort.classes = cohort.centres
    found = cohort.index(cohort.features())
    assert math.isnan(found.value)
    assert math.isnan(found.null)
    assert found.interval.method == "n/a"
    assert found.association == pytest.approx(1)
    assert "go together in this cohort (Cramer's V 1.00)" in found.warning


def test_a_cohort_out_of_balance_is_warned_of_and_a_balanced_one_is_not():
    cohort = Cohort()
    assert cohort.index(cohort.features()).warning == ""
    is_swapped = cohort.rng.random(len(cohort.classes)) < 0.2
    cohort.classes = np.where(is_swapped, 1 - cohort.centres, cohort.centres)
    found = cohort.index(cohort.features())
    assert found.association == pytest.approx(0.6, abs=0.08)
    assert f"null value of {found.null:.3f}" in found.warning


def test_tiles_without_class_or_centre_are_set_aside_and_counted():
    cohort = Cohort()
    x = cohort.features(biology=1, site=1)
    classes, centres = cohort.classes.astype(object), cohort.centres.astype(object)
    classes[:7], centres[5:12] = None, ""
    found = robustness_index(x, classes, centres, cohort.patients, cohort.slides, 10)
    rest = robustness_index(x[12:], *(c[12:] for c in (classes, centres, cohort.patients, cohort.slides)), 10)
    assert found.value == rest.value
    assert found.n_queries == len(x) - 12
    assert found.warning == "12 tiles without class or centre are left out."


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("classes", 0, "all tiles are of one class"),
        ("centres", 0, "all tiles are of one centre"),
        ("patients", 0, "belong to one patient"),
        ("patients", None, "have no patient"),
        ("classes", None, "not one item carries a label"),
    ],
)
def test_cohorts_that_cannot_answer_are_refused(column, value, message):
    cohort = Cohort(n_patients=4)
    setattr(cohort, column, np.full(len(cohort.patients), value, dtype=object))
    with pytest.raises(EvaluationError, match=message):
        cohort.index(np.ones((80, 3)))


def test_misuse_is_refused():
    cohort = Cohort(n_patients=4)
    x = cohort.features()
    with pytest.raises(ValueError, match="leave_out must be patient or slide"):
        cohort.index(x, leave_out="site")
    with pytest.raises(ValueError, match="79 rows of features for 80 tiles"):
        cohort.index(x[1:])
    with pytest.raises(ValueError, match="k"):
        cohort.index(x, 0)
    x[3] = 0
    with pytest.raises(StoreError, match="row 3: the vector is zero"):
        cohort.index(x)


@pytest.mark.parametrize("leave_out", ["patient", "slide"])
def test_the_chosen_k_is_that_of_a_loop(f1, leave_out):
    groups = {"patient": f1.patient, "slide": f1.slide}[leave_out]
    unit = f1.x / np.linalg.norm(f1.x, axis=1, keepdims=True)
    cosine = np.where(groups[:, None] == groups, -np.inf, unit @ unit.T)
    ranked = f1.label[np.argsort(-cosine, axis=1, kind="stable")]
    expected = {}
    for k in (1, 5, 31):
        said = []
        for labels in ranked[:, :k].tolist():
            most = max(labels.count(label) for label in labels)
            said.append(next(label for label in labels if labels.count(label) == most))
        expected[k] = balanced_accuracy_score(f1.label, said)
    found = choose_k(f1.x, f1.label, f1.patient, f1.slide, leave_out=leave_out, grid=(31, 1, 5))
    assert found.balanced_accuracy == pytest.approx(expected)
    assert found.k == max(expected, key=expected.__getitem__)


def test_ties_take_the_smallest_k_and_noise_a_large_one():
    cohort = Cohort()
    sure = choose_k(cohort.features(biology=8, d=4), cohort.classes, cohort.patients, cohort.slides)
    noisy = choose_k(cohort.features(biology=0.7), cohort.classes, cohort.patients, cohort.slides)
    assert sure.k == 1
    assert sure.balanced_accuracy == dict.fromkeys(K_GRID, 1.0)
    assert noisy.k > 10
    assert noisy.balanced_accuracy[noisy.k] > noisy.balanced_accuracy[1] + 0.05


def test_no_k_is_tried_that_some_tile_cannot_have():
    cohort = Cohort(n_patients=2)
    x = cohort.features()
    found = choose_k(x, cohort.classes, cohort.patients, cohort.slides)
    assert max(found.balanced_accuracy) == 11  # 20 tiles of the other patient; 21 is the next of the grid
    fewer = choose_k(x[8:], cohort.classes[8:], cohort.patients[8:], cohort.slides[8:])
    assert max(fewer.balanced_accuracy) == 11  # 12 tiles for the one's queries, 20 for the other's
    fewest = choose_k(x[12:], cohort.classes[12:], cohort.patients[12:], cohort.slides[12:])
    assert max(fewest.balanced_accuracy) == 7
    with pytest.raises(EvaluationError, match="only 20 that may answer"):
        choose_k(x, cohort.classes, cohort.patients, cohort.slides, grid=(21, 31))
    with pytest.raises(EvaluationError, match="all tiles are of one class"):
        choose_k(x, np.zeros(40), cohort.patients, cohort.slides)


def test_agreement_meets_the_hand_case():
    assert agreement(TINY["cluster"], TINY["bio"], TINY["center"]) == pytest.approx(ARI_TINY, abs=1e-9)


def clouds(n_classes=3, n_centres=3, *, by, n=180, seed=0):
    rng = np.random.default_rng(seed)
    classes, centres = np.arange(n) % n_classes, np.arange(n) // n_classes % n_centres
    return rng.normal(size=(n, 8)) * 0.1 + np.eye(8)[{"class": classes, "centre": centres}[by]], classes, centres


FEW = range(2, 7)


def test_clusters_that_are_classes_score_one_and_centres_minus_one():
    biology = clustering_score(*clouds(by="class"), n_clusters=FEW, n_runs=3)
    site = clustering_score(*clouds(by="centre"), n_clusters=FEW, n_runs=3)
    assert biology.n_clusters == site.n_clusters == 3
    assert biology.class_ari == site.centre_ari == 1
    assert biology.value == pytest.approx(1, abs=0.02)
    assert site.value == pytest.approx(-1, abs=0.02)
    assert biology.sd == 0
    assert biology.silhouettes[3] == max(biology.silhouettes.values())
    assert set(biology.silhouettes) == set(FEW)
    assert biology.warning == ""


def test_clusters_of_neither_score_nothing():
    _, classes, centres = clouds(by="class")
    found = clustering_score(np.random.default_rng(1).normal(size=(180, 8)), classes, centres, n_clusters=FEW, n_runs=3)
    assert abs(found.value) < 0.05
    assert found.sd > 0


def test_the_length_of_the_vectors_and_the_seed_of_the_run_are_no_matter():
    x, classes, centres = clouds(by="class")
    x += np.random.default_rng(5).normal(size=x.shape) * 0.2
    first, again = (clustering_score(x, classes, centres, n_clusters=FEW, n_runs=2) for _ in range(2))
    assert first == again
    # Powers of two: the unit vectors are the same to the last bit, as k-means needs to take the same way.
    longer = clustering_score(x * 2.0 ** np.arange(-90, 90)[:, None], classes, centres, n_clusters=FEW, n_runs=2)
    assert longer == first


def test_half_precision_clusters_alike():
    x, classes, centres = clouds(by="class")
    single, half = (
        clustering_score(x.astype(dtype), classes, centres, n_clusters=FEW, n_runs=2)
        for dtype in (np.float32, np.float16)
    )
    assert half.value == pytest.approx(single.value, abs=1e-3)
    assert half.silhouettes[3] == pytest.approx(single.silhouettes[3], abs=1e-3)


def test_rows_are_capped_and_set_aside_openly():
    x, classes, centres = clouds(by="class")
    columns = [str(one) for one in classes], [str(one) for one in centres]
    columns[0][0] = columns[1][9] = ""
    found = clustering_score(x, *columns, n_clusters=FEW, n_runs=1, max_rows=100)
    assert found.n_rows == 100
    assert math.isnan(found.sd)
    assert found.warning == "2 tiles without class or centre are left out."
    assert found.value == pytest.approx(1, abs=0.1)


def test_a_collapsed_encoder_has_no_clusters():
    _, classes, centres = clouds(by="class")
    found = clustering_score(np.ones((180, 4)), classes, centres)
    assert math.isnan(found.value)
    assert found.n_clusters == 0
    assert found.silhouettes == {}
    two = clustering_score(np.eye(2)[classes % 2], classes, centres, n_runs=1)  # two distinct vectors: K = 2 alone
    assert set(two.silhouettes) == {2}


def test_clustering_refuses_what_it_cannot_use():
    x, classes, centres = clouds(by="class")
    with pytest.raises(EvaluationError, match="all tiles are of one centre"):
        clustering_score(x, classes, np.zeros(180))
    with pytest.raises(EvaluationError, match="no tile has a class"):
        clustering_score(x, [None] * 180, centres)
    with pytest.raises(ValueError, match="n_clusters of at least 2"):
        clustering_score(x, classes, centres, n_clusters=(1, 2))
    with pytest.raises(ValueError, match="equal lengths"):
        clustering_score(x[1:], classes, centres)
    assert "Cramer's V 1.00" in clustering_score(x, classes, classes, n_clusters=FEW, n_runs=1).warning
