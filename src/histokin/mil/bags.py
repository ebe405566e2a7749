"""Bags of tile embeddings, one behind the other: the form in which every model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PackedBags:
    """The tiles of B bags in one tensor: nothing is padded, so no padding can leak into a result.

    Attributes:
        x: (T, D) floating, the bags' tiles one bag after the other.
        lengths: (B,) int64, tiles of each bag, all >= 1. Kept on the CPU, whatever device x is on: loops run over them,
            and asking a GPU would wait for it.
        coords: (T, 2), x and y of the tiles in level-0 pixels; None if unknown. A tile without a place has (-1, -1).
    """

    x: Tensor
    lengths: Tensor
    coords: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or not self.x.is_floating_point():
            raise ValueError(f"need floating (T, D) tiles, got {self.x.dtype} {tuple(self.x.shape)}")
        if self.lengths.ndim != 1 or self.lengths.dtype != torch.int64:
            raise ValueError(f"lengths must be int64 (B,), got {self.lengths.dtype} {tuple(self.lengths.shape)}")
        object.__setattr__(self, "lengths", self.lengths.cpu())
        if (self.lengths < 1).any():
            raise ValueError(f"bag {int((self.lengths < 1).nonzero()[0])} has no tiles")
        if not len(self.lengths) or int(self.lengths.sum()) != len(self.x):
            raise ValueError(f"lengths add up to {int(self.lengths.sum())}, but there are {len(self.x)} tiles")
        if self.coords is not None and self.coords.shape != (len(self.x), 2):
            raise ValueError(f"need ({len(self.x)}, 2) coords, got {tuple(self.coords.shape)}")

    @classmethod
    def of(cls, bags: Sequence[Tensor], coords: Sequence[Tensor] | None = None) -> Self:
        """Pack separate bags.

        Args:
            bags: B tensors (n_b, D).
            coords: B tensors (n_b, 2).
        """
        if not bags:
            raise ValueError("need at least one bag")
        lengths = torch.tensor([len(bag) for bag in bags])
        return cls(torch.cat(list(bags)), lengths, None if coords is None else torch.cat(list(coords)))

    @classmethod
    def from_padded(cls, x: Tensor, mask: Tensor, coords: Tensor | None = None) -> Self:
        """Pack what a mask calls real; what stands in the padding is never read.

        Args:
            x: (B, N, D) floating.
            mask: (B, N) bool, True for a real tile.
            coords: (B, N, 2).
        """
        if x.ndim != 3 or mask.shape != x.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(f"need (B, N, D) tiles and a bool (B, N) mask, got {tuple(x.shape)}, {tuple(mask.shape)}")
        return cls(x[mask], mask.sum(1), None if coords is None else coords[mask])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sizes(self) -> list[int]:
        """Tiles of each bag."""
        return self.lengths.tolist()

    @property
    def starts(self) -> list[int]:
        """First row of each bag."""
        return (self.lengths.cumsum(0) - self.lengths).tolist()

    def pad(self, fill: float = 0.0) -> tuple[Tensor, Tensor]:
        """The bags as (B, N, D), N the longest of them, and the mask (B, N) of the real tiles."""
        mask = torch.arange(int(self.lengths.max())) < self.lengths[:, None]
        mask = mask.to(self.x.device)
        padded = self.x.new_full((*mask.shape, self.x.shape[1]), fill)
        padded[mask] = self.x
        return padded, mask

    def split(self) -> list[Self]:
        """Each bag on its own."""
        sizes = self.sizes
        places = [None] * len(sizes) if self.coords is None else self.coords.split(sizes)
        return [
            type(self)(x, torch.tensor([len(x)]), place) for x, place in zip(self.x.split(sizes), places, strict=True)
        ]

    def to(self, device: torch.device | str) -> Self:
        """The bags with tiles and coords on a device."""
        coords = None if self.coords is None else self.coords.to(device, non_blocking=True)
        return type(self)(self.x.to(device, non_blocking=True), self.lengths, coords)
