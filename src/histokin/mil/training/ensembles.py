"""Ensembles: seeds x inner splits of one training part, calibrated on what the inner splits held out."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histokin.artefacts import Ledger, write_json
from histokin.errors import EncoderMismatch, TrainingError
from histokin.evaluate.calibration import fit_temperature, tempered
from histokin.evaluate.splits import SplitTable
from histokin.mil.reading import BagSource
from histokin.mil.training.loop import CPU, Checkpoint, Fitted, fit_one, logits_of
from histokin.mil.training.members import Member, read_member, write_member
from histokin.mil.training.rnn import fit_two_stages
from histokin.mil.training.spec import MAX_TILES, MilSpec
from histokin.mil.training.targets import predicted
from histokin.mil.training.task import MilTask
from histokin.progress import Reporter, silent
from histokin.streams import seed64

FORMAT_VERSION = "1.0"


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Trained classifiers that speak together, read from a folder.

    Attributes:
        folder: of it.
        members: file names in order: inner splits, seeds within them.
        kind: of the targets; `Targets.kind`.
        outputs: names of what it tells: classes, labels, risk or value.
        dim, encoder, fingerprint: of the embeddings it reads.
        temperature: that the logits of classes are divided by before they are joined; 1 for other kinds.
        threshold: of the second of two classes where its probability balances the recalls best on the inner
            validation parts; None for other kinds. The default decision is the most probable class.
        notes: what to know of temperature and threshold.
    """

    folder: Path
    members: tuple[str, ...]
    kind: str
    outputs: tuple[str, ...]
    dim: int
    encoder: str
    fingerprint: str
    temperature: float
    threshold: float | None
    notes: tuple[str, ...]

    def member(self, number: int) -> Member:
        """One of its classifiers.

        Raises:
            TrainingError: as `read_member`.
        """
        return read_member(self.folder / self.members[number])

    def tell(
        self, source: BagSource, bags: NDArray[np.int64], *, max_tiles: int = MAX_TILES, device: torch.device = CPU
    ) -> "Told":
        """What each of the classifiers says of bags.

        Args:
            source: of the bags.
            bags: (N,) numbers in it.
            max_tiles: of a batch.
            device: CPU or GPU.

        Raises:
            EncoderMismatch: the bags are of another encoder.
        """
        self.check_fit(source)
        logits, values = [], []
        for number in range(len(self.members)):
            member = self.member(number)
            found = logits_of(member.model.to(device), source, bags, max_tiles=max_tiles, device=device)
            logits.append(found.numpy())
            values.append(predicted(member.objective, found, self.temperature))
        return Told(np.stack(logits), np.stack(values))

    def check_fit(self, source: BagSource) -> None:
        """Refuse bags of another encoder.

        Raises:
            EncoderMismatch: shows both sides.
        """
        mine, theirs = (self.fingerprint, self.dim), (source.fingerprint, source.dim)
        if mine != theirs:
            raise EncoderMismatch(
                f"the classifiers read {self.encoder} {self.fingerprint} ({self.dim} wide), "
                f"these bags are of {source.encoder} {source.fingerprint} ({source.dim} wide)",
                self.folder,
                "Embed the slides with the encoder that the classifiers were trained on.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What M classifiers say of N bags.

    Attributes:
        logits: (M, N, C) float32, before calibration.
        values: (M, N, P) float64, what they tell; their mean over M is the ensemble's word.
    """

    logits: NDArray[np.float32]
    values: NDArray[np.float64]


def fit_ensemble(
    task: MilTask,
    inner: SplitTable,
    spec: MilSpec,
    folder: Path,
    *,
    name: str = "all",
    device: torch.device = CPU,
    every_s: float = 30.0,
    report: Reporter = silent,
) -> Ensemble:
    """Train every seed on every inner split, and calibrate them together; what is there already is kept.

    Args:
        task: slides and targets; those that `inner` does not name take no part.
        inner: train and val of each inner fold.
        spec: how.
        folder: of the ensemble.
        name: of the training part, such as its outer fold: seeds differ between names.
        device: CPU or GPU.
        every_s: seconds between two checkpoints of a member in training.
        report: progress, in members.

    Raises:
        TrainingError: as `fit_one`.
    """
    ledger = Ledger(folder, "slide classifier", spec)
    parts = [_parts(task, inner, place) for place in range(len(inner.folds))]
    keys = [(place, seed, f"inner{place}-seed{seed}") for place in range(len(parts)) for seed in range(spec.n_seeds)]
    with report(f"fold {name}", len(keys), "models") as progress:
        for place, seed, key in keys:
            train, val = parts[place]
            inputs = {
                "bags": task.source.digest,
                "train": task.digest(train),
                "val": task.digest(val),
                "seed": (name, place, seed),
            }
            path = folder / f"{key}.safetensors"
            if ledger.find(key, inputs) is None:
                ledger.forget(key)
                run_seed = seed64(spec.seed, "member", name, place, seed)
                checkpoint = Checkpoint(folder / "unfinished" / path.name, every_s)
                fitted = fit(task, train, val, spec, seed=run_seed, device=device, checkpoint=checkpoint)
                write_member(path, fitted, spec)
                ledger.commit(key, inputs, path, epoch=fitted.epoch, n_epochs=len(fitted.history))
            _forget_unfinished(folder, path.name)
            progress.advance()
    ledger.write_manifest([key for _, _, key in keys])
    files = [f"{key}.safetensors" for _, _, key in keys]
    return _calibrated(task, spec, folder, files, [parts[place][1] for place, _, _ in keys])


def fit(
    task: MilTask,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    spec: MilSpec,
    *,
    seed: int,
    device: torch.device = CPU,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train one classifier in one stage or two, as its model wants it; arguments as in `fit_one`."""
    train_by = fit_two_stages if spec.model == "mil_rnn" else fit_one
    return train_by(task, train, val, spec, seed=seed, device=device, checkpoint=checkpoint)


def read_ensemble(folder: Path) -> Ensemble:
    """An ensemble from its folder.

    Raises:
        TrainingError: there is none, or it is of another version.
    """
    about = _read_about(folder)
    if about.get("format_version") != FORMAT_VERSION:
        raise TrainingError(
            f"the classifiers are of format {about.get('format_version')}, this program reads {FORMAT_VERSION}",
            folder,
            "Train them anew with this version.",
        )
    return Ensemble(
        folder=folder,
        members=tuple(about["members"]),
        kind=about["kind"],
        outputs=tuple(about["outputs"]),
        dim=about["dim"],
        encoder=about["encoder"],
        fingerprint=about["fingerprint"],
        temperature=about["temperature"],
        threshold=about["threshold"],
        notes=tuple(about["notes"]),
    )


def balancing_threshold(probability: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> float:
    """The threshold t of `p >= t` with the best mean of both recalls; of equal ones the middle, between two values.

    Args:
        probability: (N,).
        is_positive: (N,) both values occurring.
    """
    order = np.argsort(-probability, kind="stable")
    p, positive = probability[order], is_positive[order]
    recall = np.concatenate([[0], np.cumsum(positive)]) / positive.sum()
    specificity = 1 - np.concatenate([[0], np.cumsum(~positive)]) / (~positive).sum()
    may_cut = np.concatenate([[True], p[1:] < p[:-1], [True]])  # equal probabilities stay on one side
    score = np.where(may_cut, recall + specificity, -np.inf)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    cut = int(best[len(best) // 2])
    above = p[cut - 1] if cut else 1.0
    below = p[cut] if cut < len(p) else 0.0
    return float((above + below) / 2)


def _parts(task: MilTask, inner: SplitTable, place: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    codes = inner.part_codes(task.items.item)[:, place]
    return np.flatnonzero(codes == 0), np.flatnonzero(codes == 1)


def _calibrated(
    task: MilTask, spec: MilSpec, folder: Path, files: Sequence[str], vals: Sequence[NDArray[np.int64]]
) -> Ensemble:
    """Temperature and threshold from what the members said of their validation parts, and the ensemble's own file."""
    temperature, threshold, notes = 1.0, None, []
    if task.targets.kind == "classes":
        logits = np.concatenate([read_member(folder / file).val_logits.numpy() for file in files])
        truth = task.targets.values[np.concatenate(vals)]
        found = fit_temperature(logits, truth)
        if found.is_at_end:
            notes.append(f"not calibrated: the inner validation parts want a temperature of {found.t:g} or beyond")
        else:
            temperature = found.t
        if len(task.targets.names) == 2 and len(np.unique(truth)) == 2:
            threshold = balancing_threshold(tempered(logits, temperature)[:, 1], truth == 1)
    about: dict[str, Any] = {
        "format": "slide-classifiers",
        "format_version": FORMAT_VERSION,
        "spec": spec,
        "members": list(files),
        "kind": task.targets.kind,
        "outputs": task.targets.outputs,
        "dim": task.source.dim,
        "encoder": task.source.encoder,
        "fingerprint": task.source.fingerprint,
        "temperature": temperature,
        "threshold": threshold,
        "notes": notes,
    }
    write_json(folder / "ensemble.json", about)
    return read_ensemble(folder)


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            "there are no trained classifiers here", folder, "Train them, or name the folder that holds ensemble.json."
        ) from error


def _forget_unfinished(folder: Path, name: str) -> None:
    unfinished = folder / "unfinished"
    for path in unfinished.glob(f"*{name}"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # gone, or others are in it
        unfinished.rmdir()
