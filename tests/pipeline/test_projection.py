"""The map of the embedding."""

import numpy as np
import pytest

from histokin.errors import EvaluationError
from histokin.pipeline.projection import project, sample_points


def test_points_are_drawn_equally_from_every_slide_as_far_as_it_has_them() -> None:
    slides = np.repeat([0, 1, 2], [100, 5, 50]).astype(np.int32)
    rows = sample_points(slides, 35, seed=0)
    assert np.bincount(slides[rows]).tolist() == [15, 5, 15]
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, sample_points(slides, 35, seed=0))
    assert len(sample_points(slides, 1000, seed=0)) == 155


def test_pca_finds_the_plane_and_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 1, 80)
    features = np.zeros((80, 6), np.float32)
    features[:, 2], features[:, 4] = np.cos(angle), np.sin(angle)
    points, note = project(features, "pca", seed=0)
    assert "100%" in note
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    unit = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.testing.assert_allclose(distance, unit, atol=1e-6)
    order = rng.permutation(80)
    np.testing.assert_allclose(project(features[order], "pca", seed=0)[0], points[order], atol=1e-6)


def test_one_dimension_and_collapsed_vectors_still_give_a_map() -> None:
    for features in (np.ones((10, 1), np.float32), np.ones((10, 4), np.float32)):
        points, _ = project(features, "pca", seed=0)
        assert points.shape == (10, 2)
        assert np.isfinite(points).all()


def test_umap_without_umap_says_how_to_get_it() -> None:
    try:
        import umap  # noqa: F401
    except ImportError:
        with pytest.raises(EvaluationError, match=r"pip install '\.\[umap\]'"):
            project(np.eye(5, dtype=np.float32), "umap", seed=0)
    else:
        points, _ = project(np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32), "umap", seed=0)
        assert points.shape == (40, 2)
