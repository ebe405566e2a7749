"""Curves for TensorBoard, an extra: written where it is installed, a sentence where it is not."""

import importlib.util

import pytest

from histokin.errors import RecipeError
from histokin.learn import pretrain
from histokin.learn.tensorboard import on_tensorboard

HAS_IT = importlib.util.find_spec("tensorboard") is not None


@pytest.mark.skipif(HAS_IT, reason="TensorBoard is installed")
def test_without_it_the_way_to_install_it_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"pip install tensorboard"), on_tensorboard(tmp_path):
        pass


@pytest.mark.skipif(not HAS_IT, reason="TensorBoard is not installed")
def test_curves_hold_each_step_and_each_look(source, tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with on_tensorboard(tmp_path / "curves") as on_event:
        pretrain(source, tiny, tmp_path / "run", device="cpu", on_event=on_event)
    read = EventAccumulator(str(tmp_path / "curves"))
    read.Reload()
    assert [event.step for event in read.Scalars("loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.step for event in read.Scalars("monitors/rank")] == [3, 6, 7]
