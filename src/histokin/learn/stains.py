"""The staining of each slide: measured once, taken out of the pixels, or drawn from anew (RandStainNA)."""

import hashlib
from dataclasses import dataclass

import numpy as np

from histokin.artefacts import digest_of
from histokin.learn.pixels import PixelSource
from histokin.tissue.colour import TARGET, LabStatistics, lab_statistics, normalise_lab

# A drawn spread is at least this share of the mean spread: N(mu, sigma) also gives negative ones.
LEAST_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Stains:
    """Mean and standard deviation of each slide's tissue in LAB.

    Attributes:
        mean, std: (S, 3) float64, row s of slide number s; NaN for slides without tiles or without tissue on them.
    """

    mean: np.ndarray
    std: np.ndarray

    def of(self, slide: int) -> LabStatistics:
        """One slide's."""
        return LabStatistics(self.mean[slide], self.std[slide])

    @property
    def is_known(self) -> np.ndarray:
        """(S,) bool: the slides that have been measured."""
        return np.logical_and.reduce(np.isfinite(self.mean + self.std), axis=1)


@dataclass(frozen=True, slots=True)
class StainTemplates:
    """How stainings are distributed: normal in each of LAB's six numbers (Shen et al. 2022, RandStainNA).

    Attributes:
        mean_mu, mean_sigma: (3,) float64, of the slides' means.
        std_mu, std_sigma: (3,) float64, of the slides' standard deviations.
    """

    mean_mu: np.ndarray
    mean_sigma: np.ndarray
    std_mu: np.ndarray
    std_sigma: np.ndarray

    def draw(self, normal: np.ndarray, factor: float) -> np.ndarray:
        """Stainings that a slide of this kind may have.

        Args:
            normal: (n, 2, 3) standard normal numbers, for means and for standard deviations.
            factor: on the sigmas; 1 for the slides' own spread.

        Returns:
            (n, 2, 3) float64 means and standard deviations, the latter at least a tenth of `std_mu`.
        """
        mu, sigma = np.stack([self.mean_mu, self.std_mu]), np.stack([self.mean_sigma, self.std_sigma])
        drawn = mu + factor * sigma * normal
        drawn[:, 1] = np.maximum(drawn[:, 1], LEAST_SPREAD * self.std_mu)
        return drawn


def fit_stains(source: PixelSource, per_slide: int = 16) -> Stains:
    """Measure each slide's staining on some of its tiles, evenly strided over their order.

    Args:
        source: of pixels; read a slide at a time.
        per_slide: tiles of each slide, at most.

    Raises:
        ValueError: per_slide < 1.
    """
    if per_slide < 1:
        raise ValueError(f"per_slide must be >= 1, got {per_slide}")
    n_slides = int(source.slides.max(initial=-1)) + 1
    mean, std = np.full((n_slides, 3), np.nan), np.full((n_slides, 3), np.nan)
    order = np.argsort(source.slides, kind="stable")
    in_order = source.slides[order]
    for slide in np.unique(in_order):
        start, stop = np.searchsorted(in_order, [slide, slide + 1])
        n = min(per_slide, stop - start)
        middles = start + (2 * np.arange(n) + 1) * (stop - start) // (2 * n)  # of n equal shares
        found = lab_statistics(source.read(order[middles]))
        mean[slide], std[slide] = found.mean, found.std
    return Stains(mean, std)


def fit_templates(stains: Stains) -> StainTemplates:
    """Mean and standard deviation over slides, one row a slide however many tiles it has.

    Fit them on pixels as they are: normalised slides all look alike.

    Raises:
        ValueError: no slide has been measured.
    """
    mean, std = stains.mean[stains.is_known], stains.std[stains.is_known]
    if len(mean) == 0:
        raise ValueError("no slide has tissue whose staining could be measured")
    return StainTemplates(mean.mean(0), mean.std(0), std.mean(0), std.std(0))


class NormalisedPixels:
    """Pixels of a source with each slide's staining moved to one target's.

    Tiles of slides without measured tissue stay as they are.

    Args:
        source: of pixels.
        stains: of its slides, by number.
        target: what all slides are moved to.

    Raises:
        ValueError: slides that `stains` does not know of.
    """

    def __init__(self, source: PixelSource, stains: Stains, target: LabStatistics = TARGET) -> None:
        if source.slides.max(initial=-1) >= len(stains.mean):
            raise ValueError(f"stains of {len(stains.mean)} slides, tiles of slide {source.slides.max()}")
        self._source, self._stains, self._target = source, stains, target
        self.px, self.field_px = source.px, source.field_px
        self.mpp, self.mpps, self.cohort_mpps = source.mpp, source.mpps, source.cohort_mpps
        self.slides, self.cohorts = source.slides, source.cohorts
        self.places, self.labels = source.places, source.labels
        numbers = np.concatenate([stains.mean, stains.std, target.mean[None], target.std[None]])
        self.digest = digest_of([source.digest, "lab", hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest()])

    def __len__(self) -> int:
        return len(self._source)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, field_px, field_px, 3) uint8 RGB."""
        tiles = self._source.read(rows)
        slides = self.slides[rows]
        out = np.empty_like(tiles)
        for slide in np.unique(slides):
            mine = np.flatnonzero(slides == slide)
            out[mine] = normalise_lab(tiles[mine], self._stains.of(slide), self._target)
        return out
