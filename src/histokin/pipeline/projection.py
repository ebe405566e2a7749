"""The map of the embedding: two dimensions to look at, never to measure in."""

from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED
from histokin.errors import EvaluationError
from histokin.report import MapSection
from histokin.streams import seed64, stream

MapMethod = Literal["pca", "umap"]
MAX_POINTS = 2000


def sample_points(slides: NDArray[np.int32], n: int, seed: int) -> NDArray[np.int64]:
    """At most `n` rows, equally many a slide as far as they have them, in order."""
    if len(slides) <= n:
        return np.arange(len(slides))
    order = stream(seed, "map").permutation(len(slides))
    # the i-th tile of each slide before the (i+1)-th of any
    turn = np.empty(len(slides), np.int64)
    for number in np.unique(slides):
        own = order[slides[order] == number]
        turn[own] = np.arange(len(own))
    return np.sort(order[np.argsort(turn[order], kind="stable")[:n]])


def map_section(
    features: NDArray[np.float32],
    slides: NDArray[np.int32],
    labels: NDArray[np.object_],
    slide: NDArray[np.object_],
    patient: NDArray[np.object_],
    *,
    method: MapMethod,
    seed: int,
) -> MapSection | None:
    """The map of an encoder's tiles, at most `MAX_POINTS` of them; None for fewer than three.

    Args:
        features: (n, d).
        slides: (n,) number of each tile's slide.
        labels, slide, patient: (n,) what points are coloured by.
        method: PCA or UMAP.
        seed: which tiles are drawn.
    """
    if len(features) < 3:
        return None
    rows = sample_points(slides, MAX_POINTS, seed)
    points, note = project(features[rows], method, seed)
    if len(rows) < len(features):
        note += f" {len(rows)} of {len(features)} tiles, equally many a slide."
    return MapSection(
        method="PCA" if method == "pca" else "UMAP",
        x=[round(float(v), 5) for v in points[:, 0]],
        y=[round(float(v), 5) for v in points[:, 1]],
        class_=[str(v) for v in labels[rows]],
        slide=[str(v) for v in slide[rows]],
        patient=[str(v).removeprefix(UNNAMED) for v in patient[rows]],
        note=note,
    )


def project(features: NDArray[np.float32], method: MapMethod, seed: int) -> tuple[NDArray[np.float64], str]:
    """Unit vectors in two dimensions, (n, 2), and what to say of them.

    PCA's signs are fixed so that the largest weight of each axis is positive: the same data give the same map.

    Raises:
        EvaluationError: UMAP is asked for and not installed.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    unit = unit.astype(np.float64)
    if method == "umap":
        return _umap(unit, seed), "UMAP of unit vectors: who is near whom; distances between groups mean little."
    centred = unit - unit.mean(axis=0)
    _, sigma, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(min(2, len(axes))), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    share = float((sigma[:2] ** 2).sum() / max((sigma**2).sum(), 1e-12))
    points = centred @ axes.T
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return points, f"PCA of unit vectors; the two axes hold {share:.0%} of the variance."


def check_map(method: MapMethod) -> None:
    """Refuse a method that is not installed, before hours are spent on what comes before the map.

    Raises:
        EvaluationError: UMAP is asked for and not installed.
    """
    if method == "umap" and find_spec("umap") is None:
        raise EvaluationError(
            "UMAP is not installed",
            "the embedding map",
            "Run `pip install '.[umap]'` in histokin's source folder, or leave --map pca.",
        )


def _umap(unit: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    check_map("umap")
    from umap import UMAP  # pyright: ignore[reportMissingImports] - an extra

    return np.asarray(UMAP(random_state=seed64(seed, "umap") % 2**32, metric="cosine").fit_transform(unit), np.float64)
