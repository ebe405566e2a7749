"""What trained classifiers say of new slides, and which tiles they looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histokin.artefacts import write_json
from histokin.embeddings import EmbeddingStore
from histokin.mil.reading import BagSource, pack_stores, read_bags, whole_bags
from histokin.mil.training.ensembles import Ensemble, read_ensemble
from histokin.mil.training.folds import told_columns
from histokin.mil.training.loop import CPU
from histokin.mil.training.spec import MAX_TILES
from histokin.mil.training.tables import write_columns
from histokin.progress import Reporter, silent


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What an ensemble tells of N slides.

    Attributes:
        slides: ids.
        n_tiles: (N,) of each.
        outputs: names of the P values: classes, labels, risk or value.
        kind: of the targets.
        members: (M, N, P) of each of M models.
        empty: slides without tiles, of which nothing can be told.
    """

    slides: tuple[str, ...]
    n_tiles: NDArray[np.int64]
    outputs: tuple[str, ...]
    kind: str
    members: NDArray[np.float64]
    empty: tuple[str, ...]

    @property
    def told(self) -> NDArray[np.float64]:
        """(N, P) calibrated probabilities of classes or labels, or the risk or value: the models' mean."""
        return self.members.mean(axis=0)

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """One row a slide, as a table."""
        found: dict[str, NDArray[Any]] = {"slide": np.array(self.slides, dtype=object), "n_tiles": self.n_tiles}
        return found | told_columns(self.kind, self.outputs, self.members)


@dataclass(frozen=True, slots=True, eq=False)
class TileMaps:
    """What each tile of a slide had to do with its prediction; n tiles in the order of the slide's file.

    Attributes:
        slide: its id.
        rows: (n,) int64 rows of the slide's file.
        coords: (n, 2) int64 level-0 px, top-left.
        weights: (n, K) attention, the models' mean; each column sums to 1. None where the model has none.
        contrib: (n, C) signed share of each tile in the logits, the models' mean: the sum over tiles is logit - bias.
            None where the logits are no such sum.
        logits: (n, C) of each tile on its own, the models' mean; None where not defined.
    """

    slide: str
    rows: NDArray[np.int64]
    coords: NDArray[np.int64]
    weights: NDArray[np.float32] | None
    contrib: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """One row a tile, as a table."""
        found: dict[str, NDArray[Any]] = {"row": self.rows, "x": self.coords[:, 0], "y": self.coords[:, 1]}
        for name, values in (("weight", self.weights), ("contrib", self.contrib), ("logit", self.logits)):
            if values is not None:
                found |= {f"{name}_{place}": values[:, place] for place in range(values.shape[1])}
        return found


def predict_slides(
    ensemble: Ensemble,
    source: BagSource,
    slides: Sequence[str] | None = None,
    *,
    max_tiles: int = MAX_TILES,
    device: torch.device = CPU,
) -> Predictions:
    """What an ensemble tells of slides.

    Args:
        ensemble: trained.
        source: of their bags, by the same encoder.
        slides: ids; all of the source if None.
        max_tiles: of a batch.
        device: CPU or GPU.

    Raises:
        EncoderMismatch: the bags are of another encoder.
        TrainingError: a slide has no bag.
    """
    names = source.slides if slides is None else tuple(slides)
    bags = source.numbers(names)
    told = ensemble.tell(source, bags, max_tiles=max_tiles, device=device)
    empty = source.empty if slides is None else ()
    return Predictions(names, source.lengths[bags], ensemble.outputs, ensemble.kind, told.values, empty)


def predict_stores(
    folder: Path,
    stores: Sequence[EmbeddingStore],
    out: Path,
    *,
    cache: Path,
    device: torch.device = CPU,
    report: Reporter = silent,
) -> Predictions:
    """Store in, table out: OUT/predictions.csv and .parquet, and in OUT/predictions.json by what they were made.

    Args:
        folder: of the trained ensemble.
        stores: of the slides' embeddings.
        out: folder of the tables.
        cache: folder of the pack of bags; may be deleted.
        device: CPU or GPU.
        report: progress.

    Raises:
        EncoderMismatch: the embeddings are of another encoder than the classifiers'.
        StoreError: a store cannot be used.
        TrainingError: there is no ensemble.
    """
    ensemble = read_ensemble(folder)
    source = pack_stores(cache, stores, report=report)
    found = predict_slides(ensemble, source, device=device)
    write_columns(out / "predictions", found.columns)
    write_json(
        out / "predictions.json",
        {
            "format": "slide-predictions",
            "format_version": "1.0",
            "kind": found.kind,
            "outputs": found.outputs,
            "n_models": len(ensemble.members),
            "temperature": ensemble.temperature,
            "threshold": ensemble.threshold,
            "encoder": ensemble.encoder,
            "fingerprint": ensemble.fingerprint,
            "bags": source.digest,
            "without_tiles": found.empty,
            "notes": ensemble.notes,
        },
    )
    return found


@torch.no_grad()
def map_tiles(ensemble: Ensemble, source: BagSource, slide: str, *, device: torch.device = CPU) -> TileMaps:
    """Attention, contribution and own logits of each tile of a slide, as means over the ensemble.

    Args:
        ensemble: trained.
        source: of the bag.
        slide: its id.
        device: CPU or GPU.

    Raises:
        EncoderMismatch: the bag is of another encoder.
        TrainingError: the slide has no bag.
    """
    ensemble.check_fit(source)
    bags = source.numbers([slide])
    draw = whole_bags(source.lengths, bags, n_bags=1, max_tiles=MAX_TILES)[0]
    packed = read_bags(source, draw, device)
    coords = np.full((len(packed.x), 2), -1) if packed.coords is None else packed.coords.cpu().numpy()
    outputs = [ensemble.member(number).model.to(device)(packed) for number in range(len(ensemble.members))]
    bag = int(bags[0])
    return TileMaps(
        slide=slide,
        rows=source.tile_rows(bag),
        coords=coords,
        weights=_mean([output.weights for output in outputs]),
        contrib=_mean([output.tile_contrib for output in outputs]),
        logits=_mean([output.tile_logits for output in outputs]),
    )


def _mean(parts: Sequence[Tensor | None]) -> NDArray[np.float32] | None:
    known = [one.float().cpu() for one in parts if one is not None]
    return torch.stack(known).mean(0).numpy() if len(known) == len(parts) else None
