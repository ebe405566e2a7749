"""An encoder at work: tiles in, vectors out."""

import copy
from collections.abc import Callable
from typing import Self

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from histokin.encoders.card import NO_STAIN, EncoderCard, fingerprint, twin_of
from histokin.errors import EncoderError
from histokin.tissue.colour import TARGET, LabStatistics, lab_statistics, normalise_lab

DEFAULT_BATCH = 64


def choose_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one, else the CPU; anything else is torch's name of a device."""
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise EncoderError(f"there is no device {device!r}", "--device", "Use cpu, cuda or cuda:1.") from error
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise EncoderError("torch sees no CUDA device here", "--device", "Use --device cpu, or auto.")
        return chosen
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Encoder:
    """A network with its card, ready to embed tiles of the card's size and mpp.

    Args:
        network: (B, 3, input_px, input_px) float32 to (B, embed_dim); put into eval mode and moved to the device.
        card: what it is.
        device: torch's name of a device, or `auto`.
        batch: tiles that go through the network at once; the vectors do not depend on it up to rounding (1e-5).
    """

    def __init__(
        self, network: nn.Module, card: EncoderCard, *, device: str = "auto", batch: int = DEFAULT_BATCH
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be >= 1, got {batch}")
        self.card, self.batch = card, batch
        self.device = choose_device(device)
        self.fingerprint = fingerprint(card)
        self._stain: LabStatistics | None = None
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub lacks the pair

    @property
    def name(self) -> str:
        """What people call it."""
        return self.card.name

    @property
    def twin(self) -> str:
        """What it shares with its twins of random weights; see `twin_of`."""
        return twin_of(self.card)

    @property
    def mpp(self) -> float:
        """Micrometres a pixel of the tiles it is for."""
        return self.card.mpp

    @property
    def tile_px(self) -> int:
        """Side of these tiles."""
        return self.card.tile_px

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.card.embed_dim

    @property
    def for_slide(self) -> Callable[[np.ndarray], Self] | None:
        """Fits the stain normalisation to one slide; None where the card asks for none.

        The function takes a sample of the slide's tiles, (n >= 1, tile_px, tile_px, 3) uint8, and returns this encoder
        (same network, same fingerprint) for the tiles of that slide.
        """
        return None if self.card.normalise == NO_STAIN else self._fitted_to

    def _fitted_to(self, sample: np.ndarray) -> Self:
        self._check(sample)
        if not len(sample):
            raise EncoderError("its colours cannot be fitted to no tiles", self.name, "Pass tiles of the slide.")
        fitted = copy.copy(self)
        fitted._stain = lab_statistics(sample)  # noqa: SLF001 - it is this very class
        return fitted

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        """The tiles' vectors, not normalised to length 1.

        Args:
            tiles: (n, tile_px, tile_px, 3) uint8 RGB at the card's mpp; n may be 0.

        Returns:
            (n, dim) float32, row i of tile i whatever else is in the batch.

        Raises:
            EncoderError: tiles of another size or type than the card's, or of a slide whose colours are not known yet.
        """
        self._check(tiles)
        if self._stain is None and self.card.normalise != NO_STAIN:
            raise EncoderError(
                "it normalises the colours of each slide and has seen none of this one",
                self.name,
                "Fit it first: encoder.for_slide(sample of the slide's tiles).embed(tiles).",
            )
        vectors = np.empty((len(tiles), self.dim), np.float32)
        for start in range(0, len(tiles), self.batch):
            part = slice(start, start + self.batch)
            own = tiles[part] if self._stain is None else normalise_lab(tiles[part], self._stain, TARGET)
            pixels = torch.from_numpy(resize_tiles(own, self.card.input_px))
            vectors[part] = self._forward(pixels).cpu().numpy()
        return vectors

    def _check(self, tiles: np.ndarray) -> None:
        px = self.card.tile_px
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1:] != (px, px, 3):
            raise EncoderError(
                f"it takes (n, {px}, {px}, 3) uint8 tiles, got {tiles.shape} {tiles.dtype}",
                self.name,
                f"Cut tiles of {px} px at {self.card.mpp:g} mpp.",
            )

    @torch.inference_mode()
    def _forward(self, pixels: Tensor) -> Tensor:
        self.network.eval()
        return self.network(normalise(pixels.to(self.device), self.card.mean, self.card.std)).float()

    def __repr__(self) -> str:
        return f"Encoder({self.name}, {self.card.architecture}, {self.dim}-d, {self.fingerprint[:12]}, {self.device})"


def resize_tiles(tiles: np.ndarray, px: int) -> np.ndarray:
    """(n, H, W, 3) uint8 to (n, px, px, 3) uint8: by area when shrinking, linear when enlarging."""
    if tiles.shape[1:3] == (px, px):
        return np.ascontiguousarray(tiles)
    # OpenCV's INTER_AREA turns into nearest neighbour when it enlarges.
    how = cv2.INTER_AREA if px < tiles.shape[1] else cv2.INTER_LINEAR
    out = np.empty((len(tiles), px, px, 3), np.uint8)
    for i, tile in enumerate(tiles):
        cv2.resize(tile, (px, px), dst=out[i], interpolation=how)
    return out


def normalise(pixels: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """(n, H, W, 3) uint8 to (n, 3, H, W) float32 in channels_last order: (value / 255 - mean) / std."""
    scale = torch.tensor([1 / (255 * value) for value in std], device=pixels.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=pixels.device)
    # Permuting channel-last pixels is channels_last already: nothing is copied.
    return (pixels.float() * scale + shift).permute(0, 3, 1, 2)
