"""Label-free measures against golden figures and against planted collapse."""

import numpy as np
import pytest

from histokin.errors import StoreError
from histokin.evaluate.items import sample_queries
from histokin.evaluate.label_free import (
    alignment,
    label_free,
    mean_cosine,
    purity,
    purity_chance,
    spread,
    uniformity,
)
from histokin.evaluate.spectrum import alpha_req, participation_ratio, rankme
from histokin.search import top_k


def test_set_f1_gives_the_golden_measures(golden, f1):
    expected = golden["label_free_F1"]["expected"]
    assert alignment(f1.x[::2], f1.x[1::2]) == pytest.approx(expected["alignment"], abs=1e-7)
    assert uniformity(f1.x, block=37) == pytest.approx(expected["uniformity_t2"], abs=1e-7)
    assert mean_cosine(f1.x) == pytest.approx(expected["mean_cosine"], abs=1e-7)
    assert spread(f1.x) == pytest.approx(expected["std_unit_sqrt_d"], abs=1e-7)


def test_the_spectrum_is_that_of_the_rows_used(golden, f1):
    measured, expected = label_free(f1.x), golden["label_free_F1"]["expected"]
    assert measured.rankme == pytest.approx(expected["rankme"], abs=1e-7)
    assert measured.rankme_centred == pytest.approx(expected["rankme_centred"], abs=1e-7)
    assert measured.participation_ratio == pytest.approx(expected["participation_ratio"], abs=1e-7)
    assert measured.alpha_req == alpha_req(f1.x)
    drawn = label_free(f1.x, groups={"patient": f1.patient}, max_rows=48)
    rows = sample_queries(f1.patient, 48, 0)
    assert drawn.alpha_req == alpha_req(f1.x[rows]) != measured.alpha_req
    assert drawn.rankme == rankme(f1.x[rows])
    assert drawn.participation_ratio == participation_ratio(f1.x[rows])


def test_a_low_rank_has_no_decay_whatever_it_is_stored_as():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)) @ rng.normal(size=(8, 64)) + 3
    for dtype in (np.float16, np.float32, np.float64):
        assert np.isnan(label_free(x.astype(dtype)).alpha_req)


@pytest.mark.parametrize("leave_out", ["self", "slide", "patient"])
def test_set_f1_gives_the_golden_purities(golden, f1, leave_out):
    expected = golden["retrieval_F1"]["expected"][leave_out]
    groups = {"self": None, "slide": f1.slide, "patient": f1.patient}[leave_out]
    exclusion = {"query_ids": np.arange(240)} if groups is None else {"query_groups": groups, "database_groups": groups}
    found = top_k(f1.x, f1.x, 10, **exclusion).ids
    for name in ("slide", "patient", "site"):
        assert purity(found, getattr(f1, name)) == pytest.approx(expected[f"purity_{name}_k10"], abs=1e-9)


def test_chance_purity_is_what_random_neighbours_give():
    assert purity_chance(np.array(["a"] * 3 + ["b"])) == pytest.approx(3 * 2 / (4 * 3))


def test_collapse_is_flagged_and_a_sphere_is_not():
    rng = np.random.default_rng(0)
    sphere = label_free(rng.normal(size=(400, 32)), groups={"slide": np.arange(400) // 20})
    assert not sphere.is_collapsed
    assert sphere.purity["slide"] == pytest.approx(sphere.purity_chance["slide"], abs=0.02)
    point = label_free(np.ones((100, 8)) + 1e-4 * rng.normal(size=(100, 8)))
    line = label_free(np.outer(rng.normal(size=100), np.ones(8)) + 1e-9 * rng.normal(size=(100, 8)))
    assert point.is_collapsed
    assert line.is_collapsed


def test_dead_dimensions_are_counted():
    x = np.random.default_rng(1).normal(size=(50, 10))
    x[:, :3] = 0.5
    assert label_free(x).dead_share == pytest.approx(0.3)


def test_identical_vectors_are_measured_not_refused():
    measured = label_free(np.ones((20, 4)))
    assert measured.is_collapsed
    assert measured.rankme_centred == 0
    assert measured.uniformity == pytest.approx(0)


def test_rows_are_drawn_equally_per_group(f1):
    measured = label_free(f1.x, groups={"patient": f1.patient}, max_rows=48)
    assert measured.n == 48
    assert measured.purity_chance["patient"] == pytest.approx(1 / 47)


def test_a_zero_vector_is_refused():
    with pytest.raises(StoreError, match="database row 1: the vector is zero"):
        label_free(np.array([[1.0, 0], [0, 0], [1, 1]]))
