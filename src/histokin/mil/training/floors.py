"""What is had without a network, on the same folds: bag size, mean tile, extremes of the tiles, site.

A classifier that does not beat them has learned nothing from which tiles a slide has.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from histokin.evaluate.items import text_codes
from histokin.evaluate.probes.linear import LinearProbe
from histokin.evaluate.probes.outcome import Part
from histokin.evaluate.splits import SplitTable
from histokin.evaluate.vectors import scaled
from histokin.mil.reading import BagSource, read_bags, whole_bags
from histokin.mil.training.loop import CPU
from histokin.mil.training.spec import MAX_TILES
from histokin.mil.training.task import MilTask

Floor = Literal["bag size", "mean + logistic", "min-max + logistic", "site"]
FLOORS: tuple[Floor, ...] = get_args(Floor)
"""`site` (a one-hot logistic) tells how much of the label the scanner or hospital alone gives away."""


def floor_features(task: MilTask) -> dict[Floor, NDArray[np.float64]]:
    """(N, d) features of N slides by floor; `site` only where sites are known and differ."""
    lengths = task.source.lengths[task.bags].astype(np.float64)
    mean, extremes = bag_statistics(task.source, task.bags)
    found: dict[Floor, NDArray[np.float64]] = {
        "bag size": np.stack([lengths, np.log(lengths)], axis=1),
        "mean + logistic": mean,
        "min-max + logistic": extremes,
    }
    sites, codes = text_codes(task.items.site)
    if len(sites) > 1:
        found["site"] = np.eye(len(sites))[codes]
    return found


def floor_predictions(
    features: Mapping[Floor, NDArray[np.float64]], task: MilTask, outer: SplitTable, *, n_inner: int
) -> dict[str, NDArray[np.float64]]:
    """Out-of-fold probabilities (n, C) of each floor, fold by fold as `cross_validate` joins them.

    An L2 logistic regression on z-scored features, its C chosen by inner folds of the training part.

    Args:
        features: (N, d) of the task's rows.
        task: of classes.
        outer: the folds; training and validation part are joined.
        n_inner: inner folds.
    """
    codes = outer.part_codes(task.items.item)
    groups = text_codes(task.items.group)[1]
    truth, n_classes = task.targets.values, len(task.targets.names)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in features}
    for place in range(len(outer.folds)):
        train, test = np.flatnonzero((codes[:, place] == 0) | (codes[:, place] == 1)), codes[:, place] == 2
        for name, x in features.items():
            own, asked = scaled(x[train], x[test])
            part = Part(own, truth[train], groups[train], n_classes, n_inner)
            found[name].append(LinearProbe().predict(part, asked).values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def bag_statistics(source: BagSource, bags: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, D) means, and (N, 2 D) minima and maxima of the tiles of N bags."""
    means, extremes = [], []
    for draw in whole_bags(source.lengths, bags, n_bags=max(len(bags), 1), max_tiles=MAX_TILES):
        for tiles in read_bags(source, draw, CPU).split():
            x = tiles.x.double().numpy()
            means.append(x.mean(axis=0))
            extremes.append(np.concatenate([x.min(axis=0), x.max(axis=0)]))
    return np.array(means), np.array(extremes)
