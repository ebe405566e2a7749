import json
import math
import uuid
from dataclasses import replace
from itertools import pairwise

import pytest
from report import searches

from histokin.report import palette
from histokin.report.search.geojson import to_geojson
from histokin.report.search.views import label_slots


def of_kind(collection, kind):
    return [one for one in collection["features"] if one["properties"]["objectType"] == kind]


def ring_of(box):
    x, y, right, bottom = box.x, box.y, box.x + box.w, box.y + box.h
    return [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]


def area(ring):
    """The shoelace formula."""
    return sum(x * v - u * y for (x, y), (u, v) in pairwise(ring)) / 2


@pytest.mark.parametrize(
    "document", [*searches.all_kinds(), searches.hostile("a\udce4\x00<b>")], ids=lambda document: document.query.kind
)
def test_every_feature_is_a_closed_ring_with_an_id_of_its_own_in_valid_json(document):
    found = json.loads(json.dumps(to_geojson(document), allow_nan=False).encode())
    for collection in found.values():
        assert collection["type"] == "FeatureCollection"
        ids = [one["id"] for one in collection["features"]]
        assert len(set(ids)) == len(ids) > 0
        for one in collection["features"]:
            assert str(uuid.UUID(one["id"])) == one["id"]
            (ring,) = one["geometry"]["coordinates"]
            assert (one["type"], one["geometry"]["type"]) == ("Feature", "Polygon")
            assert ring[0] == ring[-1]
            assert len({tuple(point) for point in ring}) == 4
            assert area(ring) > 0
            classes = one["properties"].get("classification")
            assert classes is None or (classes["name"] and len(classes["color"]) == 3)


def test_answers_and_the_query_lie_at_level_0_pixels_of_their_own_slides():
    document = searches.region()
    found = to_geojson(document)
    assert set(found) == {"S1", *(answer.slide for answer in document.answers)}
    (query,) = found["S1"]["features"]
    assert query["geometry"]["coordinates"] == [ring_of(document.query.box)]
    assert query["properties"]["classification"]["name"] == "query"
    for slide in set(found) - {"S1"}:
        expected = [ring_of(answer.box) for answer in document.answers if answer.slide == slide]
        assert [one["geometry"]["coordinates"][0] for one in of_kind(found[slide], "annotation")] == expected


def test_an_answer_is_named_measured_and_coloured_as_on_the_page():
    document = searches.region()
    (first, *_) = of_kind(to_geojson(document)["S2"], "annotation")
    answer, described = document.answers[0], first["properties"]
    assert described["name"] == "#1 carcinoma 0.9183"
    assert described["isLocked"] is True
    assert described["measurements"] == {
        "rank": 1,
        "score": answer.score,
        "percentile": answer.percentile,
        "p": answer.p,
    }
    assert described["metadata"] == {"patient": "P2", **answer.labels}
    colour = palette.CATEGORICAL[label_slots(document)["carcinoma"][0]][0]
    assert "#{:02x}{:02x}{:02x}".format(*described["classification"]["color"]) == colour


def test_an_answer_without_a_label_has_no_class():
    (unlabelled,) = of_kind(to_geojson(searches.region())["S4"], "annotation")
    assert "classification" not in unlabelled["properties"]
    assert unlabelled["properties"]["name"] == "#6 0.7598"


def test_evidence_is_tiles_with_their_shares_also_where_the_answer_is_a_whole_slide():
    document = searches.slide()
    found = to_geojson(document)
    assert set(found) == {"S2", "S3"}  # the query is a whole slide: it has no outline either
    for answer in document.answers:
        assert of_kind(found[answer.slide], "annotation") == []
        tiles = of_kind(found[answer.slide], "tile")
        assert [one["properties"]["measurements"]["share"] for one in tiles] == [pair.share for pair in answer.evidence]
        assert [one["geometry"]["coordinates"][0] for one in tiles] == [
            ring_of(pair.answer.box) for pair in answer.evidence
        ]


def test_a_picture_from_outside_leaves_no_feature():
    assert to_geojson(searches.picture()) == {}


def test_numbers_that_are_none_are_left_out_and_those_that_are_not_finite_are_words():
    tile = searches.tile()
    one = replace(tile.answers[0], score=math.inf, percentile=math.nan, p=None)
    found = to_geojson(replace(tile, answers=[one]))["S2"]["features"][0]
    assert found["properties"]["measurements"] == {"rank": 1, "score": "Infinity", "percentile": "NaN"}


def test_equal_searches_give_equal_ids_and_other_slides_other_ones():
    first, again = (to_geojson(searches.tile()) for _ in range(2))
    assert first == again
    ids = [one["id"] for collection in first.values() for one in collection["features"]]
    assert len(set(ids)) == len(ids)
