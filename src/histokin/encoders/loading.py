"""Encoders by what people call them: a folder, a published encoder, a timm name, or random weights."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histokin.encoders.card import EncoderCard, twin_of, weights_digest
from histokin.encoders.encoder import Encoder
from histokin.encoders.folder import open_folder
from histokin.encoders.networks import (
    build_network,
    default_config,
    embedding_dim,
    known_name,
    pooling_of,
    seeded_torch,
    with_head,
)
from histokin.encoders.published import PUBLISHED, weights_wanted
from histokin.encoders.weights import fit_weights, read_weights
from histokin.errors import EncoderError
from histokin.streams import seed64

RANDOM = "random:"
_log = logging.getLogger(__name__)


def load_encoder(
    name_or_folder: str | Path,
    *,
    tile_px: int | None = None,
    mpp: float | None = None,
    device: str = "auto",
    weights: Path | None = None,
    seed: int = 0,
    any_field: bool = False,
) -> Encoder:
    """An encoder ready to embed tiles.

    Args:
        name_or_folder: a folder that `save_encoder` wrote; a published encoder of `PUBLISHED` (its file in `weights`);
            a timm name (weights from its hub, or from `weights`); or `random:<timm name>` for random weights.
        tile_px: side of the tiles; a folder's card knows it, and refuses another.
        mpp: micrometres a pixel of the tiles; likewise.
        device: torch's name of a device, or `auto`.
        weights: a weights file for a name.
        seed: of random weights.
        any_field: let the convolutional encoder of a folder take tiles of another side at the same mpp (2 %): they are
            resized by the same factor as its own, and its card and fingerprint say so. Names take any tiles.

    Raises:
        EncoderError: unknown name, unfinished folder, weights that cannot be had or do not fit, tiles of another size.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():
        if weights is not None:
            raise EncoderError("a folder has its own weights", folder, "Leave --weights out, or name a network.")
        return open_folder(folder, tile_px=tile_px, mpp=mpp, device=device, any_field=any_field)
    name = str(name_or_folder)
    if "/" in name or name.startswith((".", "~")):
        raise EncoderError("there is no such encoder folder", name, "Check the path, or name a timm network.")
    if name in PUBLISHED and weights is None:
        raise weights_wanted(name)
    if tile_px is None or mpp is None:
        raise EncoderError("a network by name needs to know its tiles", name, "Pass tile_px and mpp.")
    if name in PUBLISHED and weights is not None:
        return _load_published(name, weights, tile_px=tile_px, mpp=mpp, device=device)
    return _load_named(name, tile_px=tile_px, mpp=mpp, device=device, weights=weights, seed=seed)


def _load_published(name: str, weights: Path, *, tile_px: int, mpp: float, device: str) -> Encoder:
    entry = PUBLISHED[name]
    network = build_network(entry.architecture, seed=0)
    fitted = fit_weights(
        read_weights(weights),
        network.state_dict(),
        where=weights,
        keys=entry.keys,
        remedy=f"{name} is {entry.file} of {entry.source}: fetch that file, or leave only the encoder's tensors in it.",
    )
    network.load_state_dict(fitted.state)
    _log.info("%s: %s", weights, fitted.sentence)
    card = EncoderCard(
        name=name,
        architecture=entry.architecture,
        weights_sha256=weights_digest(network.state_dict()),
        mean=entry.mean,
        std=entry.std,
        mpp=float(mpp),
        tile_px=int(tile_px),
        input_px=entry.input_px,
        embed_dim=embedding_dim(network),
        pooling=pooling_of(network),
        method=entry.method,
    )
    return Encoder(network, card, device=device)


def _load_named(name: str, *, tile_px: int, mpp: float, device: str, weights: Path | None, seed: int) -> Encoder:
    architecture = name.removeprefix(RANDOM)
    is_random = name.startswith(RANDOM) and weights is None
    known_name(architecture, also=PUBLISHED)
    network = build_network(architecture, seed=seed, pretrained=not is_random, weights=weights)
    config = default_config(network)
    side = int(config.get("input_size", (3, 224, 224))[-1])
    # Random weights have learned no size: they need not see an enlarged tile.
    input_px = min(side, tile_px) if is_random and not config.get("fixed_input_size") else side
    card = EncoderCard(
        name=f"{architecture}-random-{seed}" if is_random else weights.stem if weights else architecture,
        architecture=architecture,
        weights_sha256=weights_digest(network.state_dict()),
        mean=_triple(config, "mean", 0.5),
        std=_triple(config, "std", 0.5),
        mpp=float(mpp),
        tile_px=int(tile_px),
        input_px=input_px,
        embed_dim=embedding_dim(network),
        pooling=pooling_of(network),
        method="random" if is_random else "file" if weights else "timm",
    )
    return Encoder(network, card, device=device)


def _triple(config: Mapping[str, Any], key: str, default: float) -> tuple[float, float, float]:
    red, green, blue = config.get(key, (default,) * 3)
    return float(red), float(green), float(blue)


def random_encoder(card: EncoderCard, seed: int, *, device: str = "auto") -> Encoder:
    """The floor `random`: the same architecture on the same input, with random weights."""
    network = build_network(card.architecture, card.model_args, seed=seed)
    with seeded_torch(seed64(seed, "head")):
        network = with_head(network, card.head)
    twin = dataclasses.replace(
        card,
        name=f"random-{twin_of(card)}-{seed}",
        weights_sha256=weights_digest(network.state_dict()),
        method="random",
        run="",
    )
    return Encoder(network, twin, device=device)
