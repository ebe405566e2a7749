"""An encoder's folder: timm's local-dir layout (config.json, model.safetensors) with card.json beside it.

model.safetensors holds the timm network alone; a head's weights lie in head.safetensors.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from histokin.artefacts import FORMAT_VERSION, plain, write_bytes, write_json
from histokin.encoders.card import NO_STAIN, EncoderCard, fingerprint, weights_digest
from histokin.encoders.encoder import Encoder
from histokin.encoders.networks import (
    HeadedEncoder,
    backbone_of,
    build_network,
    default_config,
    embedding_dim,
    head_of,
    pooling_of,
    seeded_torch,
    with_head,
)
from histokin.encoders.weights import WeightsMismatch, fit_weights, read_weights
from histokin.errors import EncoderError

CARD, CONFIG, WEIGHTS, HEAD = "card.json", "config.json", "model.safetensors", "head.safetensors"
SAME_MPP = 1e-3  # relative; two pixel sizes this close are one
NEAR_MPP = 0.02  # relative; the scales that a convolutional encoder may be moved between


def save_encoder(folder: Path, network: nn.Module, card: EncoderCard) -> EncoderCard:
    """Write an encoder's folder; equal encoders give equal bytes.

    `timm.create_model("local-dir:<folder>", pretrained=True)` opens it, without its head if it has one. The card is
    written last: a folder without one is not finished. Returns the card with the weights' digest filled in, which is
    of network and head together.

    Raises:
        ValueError: the card speaks of another head than the network has.
    """
    if head_of(network) != tuple(card.head):
        raise ValueError(f"the network's head is {head_of(network)}, the card's {card.head}")
    card = dataclasses.replace(card, weights_sha256=weights_digest(network.state_dict()))
    (folder / CARD).unlink(missing_ok=True)
    _write_weights(folder / WEIGHTS, backbone_of(network))
    if isinstance(network, HeadedEncoder):
        _write_weights(folder / HEAD, network.head)
    else:
        (folder / HEAD).unlink(missing_ok=True)
    write_json(folder / CONFIG, _timm_config(network, card))
    write_json(
        folder / CARD,
        {"format": "encoder", "format_version": FORMAT_VERSION, "fingerprint": fingerprint(card), **plain(card)},
    )
    return card


def _write_weights(path: Path, network: nn.Module) -> None:
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    write_bytes(path, save(state, metadata={"format": "pt"}))


def _timm_config(network: nn.Module, card: EncoderCard) -> dict[str, Any]:
    known = default_config(network)
    return {
        "architecture": card.architecture.partition(".")[0],
        "num_classes": 0,
        "num_features": embedding_dim(backbone_of(network)),
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
        # A card written before heads and stain normalisation were known speaks of neither.
        content = {"head": (), "normalise": NO_STAIN, "trained_mpps": (), **content}
        known = {field.name: content[field.name] for field in dataclasses.fields(EncoderCard)}
        return EncoderCard(
            **{**known, **{name: tuple(known[name]) for name in ("mean", "std", "head", "trained_mpps")}}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"the card cannot be read ({error})", path, "Train or download the encoder anew.") from error


def open_folder(
    folder: Path,
    *,
    tile_px: int | None = None,
    mpp: float | None = None,
    device: str = "auto",
    any_field: bool = False,
) -> Encoder:
    """The encoder of a folder that `save_encoder` wrote.

    Args:
        folder: the encoder's.
        tile_px, mpp: what the tiles are; None takes the card's word. An encoder trained at several mpp takes any of
            them.
        device: torch's name of a device, or `auto`.
        any_field: let a convolutional encoder take tiles of another side at the same mpp, see `card_for_field`.

    Raises:
        EncoderError: unfinished folder, weights that are not the card's, tiles of another size.
    """
    card = read_card(folder)
    tile_px = card.tile_px if tile_px is None else tile_px
    mpp = card.mpp if mpp is None else mpp
    # Trained at several scales it is an encoder for each of them; the fingerprint says for which.
    known = [named for named in (card.mpp, *card.trained_mpps) if _is_within(NEAR_MPP, mpp, named)]
    card = dataclasses.replace(card, mpp=min(known, key=lambda named: abs(named - mpp), default=card.mpp))
    is_other = tile_px != card.tile_px or not _is_within(SAME_MPP, mpp, card.mpp)
    if is_other and not any_field:
        is_near = _is_within(NEAR_MPP, mpp, card.mpp)
        way_out = " A convolutional encoder can take them as they are with --any-field (any_field=True)."
        raise _other_tiles(card, folder, tile_px, mpp, f"{_cut_anew(card)}{way_out if is_near else ''}")
    network = build_network(card.architecture, card.model_args, seed=0)
    network.load_state_dict(_fitting(folder / WEIGHTS, network))
    with seeded_torch(0):  # every weight is replaced
        network = with_head(network, card.head)
    if isinstance(network, HeadedEncoder):
        network.head.load_state_dict(_fitting(folder / HEAD, network.head))
    found = weights_digest(network.state_dict())
    if found != card.weights_sha256:
        raise WeightsMismatch(
            f"the weights ({found[:12]}) are not those the card speaks of ({card.weights_sha256[:12]})",
            folder,
            "Copy the encoder's folder anew, all of its files together.",
        )
    if is_other:
        card = card_for_field(card, network, tile_px=tile_px, mpp=mpp, where=folder)
    return Encoder(network, card, device=device)


def _fitting(path: Path, network: nn.Module) -> dict[str, Tensor]:
    return fit_weights(read_weights(path), network.state_dict(), where=path).state


def card_for_field(
    card: EncoderCard, network: nn.Module, *, tile_px: int, mpp: float, where: Path | str
) -> EncoderCard:
    """The card of the same weights for tiles that show more or less tissue at the same scale.

    A convolutional network averages its last map over whatever field it sees. What reaches it keeps its zoom:
    input_px / tile_px as before, rounded to whole pixels. The card says the tiles' own mpp; its fingerprint is another.

    Args:
        card: of the encoder.
        network: with or without its head.
        tile_px, mpp: of the tiles; mpp within 2 % of the card's.
        where: the encoder, for the error.

    Raises:
        EncoderError: the network sees one size only, or the scale differs.
    """
    if not _is_within(NEAR_MPP, mpp, card.mpp):
        raise _other_tiles(
            card, where, tile_px, mpp, f"Another field is possible, another scale is not. {_cut_anew(card)}"
        )
    if default_config(network).get("fixed_input_size") or pooling_of(network) != "pooled":
        remedy = f"{card.architecture} takes one size only. {_cut_anew(card)}"
        raise _other_tiles(card, where, tile_px, mpp, remedy)
    input_px = max(1, round(card.input_px * tile_px / card.tile_px))
    return dataclasses.replace(card, tile_px=tile_px, input_px=input_px, mpp=float(mpp))


def _is_within(tolerance: float, mpp: float, named: float) -> bool:
    return abs(mpp / named - 1) <= tolerance + 1e-9  # 1.02 is 2 % more than 1, whatever floating point says


def _other_tiles(card: EncoderCard, where: Path | str, tile_px: int, mpp: float, remedy: str) -> EncoderError:
    return EncoderError(
        f"the encoder is for tiles of {card.tile_px} px at {card.mpp:g} mpp, these are of {tile_px} px at {mpp:g} mpp",
        where,
        remedy,
    )


def _cut_anew(card: EncoderCard) -> str:
    return f"Cut tiles with --tile-px {card.tile_px} --tile-mpp {card.mpp:g}."
