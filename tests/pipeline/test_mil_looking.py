"""What every model shows of its tiles: which maps there are, that they belong together, that parts are told right."""

from pathlib import Path

import numpy as np
import pytest
from mil.mil_worlds import planted, task_of

from histokin.evaluate.splits import SplitTable, inner_folds
from histokin.mil.predicting import predict_slides
from histokin.mil.training import Ensemble, MilTask, fit_ensemble
from histokin.pipeline.mil import spec_of
from histokin.pipeline.mil.looking import Looked, faithfulness, limit_of, look, teller, values_of

SMALL = {
    "abmil": ("options.hidden=[8]", "options.attention=4"),
    "acmil": ("options.width=8", "options.attention=4", "options.branches=2"),
    "clam_mb": ("options.hidden=[8]", "options.attention=4"),
    "dsmil": ("options.hidden=[8]", "options.query_dim=4"),
    "max": ("options.hidden=[8]",),
    "mean": (),
    "mil_rnn": ("options.state=4",),
    "transmil": ("options.width=16", "options.heads=2", "options.landmarks=4"),
}
ATTENTION = ["percentile", "relative"]
MAPS = {
    "abmil": [*ATTENTION, "contribution"],
    "acmil": [*ATTENTION, "contribution"],
    "clam_mb": [*ATTENTION, "contribution"],
    "dsmil": [*ATTENTION, "tile"],
    "max": ["tile"],
    "mean": ["contribution"],  # its attention is the same everywhere
    "mil_rnn": ["tile"],
    "transmil": ATTENTION,
}


def trained(model: str, folder: Path) -> tuple[Ensemble, MilTask]:
    bags, truth, _ = planted(12, n_tiles=6, shift=4.0)
    task = task_of(bags, truth)
    spec = spec_of(model, settings=[*SMALL[model], "lr=0.02", "n_inner=2", "patience=none"], epochs=2, n_seeds=1)
    everyone = SplitTable.of_parts(task.items, {(0, 0): np.full(len(task), "train", dtype=object)})
    return fit_ensemble(task, inner_folds(everyone, 2)[0], spec, folder), task


@pytest.mark.parametrize("model", SMALL)
def test_every_model_has_its_maps_and_a_word_for_parts_of_a_slide(model: str, tmp_path: Path) -> None:
    ensemble, task = trained(model, tmp_path)
    source, slide = task.source, "s003"
    told = predict_slides(ensemble, source, [slide]).told[0]
    looked = look(ensemble, model, source, slide, int(told.argmax()))
    limit = limit_of([looked])
    found = {scale.kind: values for scale, values in values_of(looked, limit)}
    assert list(found) == MAPS[model]
    n = len(looked.maps.rows)
    assert all(values.shape == (n,) and np.isfinite(values).all() for values in found.values())
    if "percentile" in found:
        weights = looked.attention
        assert weights is not None
        assert weights.sum() == pytest.approx(1)
        assert np.array_equal(np.argsort(found["percentile"], kind="stable"), np.argsort(weights, kind="stable"))
    if "tile" in found:
        assert (found["tile"] >= 0).all()
        assert (found["tile"] <= 1).all()
    tell = teller(ensemble, source, slide, 1)
    assert tell([np.arange(n)])[0] == pytest.approx(told[1], abs=1e-6)
    (tested,) = faithfulness(model, [looked], [ensemble], source, ["p"], seed=0)
    assert tested.n_slides == 1
    top = np.argsort(-looked.scores(looked.output)[0], kind="stable")
    without = teller(ensemble, source, slide, int(told.argmax()))([np.sort(top[1:])])[0]
    assert tested.points[0][1].value == pytest.approx(told.max() - without, abs=1e-6)  # 1 % of few tiles is one


def test_a_tiles_own_probability_is_the_softmax_of_its_logits_or_of_labels_the_sigmoid(tmp_path: Path) -> None:
    ensemble, task = trained("max", tmp_path)
    one = look(ensemble, "max", task.source, "s001", 1)
    logits = one.maps.logits
    assert logits is not None
    e = np.exp(logits.astype(np.float64))
    assert one.own_probability() == pytest.approx(e[:, 1] / e.sum(axis=1))
    of_labels = Looked(one.maps, 1, "max", is_exclusive=False)
    assert of_labels.own_probability() == pytest.approx(1 / (1 + np.exp(-logits[:, 1].astype(np.float64))))
    assert Looked(one.maps, None, "max").own_probability() is None
