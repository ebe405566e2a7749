"""What an encoder is: the card that travels with its weights, and the fingerprint every vector carries."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from histokin.artefacts import digest_of
from histokin.embeddings.embedder import SAMPLE_TILES
from histokin.tissue.colour import TARGET

# The part of the fingerprint that changes when `Encoder.embed` prepares its tiles in another way.
TRANSFORM = "area-1"
NO_STAIN, LAB_STAIN = "none", "lab"


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """All that is needed to turn a tile into this encoder's vector, and where the weights came from.

    Args:
        name: what people call it.
        architecture: timm's name of the network.
        model_args: timm's keyword arguments for it, as JSON knows them.
        weights_sha256: `weights_digest` of the network's state.
        mean, std: subtracted from and divided into RGB in [0, 1].
        mpp: micrometres a pixel of the tiles it is meant for.
        tile_px: side of those tiles.
        input_px: side the network sees; tiles are resized to it by area before the network.
        embed_dim: length of a vector.
        pooling: how the network's last map or tokens become one vector: `pooled` (CNN), `cls`, `mean`, ...
        method: how the weights came about: a pretraining method, `random`, `timm` or `file`.
        trained_mpps: all pixel sizes of the tiles it learned from, where there were several; it takes any of them.
        run: digest of the training run (its recipe and pixels), empty if unknown.
        head: widths of the layers after the timm network, `networks.with_head`; empty if there is none. The last is
            `embed_dim`.
        normalise: `none`, or `lab`: a slide's tiles are brought to one mean and spread in LAB (Reinhard et al. 2001)
            before anything else, by statistics of a sample of the slide's own tiles.
    """

    name: str
    architecture: str
    weights_sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mpp: float
    tile_px: int
    input_px: int
    embed_dim: int
    pooling: str
    method: str
    run: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    head: tuple[int, ...] = ()
    normalise: str = NO_STAIN
    trained_mpps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.tile_px < 1 or self.input_px < 1 or self.embed_dim < 1:
            raise ValueError(f"tile_px, input_px and embed_dim must be >= 1, got {self}")
        if not self.mpp > 0:
            raise ValueError(f"mpp must be > 0, got {self.mpp}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"need 3 means and 3 positive stds, got {self.mean}, {self.std}")
        if self.head and (min(self.head) < 1 or self.head[-1] != self.embed_dim):
            raise ValueError(f"head must be widths >= 1 that end in embed_dim {self.embed_dim}, got {self.head}")
        if self.normalise not in (NO_STAIN, LAB_STAIN):
            raise ValueError(f"normalise must be {NO_STAIN} or {LAB_STAIN}, got {self.normalise!r}")


def twin_of(card: EncoderCard) -> str:
    """What an encoder shares with its twins of other weights, 8 hex digits: all of the fingerprint but the weights."""
    return fingerprint(replace(card, weights_sha256=""))[:8]


def fingerprint(card: EncoderCard) -> str:
    """The identity of the function from tile to vector, 64 hex digits.

    Equal for two encoders exactly when architecture, weights, preparation of the tile, pooling, head, and the mpp and
    size of the tiles they are meant for are equal. Name, method and run are provenance and do not count.
    """
    transform: dict[str, Any] = {
        "kind": TRANSFORM,
        "resize": [card.tile_px, card.input_px],
        "mean": [float(value) for value in card.mean],
        "std": [float(value) for value in card.std],
    }
    if card.normalise == LAB_STAIN:
        # What a slide's statistics are fitted to, and on how many of its tiles, moves every vector.
        transform["normalise"] = {"kind": card.normalise, "target": TARGET, "tiles": SAMPLE_TILES}
    identity: dict[str, Any] = {
        "architecture": card.architecture,
        "model_args": card.model_args,
        "weights_sha256": card.weights_sha256,
        "transform": transform,
        "mpp": float(card.mpp),
        "pooling": card.pooling,
        "embed_dim": card.embed_dim,
    }
    # Left out where there is none: an encoder without head is the same function as before heads were known.
    return digest_of({**identity, "head": card.head} if card.head else identity)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of a state dict: sorted keys, each with dtype, shape and raw C-order bytes.

    Device and memory format (channels_last) do not change it.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu()
        digest.update(f"{key}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        # Flattened in C order whatever the memory format, and viewed as bytes in torch: numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
