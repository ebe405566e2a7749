"""The classic data sets: their files, their floors, and the published accuracy of attention."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mil.mil_worlds import planted
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from histokin.errors import TrainingError
from histokin.mil.training.classics import (
    Classic,
    classic_spec,
    fixed_epochs,
    floors,
    nested_epochs,
    read_classic,
)

DATA = Path(os.environ.get("HISTOKIN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mil_classics"
REAL = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data of HISTOKIN_DATA are absent"),
]


def small() -> Classic:
    bags, truth, _ = planted(24, n_tiles=4, n_planted=8)
    order = np.random.default_rng(0).permutation(24)
    folds = {(repeat, fold): np.sort(order[fold::3]) for repeat in range(2) for fold in range(3)}
    return Classic("musk1", tuple(bags), truth, folds)


def test_the_files_are_read_as_they_are_described(tmp_path: Path) -> None:
    classic = small()
    bag = np.repeat(np.arange(24), [len(one) for one in classic.bags])
    np.savez(
        tmp_path / "fox.npz", X=np.concatenate(classic.bags), bag=bag.astype(np.int32), y=classic.truth.astype("i1")
    )
    with (tmp_path / "folds.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "repeat", "fold", "bag"])
        writer.writerow(["tiger", 0, 0, 3])
        writer.writerows(["fox", *key, number] for key, tested in classic.folds.items() for number in tested)
    found = read_classic(tmp_path, "fox")
    assert found.truth.tolist() == classic.truth.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(found.bags, classic.bags, strict=True))
    assert {key: tested.tolist() for key, tested in found.folds.items()} == {
        key: tested.tolist() for key, tested in classic.folds.items()
    }
    with pytest.raises(TrainingError, match="no classic data set wolf"):
        read_classic(tmp_path, "wolf")
    with pytest.raises(TrainingError, match="tiger cannot be read"):
        read_classic(tmp_path, "tiger")


@pytest.mark.slow
def test_every_bag_is_told_once_a_repeat_and_accuracy_is_counted_fold_by_fold() -> None:
    classic = small()
    found = fixed_epochs(classic, replace(classic_spec("musk1", epochs=4), lr=5e-3), repeats=2)
    assert found.told.shape == (2, 24)
    for repeat in range(2):
        assert found.auc[repeat] == pytest.approx(roc_auc_score(classic.truth, found.told[repeat]))
        for fold in range(3):
            tested = classic.folds[repeat, fold]
            right = (found.told[repeat, tested] > 0.5) == classic.truth[tested]
            assert found.accuracy[repeat, fold] == right.mean()
    assert not np.array_equal(found.told[0], found.told[1])  # same folds, other seeds


def test_test_bags_neither_standardise_nor_choose(tmp_path: Path) -> None:
    classic = small()
    tested = classic.folds[0, 0]
    moved = replace(
        classic,
        bags=tuple(bag * 50 if number in tested else bag for number, bag in enumerate(classic.bags)),
        truth=np.where(np.isin(np.arange(24), tested), 1 - classic.truth, classic.truth),
    )
    spec = replace(classic_spec("musk1", epochs=2), lr=5e-3)
    for number, one in enumerate((classic, moved)):
        nested_epochs(replace(one, folds={(0, 0): tested}), spec, tmp_path / str(number), n_inner=2)
    trained = [(tmp_path / name / "musk1-0-0" / "inner1-seed0.safetensors").read_bytes() for name in "01"]
    assert trained[0] == trained[1]


def test_floors_know_only_what_a_bag_holds() -> None:
    classic = small()
    found = floors(classic, repeats=1)
    assert found["mean + logistic"].mean > 0.9  # all tiles of positive bags are shifted
    assert found["min-max + SVM"].mean > 0.8
    lengths = np.array([[len(bag)] for bag in classic.bags])
    by_hand = np.zeros(24)
    for fold in range(3):
        train, tested = classic.train(0, fold), classic.folds[0, fold]
        scaler = StandardScaler().fit(lengths[train])
        choices = [
            LogisticRegression(C=10.0**e, class_weight="balanced")
            .fit(scaler.transform(lengths[train]), classic.truth[train])
            .predict_proba(scaler.transform(lengths[tested]))[:, 1]
            for e in range(-4, 3)
        ]
        gaps = [np.abs(found["bag size"].told[0, tested] - one).max() for one in choices]
        by_hand[tested] = choices[int(np.argmin(gaps))]
    assert np.allclose(found["bag size"].told[0], by_hand, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "n_bags", "n_positive", "n_tiles", "d"),
    [
        ("musk1", 92, 47, 476, 166),
        ("musk2", 102, 39, 6598, 166),
        ("elephant", 200, 100, 1391, 230),
        ("fox", 200, 100, 1320, 230),
        ("tiger", 200, 100, 1220, 230),
    ],
)
class TestTheDataAtHand:
    pytestmark = REAL

    def test_sizes_are_the_usual_ones_and_every_bag_is_tested_once_a_repeat(
        self, name: str, n_bags: int, n_positive: int, n_tiles: int, d: int
    ) -> None:
        classic = read_classic(DATA, name)
        found = (len(classic.bags), int(classic.truth.sum()), sum(map(len, classic.bags)), classic.bags[0].shape[1])
        assert found == (n_bags, n_positive, n_tiles, d)
        assert len(classic.folds) == 50
        for repeat in range(5):
            tested = np.concatenate([classic.folds[repeat, fold] for fold in range(10)])
            assert sorted(tested.tolist()) == list(range(n_bags))


@pytest.mark.realdata
@pytest.mark.long
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data of HISTOKIN_DATA are absent")
@pytest.mark.parametrize(("name", "low", "high"), [("musk1", 0.852, 0.932), ("elephant", 0.846, 0.890)])
def test_attention_lies_in_the_published_interval_with_epochs_fixed_beforehand(
    name: str, low: float, high: float
) -> None:
    found = fixed_epochs(read_classic(DATA, name), classic_spec(name))
    assert low <= found.mean <= high


@pytest.mark.realdata
@pytest.mark.long
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data of HISTOKIN_DATA are absent")
def test_a_machine_on_the_extremes_of_a_bag_does_as_well_as_published_attention_on_musk1() -> None:
    found = floors(read_classic(DATA, "musk1"))
    assert 0.88 <= found["min-max + SVM"].mean <= 0.94
    assert found["bag size"].mean < 0.75
