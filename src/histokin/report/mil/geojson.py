"""A slide's tiles as QuPath objects with measurements: a GeoJSON FeatureCollection in level-0 pixels."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.report import wording
from histokin.report.mil.painting import ValueScale, colour_table

MOST_TILES = 100_000
"""In one file, about 40 MB; QuPath still opens it in seconds."""
_NAMESPACE = uuid.UUID("c0a7d8b1-6a4e-5d1f-8f51-2f0e9b7a4d22")  # any fixed one: equal maps give equal ids


@dataclass(frozen=True, slots=True)
class TileObjects:
    """What QuPath imports, and what is not in it.

    Attributes:
        collection: the FeatureCollection.
        n_weak: tiles beyond the limit, those of the smallest absolute value of the first measurement.
        n_unplaced: tiles that have no place.
    """

    collection: dict[str, Any]
    n_weak: int
    n_unplaced: int


def tile_objects(
    slide: str,
    coords: NDArray[np.int64],
    size_px: float,
    measurements: Mapping[str, NDArray[np.floating]],
    *,
    colour: ValueScale | None = None,
    most: int = MOST_TILES,
) -> TileObjects:
    """A square a tile with its measurements, in the order of the tiles.

    Args:
        slide: its id, which the objects' ids depend on.
        coords: (n, 2) x, y, top-left, in level-0 px; (-1, -1) for none.
        size_px: side of a tile in level-0 px.
        measurements: (n,) by name, as QuPath is to show them; the first decides which tiles stay.
        colour: scale of the first measurement, to paint the tiles as on the page; None leaves them to QuPath.
        most: tiles in the file.
    """
    lengths = {name: len(values) for name, values in measurements.items()}
    if not lengths or set(lengths.values()) != {len(coords)}:
        raise ValueError(f"need at least one measurement, each of {len(coords)} tiles, got {lengths}")
    first = np.asarray(next(iter(measurements.values())), dtype=np.float64)
    placed = np.flatnonzero(~(coords == -1).all(axis=1))
    strongest = placed[np.argsort(-np.abs(first[placed]), kind="stable")[:most]]
    rows = np.sort(strongest)
    colours = _colours(first[rows], colour)
    columns = {name: np.asarray(values)[rows].tolist() for name, values in measurements.items()}
    features = []
    for at, (row, (x, y)) in enumerate(zip(rows.tolist(), coords[rows].tolist(), strict=True)):
        described: dict[str, Any] = {
            "objectType": "tile",
            "measurements": {name: _number(values[at]) for name, values in columns.items()},
        }
        if colours:
            described["color"] = colours[at]
        features.append(_feature(f"{slide}\n{row}", x, y, size_px, described))
    collection = {"type": "FeatureCollection", "features": wording.clean(features)}
    return TileObjects(collection, len(placed) - len(rows), len(coords) - len(placed))


def _feature(key: str, x: int, y: int, size_px: float, described: dict[str, Any]) -> dict[str, Any]:
    right, bottom = (round(end, 2) for end in (x + size_px, y + size_px))
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, wording.clean(key))),  # QuPath takes no other ids than UUIDs
        "geometry": {"type": "Polygon", "coordinates": [[[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]]},
        "properties": described,
    }


def _colours(values: NDArray[np.float64], scale: ValueScale | None) -> Sequence[list[int]]:
    if scale is None:
        return []
    table = colour_table(scale.kind)
    return table[(np.nan_to_num(scale(values)) * (len(table) - 1)).round().astype(int)].tolist()


def _number(value: float) -> float | str:
    """QuPath's words for what JSON has no number for."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
