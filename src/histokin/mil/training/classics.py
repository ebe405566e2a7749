"""The classic data sets of multiple-instance learning under one protocol: Musk1, Musk2, Elephant, Fox, Tiger.

Network and settings of the ABMIL paper (Ilse et al. 2018; D-256-128-64, attention 64), 10 folds x 5 repeats that are
stored with the data, features standardised by each training fold. The number of epochs is fixed beforehand: of 83 bags
a validation part chooses badly, and epochs chosen on the test fold add 4 to 14 points, which spans the gap to most
published figures. Floors stand beside: a support vector machine on the extremes of a bag equals attention on Musk1.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.errors import TrainingError
from histokin.evaluate.probes.linear import LinearProbe
from histokin.evaluate.probes.outcome import Part, Probe
from histokin.evaluate.probes.scores import macro_auc
from histokin.evaluate.probes.svm import SVMProbe
from histokin.evaluate.splits import SplitTable, inner_folds
from histokin.evaluate.vectors import scaled
from histokin.mil.reading import BagSource
from histokin.mil.training.ensembles import fit_ensemble
from histokin.mil.training.floors import bag_statistics
from histokin.mil.training.loop import fit_one, logits_of
from histokin.mil.training.spec import MilSpec
from histokin.mil.training.targets import Targets
from histokin.mil.training.task import MilTask
from histokin.streams import seed64

NAMES = ("musk1", "musk2", "elephant", "fox", "tiger")
CLASSES = ("negative", "positive")
_LR = {"elephant": 1e-4, "tiger": 1e-4}
_WEIGHT_DECAY = {"tiger": 0.01, "musk2": 0.03}


@dataclass(frozen=True, slots=True, eq=False)
class Classic:
    """One of the data sets.

    Attributes:
        name: of it.
        bags: N arrays (n_i, D) float32, raw.
        truth: (N,) int64, 1 where positive.
        folds: by (repeat, fold) the (n,) int64 bags tested.
    """

    name: str
    bags: tuple[NDArray[np.float32], ...]
    truth: NDArray[np.int64]
    folds: Mapping[tuple[int, int], NDArray[np.int64]]

    def train(self, repeat: int, fold: int) -> NDArray[np.int64]:
        """(m,) the bags outside a test fold."""
        return np.setdiff1d(np.arange(len(self.bags)), self.folds[repeat, fold])


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What was told of every bag while it was held out.

    Attributes:
        told: (R, N) of each repeat, probability of the positive class, or what is as good: above .5 where it is said.
        accuracy: (R, F) of each fold.
        auc: (R,) over all bags of a repeat.
    """

    told: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    auc: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean accuracy over folds and repeats, as published."""
        return float(self.accuracy.mean())

    @property
    def se(self) -> float:
        """Standard deviation over a repeat's folds by the root of their number, mean over repeats: as published."""
        n_folds = self.accuracy.shape[1]
        return float(self.accuracy.std(axis=1, ddof=1).mean() / np.sqrt(n_folds))


def read_classic(folder: Path, name: str) -> Classic:
    """A data set from `NAME.npz` (X, bag, y) and the test bags of `folds.csv` (set, repeat, fold, bag).

    Raises:
        TrainingError: a file is missing, or the name unknown.
    """
    if name not in NAMES:
        raise TrainingError(f"there is no classic data set {name}", folder, f"There are {', '.join(NAMES)}.")
    try:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            x, bag, truth = file["X"], file["bag"], file["y"]
        rows = list(csv.DictReader((folder / "folds.csv").read_text(encoding="utf-8").splitlines()))
    except (OSError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{name} cannot be read ({error})",
            folder,
            f"It needs {name}.npz with X, bag and y, and folds.csv with set, repeat, fold and bag.",
        ) from error
    folds: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        if row["set"] == name:
            folds.setdefault((int(row["repeat"]), int(row["fold"])), []).append(int(row["bag"]))
    return Classic(
        name=name,
        bags=tuple(x[bag == number] for number in range(len(truth))),
        truth=truth.astype(np.int64),
        folds={key: np.array(tested) for key, tested in sorted(folds.items())},
    )


def classic_spec(name: str, *, epochs: int = 100, is_gated: bool = False) -> MilSpec:
    """The paper's settings: SGD with momentum .9 at one bag a step, rate and decay by data set; all epochs trained."""
    return MilSpec(
        model="abmil",
        options={"hidden": (256, 128, 64), "attention": 64, "gated": is_gated, "dropout": 0.5},
        optimiser="sgd",
        lr=_LR.get(name, 5e-4),
        weight_decay=_WEIGHT_DECAY.get(name, 5e-3),
        beta1=0.9,
        warmup=0,
        end_lr=None,
        epochs=epochs,
        patience=None,
        batch=1,
        tile_cap=None,
        balance="none",
        n_seeds=1,
    )


def fixed_epochs(classic: Classic, spec: MilSpec, *, repeats: int = 5) -> Outcome:
    """One model a fold, the last epoch's weights, threshold .5."""

    def told(repeat: int, fold: int) -> NDArray[np.float64]:
        task = _task(classic, repeat, fold)
        seed = seed64(spec.seed, classic.name, repeat, fold)
        fitted = fit_one(task, classic.train(repeat, fold), np.zeros(0, dtype=np.int64), spec, seed=seed)
        logits = logits_of(fitted.model, task.source, classic.folds[repeat, fold])
        return logits.double().softmax(1)[:, 1].numpy()

    return _outcome(classic, repeats, told)


def nested_epochs(
    classic: Classic, spec: MilSpec, folder: Path, *, repeats: int = 1, patience: int = 20, n_inner: int = 3
) -> Outcome:
    """The honest figure where epochs are chosen: by inner folds of each training fold, whose models speak together."""
    chosen = replace(spec, patience=patience, min_epochs=1, n_inner=n_inner)

    def told(repeat: int, fold: int) -> NDArray[np.float64]:
        task, tested = _task(classic, repeat, fold), classic.folds[repeat, fold]
        part = np.full(len(task), "train", dtype=object)
        part[tested] = "test"
        inner = inner_folds(SplitTable.of_parts(task.items, {(repeat, fold): part}), n_inner)[0]
        name = f"{repeat}-{fold}"
        ensemble = fit_ensemble(task, inner, chosen, folder / f"{classic.name}-{name}", name=name)
        return ensemble.tell(task.source, tested).values.mean(axis=0)[:, 1]

    return _outcome(classic, repeats, told)


def floors(classic: Classic, *, repeats: int = 5) -> dict[str, Outcome]:
    """Without a network: bag size, the mean and logistic regression, the extremes and an RBF machine.

    C and gamma are chosen by inner folds of each training fold.
    """
    source = BagSource.of_arrays(classic.bags)
    mean, extremes = bag_statistics(source, np.arange(len(source)))
    size = source.lengths.astype(np.float64)[:, None]
    asked: dict[str, tuple[NDArray[np.float64], Probe]] = {
        "bag size": (size, LinearProbe()),
        "mean + logistic": (mean, LinearProbe()),
        "min-max + SVM": (extremes, SVMProbe(kernel="rbf")),
    }
    return {name: _probed(classic, x, probe, repeats) for name, (x, probe) in asked.items()}


def _probed(classic: Classic, x: NDArray[np.float64], probe: Probe, repeats: int) -> Outcome:
    def told(repeat: int, fold: int) -> NDArray[np.float64]:
        train = classic.train(repeat, fold)
        own, asked = scaled(x[train], x[classic.folds[repeat, fold]])
        said = probe.predict(Part(own, classic.truth[train], np.arange(len(train)), len(CLASSES), 3), asked).values
        return 0.5 + 0.5 * (said[:, 1] - said[:, 0])

    return _outcome(classic, repeats, told)


def _outcome(classic: Classic, repeats: int, told: Callable[[int, int], NDArray[np.float64]]) -> Outcome:
    """All folds of some repeats; `told` gives the positive class's probability of a fold's test bags."""
    n_folds = len({fold for _, fold in classic.folds})
    found = np.zeros((repeats, len(classic.bags)))
    accuracy = np.zeros((repeats, n_folds))
    for repeat in range(repeats):
        for fold in range(n_folds):
            tested = classic.folds[repeat, fold]
            found[repeat, tested] = told(repeat, fold)
            accuracy[repeat, fold] = ((found[repeat, tested] > 0.5) == classic.truth[tested]).mean()
    clusters = np.arange(len(classic.truth))
    auc = [
        macro_auc(np.stack([1 - p, p], axis=1), classic.truth, clusters, len(clusters))(np.ones((1, len(clusters))))[0]
        for p in found
    ]
    return Outcome(found, accuracy, np.array(auc))


def _task(classic: Classic, repeat: int, fold: int) -> MilTask:
    """All bags, standardised by the tiles of a training fold."""
    tiles = np.concatenate([classic.bags[bag] for bag in classic.train(repeat, fold)]).astype(np.float64)
    mean, spread = tiles.mean(axis=0), tiles.std(axis=0)
    spread = np.where(spread < 1e-12, 1.0, spread)
    bags = [((bag - mean) / spread).astype(np.float32) for bag in classic.bags]
    source = BagSource.of_arrays(bags)
    return MilTask.of(source, source.slides, Targets.of_classes([CLASSES[code] for code in classic.truth], CLASSES))
