import json
import math
import uuid

import numpy as np
import pytest

from histokin.report.mil.geojson import tile_objects
from histokin.report.mil.painting import ValueScale, colour_table

COORDS = np.array([[0, 0], [512, 0], [-1, -1], [512, 512], [1024, 512]])
MEASURED = {"contribution": np.array([0.5, -0.9, 3.0, 0.1, -0.2]), "attention": np.array([1, 2, 3, np.nan, np.inf])}


def test_every_placed_tile_is_a_square_at_its_place_with_its_measurements():
    found = tile_objects("S1", COORDS, 512, MEASURED)
    collection = json.loads(json.dumps(found.collection, allow_nan=False))
    assert (found.n_weak, found.n_unplaced, collection["type"]) == (0, 1, "FeatureCollection")
    rows = [0, 1, 3, 4]
    for one, row in zip(collection["features"], rows, strict=True):
        x, y = COORDS[row].tolist()
        (ring,) = one["geometry"]["coordinates"]
        assert ring == [[x, y], [x + 512, y], [x + 512, y + 512], [x, y + 512], [x, y]]
        assert one["properties"]["objectType"] == "tile"
        assert one["properties"]["measurements"]["contribution"] == MEASURED["contribution"][row]
    assert [one["properties"]["measurements"]["attention"] for one in collection["features"]][2:] == ["NaN", "Infinity"]


def test_ids_are_uuids_that_stay_and_differ_between_tiles_and_slides():
    ids = [
        one["id"] for slide in ("S1", "S2") for one in tile_objects(slide, COORDS, 512, MEASURED).collection["features"]
    ]
    assert len(set(ids)) == 8
    assert all(str(uuid.UUID(name)) == name for name in ids)
    assert tile_objects("S1", COORDS, 512, MEASURED) == tile_objects("S1", COORDS, 512, MEASURED)


def test_of_too_many_tiles_the_strongest_stay_and_the_others_are_counted():
    rng = np.random.default_rng(0)
    coords = np.stack([np.arange(500) * 64, np.zeros(500, int)], axis=1)
    values = rng.normal(size=500)
    found = tile_objects("S1", coords, 64, {"contribution": values}, most=60)
    kept = [one["properties"]["measurements"]["contribution"] for one in found.collection["features"]]
    assert (len(kept), found.n_weak) == (60, 440)
    weakest = min(map(abs, kept))
    assert sum(abs(value) >= weakest for value in values) == 60
    places = [one["geometry"]["coordinates"][0][0][0] for one in found.collection["features"]]
    assert places == sorted(places)


def test_tiles_can_have_the_colours_of_the_page():
    scale = ValueScale.contribution(1.0)
    features = tile_objects("S1", COORDS, 512, MEASURED, colour=scale).collection["features"]
    table = colour_table("contribution").tolist()
    expected = [table[round((value / 2 + 0.5) * 254)] for value in (0.5, -0.9, 0.1, -0.2)]
    assert [one["properties"]["color"] for one in features] == expected
    assert "color" not in tile_objects("S1", COORDS, 512, MEASURED).collection["features"][0]["properties"]


def test_sides_that_are_no_whole_pixels_stay_so():
    (one,) = tile_objects("S1", COORDS[:1], 256 / 0.4975, {"a": np.ones(1)}).collection["features"]
    right = one["geometry"]["coordinates"][0][1][0]
    assert right == pytest.approx(514.57, abs=0.005)
    assert math.isclose(right, round(right, 2))


def test_undecodable_slides_and_uneven_columns():
    json.dumps(tile_objects("case-\udce4\x00", COORDS, 512, MEASURED).collection).encode()
    with pytest.raises(ValueError, match=r"each of 5 tiles, got \{'a': 3\}"):
        tile_objects("S1", COORDS, 512, {"a": np.ones(3)})
    with pytest.raises(ValueError, match="at least one measurement"):
        tile_objects("S1", COORDS, 512, {})
