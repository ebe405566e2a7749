"""An encoder's folder: timm's local-dir layout (config.json, model.safetensors) with card.json beside it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from histokin.artefacts import FORMAT_VERSION, plain, write_bytes, write_json
from histokin.encoders.card import EncoderCard, fingerprint, weights_digest
from histokin.encoders.encoder import Encoder
from histokin.encoders.networks import build_network, default_config, embedding_dim, known_name, pooling_of
from histokin.encoders.weights import WeightsMismatch, fit_weights, read_weights
from histokin.errors import EncoderError

CARD, CONFIG, WEIGHTS = "card.json", "config.json", "model.safetensors"
RANDOM = "random:"


def save_encoder(folder: Path, network: nn.Module, card: EncoderCard) -> EncoderCard:
    """Write an encoder's folder; equal encoders give equal bytes.

    `timm.create_model("local-dir:<folder>", pretrained=True)` opens it. The card is written last: a folder without one
    is not finished. Returns the card with the weights' digest filled in.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    card = dataclasses.replace(card, weights_sha256=weights_digest(state))
    (folder / CARD).unlink(missing_ok=True)
    write_bytes(folder / WEIGHTS, save(state, metadata={"format": "pt"}))
    write_json(folder / CONFIG, _timm_config(network, card))
    write_json(
        folder / CARD,
        {"format": "encoder", "format_version": FORMAT_VERSION, "fingerprint": fingerprint(card), **plain(card)},
    )
    return card


def _timm_config(network: nn.Module, card: EncoderCard) -> dict[str, Any]:
    known = default_config(network)
    return {
        "architecture": card.architecture.partition(".")[0],
        "num_classes": 0,
        "num_features": card.embed_dim,
        "model_args": plain(card.model_args),
        "pretrained_cfg": {
            "input_size": [3, card.input_px, card.input_px],
            "fixed_input_size": bool(known.get("fixed_input_size", False)),
            # What timm calls this comes nearest: it shrinks with antialiasing, as area interpolation does.
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(card.mean),
            "std": list(card.std),
            "num_classes": 0,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }


def read_card(folder: Path) -> EncoderCard:
    """The card of an encoder's folder.

    Raises:
        EncoderError: no card (an unfinished folder, or none of ours), or one of another format.
    """
    path = folder / CARD
    if not path.is_file():
        raise EncoderError("there is no card.json in this folder", folder, "Name a folder that `pretrain` finished.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = str(content["format_version"])
        if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
            raise EncoderError(
                f"the card is of format {version}, this version reads {FORMAT_VERSION}", path, "Update histokin."
            )
        known = {field.name: content[field.name] for field in dataclasses.fields(EncoderCard)}
        return EncoderCard(**{**known, "mean": tuple(known["mean"]), "std": tuple(known["std"])})
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"the card cannot be read ({error})", path, "Train or download the encoder anew.") from error


def load_encoder(
    name_or_folder: str | Path,
    *,
    tile_px: int | None = None,
    mpp: float | None = None,
    device: str = "auto",
    weights: Path | None = None,
    seed: int = 0,
) -> Encoder:
    """An encoder ready to embed tiles.

    Args:
        name_or_folder: a folder that `save_encoder` wrote; a timm name (weights from its hub, or from `weights`); or
            `random:<timm name>` for random weights.
        tile_px: side of the tiles; a folder's card knows it, and refuses another.
        mpp: micrometres a pixel of the tiles; likewise.
        device: torch's name of a device, or `auto`.
        weights: a weights file for a timm name.
        seed: of random weights.

    Raises:
        EncoderError: unknown name, unfinished folder, weights that cannot be had or do not fit, tiles of another size.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():
        return _load_folder(folder, tile_px=tile_px, mpp=mpp, device=device)
    name = str(name_or_folder)
    if "/" in name or name.startswith((".", "~")):
        raise EncoderError("there is no such encoder folder", name, "Check the path, or name a timm network.")
    if tile_px is None or mpp is None:
        raise EncoderError("a network by name needs to know its tiles", name, "Pass tile_px and mpp.")
    return _load_named(name, tile_px=tile_px, mpp=mpp, device=device, weights=weights, seed=seed)


def _load_folder(folder: Path, *, tile_px: int | None, mpp: float | None, device: str) -> Encoder:
    card = read_card(folder)
    other_px = tile_px is not None and tile_px != card.tile_px
    other_mpp = mpp is not None and abs(mpp - card.mpp) > 1e-3 * card.mpp
    if other_px or other_mpp:
        raise EncoderError(
            f"the encoder is for tiles of {card.tile_px} px at {card.mpp:g} mpp, "
            f"these are of {tile_px or card.tile_px} px at {mpp or card.mpp:g} mpp",
            folder,
            f"Cut tiles with --tile-px {card.tile_px} --tile-mpp {card.mpp:g}.",
        )
    network = build_network(card.architecture, card.model_args, seed=0)
    fitted = fit_weights(read_weights(folder / WEIGHTS), network.state_dict(), where=folder / WEIGHTS)
    network.load_state_dict(fitted.state)
    found = weights_digest(network.state_dict())
    if found != card.weights_sha256:
        raise WeightsMismatch(
            f"the weights ({found[:12]}) are not those the card speaks of ({card.weights_sha256[:12]})",
            folder,
            "Copy the encoder's folder anew, all of its files together.",
        )
    return Encoder(network, card, device=device)


def _load_named(name: str, *, tile_px: int, mpp: float, device: str, weights: Path | None, seed: int) -> Encoder:
    architecture = name.removeprefix(RANDOM)
    is_random = name.startswith(RANDOM) and weights is None
    known_name(architecture)
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
    twin = dataclasses.replace(
        card,
        name=f"{card.name}-random-{seed}",
        weights_sha256=weights_digest(network.state_dict()),
        method="random",
        run="",
    )
    return Encoder(network, twin, device=device)
