"""`MilSpec`: all that a classifier's training depends on besides its data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from histokin.errors import RecipeError

Optimiser = Literal["adamw", "adam", "radam-lookahead", "sgd"]
Balance = Literal["weights", "sampler", "none"]
MAX_TILES = 65_536
"""Of a batch."""
FEWEST_FOR_COX = 16


@dataclass(frozen=True, slots=True)
class MilSpec:
    """How slide classifiers are trained. A default is ours unless its source stands beside it.

    Attributes:
        model: a name of `MODELS`; mil_rnn is trained in two stages (`training/rnn.py`).
        options: of the model.
        preset: default, or faithful to the published code. It changes the model alone; `faithful_spec` changes all.
        optimiser: adamw (.9, .999) is ours; the others are those of published code, with weight decay as L2
            (radam-lookahead: decoupled).
        lr, weight_decay: 2e-4 as CLAM's README and TransMIL; decoupled 1e-4.
        beta1: of the Adams (DSMIL: .5); momentum of sgd, with Nesterov's step.
        warmup: epochs of linear rise; 0 for none.
        end_lr: what half a cosine over all epochs ends at; None keeps the rate.
        epochs: at most, or exactly where patience is None.
        patience: epochs without a lower validation loss after which training stops; the best epoch's weights are
            kept. None trains all epochs and keeps the last weights: for data too small to choose an epoch on.
        min_epochs: before which nothing stops.
        batch: bags of a step, 8: several times as fast as 1 at the same loss.
        accumulate: batches of a step (TransMIL: 2).
        max_tiles: of a batch, which bounds the memory; a larger bag makes its own.
        tile_cap: tiles of a bag in training, drawn anew each epoch; None takes all, as evaluation always does.
        balance: weights N / (C n_c) of the loss (of labels: negatives by positives), or bags drawn with N / n_c
            (classes alone), or none; never both.
        mean_epochs: epochs on the mean of the tiles' logits that a model of maxima begins with: of three seeds one
            collapsed without (AUC .48 against .97 of digit bags).
        survival: the objective where the target is a time: hazards in bins, or Cox's with at least 16 bags a batch.
        n_bins, alpha: of the hazards.
        n_seeds: models of each inner split.
        n_folds: outer folds, which judge.
        n_inner: inner folds of the rest, whose validation parts choose epoch, temperature and threshold.
        patient_score: how a patient's slides are joined: mean of their probabilities, or the largest.
        seed: of everything drawn.
    """

    model: str = "abmil"
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: Literal["default", "faithful"] = "default"
    optimiser: Optimiser = "adamw"
    lr: float = 2e-4
    weight_decay: float = 1e-4
    beta1: float = 0.9
    warmup: float = 1.0
    end_lr: float | None = 0.0
    epochs: int = 100
    patience: int | None = 15
    min_epochs: int = 15
    batch: int = 8
    accumulate: int = 1
    max_tiles: int = MAX_TILES
    tile_cap: int | None = 4096
    balance: Balance = "weights"
    mean_epochs: int = 1
    survival: Literal["hazards", "cox"] = "hazards"
    n_bins: int = 4
    alpha: float = 0.0
    n_seeds: int = 3
    n_folds: int = 5
    n_inner: int = 3
    patient_score: Literal["mean", "max"] = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "min_epochs", "batch", "accumulate", "max_tiles", "n_seeds"):
            _need(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("n_folds", "n_inner", "n_bins"):
            _need(getattr(self, name) >= 2, f"{name} must be >= 2, got {getattr(self, name)}")
        for name in ("patience", "tile_cap"):
            _need(getattr(self, name) is None or getattr(self, name) >= 1, f"{name} must be >= 1 or none")
        _need(self.lr > 0 and math.isfinite(self.lr), f"lr must be > 0, got {self.lr}")
        _need(self.end_lr is None or 0 <= self.end_lr <= self.lr, f"end_lr must be in [0, lr], got {self.end_lr}")
        for name in ("weight_decay", "warmup", "mean_epochs"):
            _need(getattr(self, name) >= 0, f"{name} must be >= 0, got {getattr(self, name)}")
        _need(0 <= self.beta1 < 1, f"beta1 must be in [0, 1), got {self.beta1}")
        _need(0 <= self.alpha <= 1, f"alpha must be in [0, 1], got {self.alpha}")
        is_enough = self.survival != "cox" or self.batch >= FEWEST_FOR_COX
        _need(is_enough, f"Cox's loss compares the slides of a batch: batch must be >= {FEWEST_FOR_COX}")

    def rate(self, done: float) -> float:
        """The learning rate after so many epochs: a linear rise, then half a cosine down to `end_lr`.

        Args:
            done: epochs, a step's taken at its middle: 0.5 / steps for the first.
        """
        if done < self.warmup:
            return self.lr * done / self.warmup
        if self.end_lr is None:
            return self.lr
        share = (done - self.warmup) / max(self.epochs - self.warmup, 1e-9)
        return self.end_lr + (self.lr - self.end_lr) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def faithful_spec(model: str, **changes: Any) -> MilSpec:
    """A model trained as its authors' code does it, but that epochs are chosen on validation data alone.

    Read in CLAM 53e2409, DSMIL 80465ed, TransMIL 9d6aee5, MIL-nature-medicine-2019 daecb72, AttentionDeepMIL eb0434b;
    not repeated: half precision (TransMIL), choice by balanced accuracy (MIL-RNN) or by the test part (DSMIL). Other
    models have the default training.

    Args:
        model: a name of `MODELS`.
        changes: of the spec's own.
    """
    published = MilSpec(
        model=model,
        preset="faithful",
        optimiser="adam",
        warmup=0,
        end_lr=None,
        batch=1,
        tile_cap=None,
        balance="none",
    )
    match model:
        case "abmil":  # Adam 5e-4, 20 epochs, the last weights
            chosen = replace(published, lr=5e-4, weight_decay=1e-4, epochs=20, patience=None)
        case "clam_sb" | "clam_mb":  # its counter runs from epoch 0 and may stop from epoch 51 on
            chosen = replace(
                published, lr=1e-4, weight_decay=1e-5, epochs=200, patience=20, min_epochs=52, balance="sampler"
            )
        case "dsmil":
            chosen = replace(
                published, lr=1e-4, weight_decay=1e-3, beta1=0.5, end_lr=5e-6, epochs=50, patience=10, min_epochs=1
            )
        case "transmil":
            chosen = replace(
                published,
                optimiser="radam-lookahead",
                lr=2e-4,
                weight_decay=1e-5,
                epochs=200,
                patience=10,
                min_epochs=1,
                accumulate=2,
            )
        case "mil_rnn":  # its second stage; the first has settings of its own
            chosen = replace(published, optimiser="sgd", lr=0.1, weight_decay=1e-4, epochs=100, patience=100, batch=128)
        case _:
            chosen = MilSpec(model=model, preset="faithful")
    return replace(chosen, **changes)


def _need(holds: bool, sentence: str) -> None:
    if not holds:
        raise RecipeError(sentence, "the classifier's spec", "Correct the value.")
