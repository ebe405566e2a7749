"""A run's curves for TensorBoard, an optional extra; metrics.jsonl holds the same figures without it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histokin.errors import RecipeError

if TYPE_CHECKING:
    from histokin.learn.trainer import OnEvent


@contextmanager
def on_tensorboard(folder: Path) -> "Iterator[OnEvent]":
    """An `on_event` for `pretrain` that writes loss, rate, terms and monitors below `folder`.

    Raises:
        RecipeError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError("TensorBoard is not installed", "--tensorboard", "Run `pip install tensorboard`.") from error
    writer = SummaryWriter(str(folder))

    def write(event: dict[str, Any]) -> None:
        named = {"loss": event["loss"], "lr": event["lr"], "views_per_s": event["views_per_s"]}
        named |= {f"terms/{name}": value for name, value in event["terms"].items()}
        looked = event["monitor"] or {}
        named |= {f"monitors/{name}": value for name, value in looked.items() if name != "step"}
        for name, value in named.items():
            if value is not None:
                writer.add_scalar(name, value, event["step"])

    try:
        yield write
    finally:
        writer.close()
