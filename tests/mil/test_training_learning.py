"""Whether the classifiers learn what they must, and nothing where there is nothing."""

from pathlib import Path

import numpy as np
import pytest
from mil.mil_worlds import digit_bags, planted, task_of
from sklearn.metrics import roc_auc_score

from histokin.mil.predicting import map_tiles
from histokin.mil.training import MilSpec, MilTask, fit_one, logits_of
from histokin.mil.training.ensembles import Ensemble
from histokin.mil.training.members import write_member

NOBODY = np.zeros(0, dtype=np.int64)


def auc_of(task: MilTask, spec: MilSpec, n_train: int, seed: int) -> float:
    """Trained for all epochs on the first slides, judged on the others."""
    fitted = fit_one(task, np.arange(n_train), NOBODY, spec, seed=seed)
    logits = logits_of(fitted.model, task.source, task.bags[n_train:]).numpy()
    return float(roc_auc_score(task.targets.values[n_train:], logits[:, 1] - logits[:, 0]))


@pytest.mark.slow
def test_attention_and_maxima_find_a_nine_among_digits_and_the_mean_does_not() -> None:
    found: dict[str, list[float]] = {"abmil": [], "mean": [], "max": []}
    for seed in range(3):
        bags, truth = digit_bags(400, seed)
        task = task_of(bags, truth)
        for model, aucs in found.items():
            aucs.append(auc_of(task, MilSpec(model=model, lr=1e-3, epochs=40, patience=None), 200, seed))
    assert np.mean(found["abmil"]) >= 0.95
    assert np.mean(found["mean"]) <= 0.90
    assert min(found["max"]) >= 0.90  # from random weights one seed of three stayed at chance


@pytest.mark.slow
def test_planted_tiles_are_found_and_looked_at(tmp_path: Path) -> None:
    rates, hits = [], []
    for seed in range(2):
        bags, truth, rows = planted(400, n_tiles=200, d=16, n_planted=2, shift=1.5, seed=seed)
        task = task_of(bags, truth)
        spec = MilSpec(lr=1e-3, epochs=30, patience=None, options={"hidden": (128,), "attention": 64})
        fitted = fit_one(task, np.arange(200), NOBODY, spec, seed=seed)
        logits = logits_of(fitted.model, task.source, task.bags[200:]).numpy()
        rates.append(roc_auc_score(truth[200:], logits[:, 1] - logits[:, 0]))
        write_member(tmp_path / "one.safetensors", fitted, spec)
        alone = Ensemble(tmp_path, ("one.safetensors",), "classes", ("none", "some"), 16, "", "", 1.0, None, ())
        for row in np.flatnonzero(truth)[100:150]:
            maps = map_tiles(alone, task.source, f"s{row:03d}")
            assert maps.weights is not None
            hits.append(int(maps.weights[:, 0].argmax()) in rows[row])
    assert np.mean(rates) >= 0.90
    assert np.mean(hits) >= 0.80
