"""MIL-RNN's stages: who ranks whose tiles."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mil.mil_worlds import planted, task_of

from histokin.mil.models import MilRnn
from histokin.mil.training import Fitted, MilSpec, MilTask
from histokin.mil.training import rnn as two_stages
from histokin.mil.training.loop import fit_one, logits_of

SPEC = MilSpec(model="mil_rnn", options={"steps": 3, "state": 4}, lr=1e-2, epochs=2, patience=None)
TRAIN, VAL = np.arange(24), np.arange(24, 30)


@pytest.fixture(scope="module")
def task() -> MilTask:
    bags, truth, _ = planted(30, n_tiles=6)
    return task_of(bags, truth, slides_a_patient=2)


def ranking(model: MilRnn, bag: np.ndarray) -> np.ndarray:
    """The most suspicious tiles of a bag, by hand."""
    with torch.no_grad():
        p = model.tile_head(torch.from_numpy(bag)).softmax(1)[:, 1].numpy()
    return bag[np.argsort(-p, kind="stable")[:3]]


def test_training_slides_are_ranked_by_heads_that_have_not_seen_their_patient(
    task: MilTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[tuple[np.ndarray, Fitted]] = []
    sequences: list[MilTask] = []

    def watched(own: MilTask, train: np.ndarray, *args, stage, **settings) -> Fitted:
        fitted = fit_one(own, train, *args, stage=stage, **settings)
        if stage.name == "tiles":
            heads.append((train, fitted))
        else:
            sequences.append(own)
        return fitted

    monkeypatch.setattr(two_stages, "fit_one", watched)
    found = two_stages.fit_two_stages(task, TRAIN, VAL, SPEC, seed=0)
    bags = planted(30, n_tiles=6)[0]
    (given,) = sequences
    whole = next(fitted for rows, fitted in heads if len(rows) == len(TRAIN))
    rankers = [(rows, fitted) for rows, fitted in heads if len(rows) < len(TRAIN)]
    assert len(rankers) == 3
    for number, slide in enumerate(given.items.slide.tolist()):
        row = int(np.flatnonzero(task.items.slide == slide)[0])
        tiles = given.source.features[given.source.offsets[number] : given.source.offsets[number + 1]]
        tiles = tiles[np.argsort(given.source.order[given.source.offsets[number] : given.source.offsets[number + 1]])]
        head = whole
        if row in TRAIN:
            strangers = [
                fitted for rows, fitted in rankers if task.items.patient[row] not in set(task.items.patient[rows])
            ]
            assert len(strangers) == 1
            head = strangers[0]
        assert np.array_equal(tiles, ranking(head.model, bags[row]))
    # New slides are ranked by the head of all training slides.
    assert torch.equal(found.model.tile_head[-1].weight, whole.model.tile_head[-1].weight)


def test_the_second_stage_reads_the_ranked_tiles_as_a_call_of_the_model_does(task: MilTask) -> None:
    found = two_stages.fit_two_stages(task, TRAIN, VAL, replace(SPEC, epochs=1), seed=0)
    assert np.allclose(logits_of(found.model, task.source, task.bags[VAL]).numpy(), found.val_logits, atol=1e-6)
