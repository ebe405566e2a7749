import hashlib
import json
from dataclasses import replace

import pytest
from report import searches

from histokin.report.search.document import Agreement, Answer, NoveltyTest, Query, SearchDocument
from histokin.search.region import Box


def answers(*found):
    return [
        Answer(rank, 1 - rank / 10, f"S{rank}", patient, {"diagnosis": label})
        for rank, (patient, label) in enumerate(found, start=1)
    ]


def agreed(*found):
    return Agreement.of(answers(*found), "diagnosis")


def test_a_patient_is_one_witness_however_many_answers():
    found = agreed(("P1", "a"), ("P1", "a"), ("P1", "a"), ("P2", "b"), ("P3", "b"))
    assert (found.n, found.counts, found.agreed) == (3, [("b", 2), ("a", 1)], "b")


def test_a_patient_counts_by_the_best_answer():
    found = agreed(("P1", "b"), ("P1", "a"), ("P2", ""), ("P2", "a"), ("P1", "a"))
    assert (found.counts, found.n_unlabelled) == ([("b", 1)], 1)


@pytest.mark.parametrize(
    ("labels", "label"),
    [("aab", "a"), ("ab", None), ("a", None), ("aabb", None), ("aa--", None), ("aaa--", "a"), ("--", None), ("", None)],
)
def test_agreement_needs_two_patients_and_more_than_half_of_all_that_answered(labels, label):
    found = agreed(*((f"P{i}", "" if text == "-" else text) for i, text in enumerate(labels)))
    assert found.agreed == label
    assert found.n == len(labels)
    assert found.n_unlabelled == labels.count("-")


def test_equal_counts_stand_in_the_order_of_the_labels():
    assert agreed(("P1", "z"), ("P2", "b"), ("P3", "b"), ("P4", "c")).counts == [("b", 2), ("c", 1), ("z", 1)]


def test_without_patients_slides_are_the_witnesses_and_that_is_said():
    found = agreed(("", "a"), ("", "a"), ("P1", "a"))
    assert (found.n, found.is_by_patient) == (3, False)
    assert agreed(("P1", "a")).is_by_patient


@pytest.mark.parametrize(
    ("score", "threshold", "verdict"),
    [
        (0.7, 0.6, "match"),
        (0.6, 0.6, "match"),
        (0.59, 0.6, "no match"),
        (None, 0.6, "no match"),
        (0.7, None, "not calibrated"),
        (None, None, "not calibrated"),
    ],
)
def test_the_verdict_follows_from_score_and_threshold(score, threshold, verdict):
    assert NoveltyTest(0.05, 80, score, threshold).verdict == verdict


def test_the_box_in_um_is_known_where_the_pixel_size_is():
    query = Query("tile", "t", box=Box(5, 6, 400, 200), mpp=0.25)
    assert query.box_um == (100.0, 50.0)
    assert replace(query, mpp=None).box_um is None
    assert replace(query, box=None).box_um is None


def test_wrong_kinds_and_answers_out_of_order_are_refused():
    with pytest.raises(ValueError, match="unknown kind 'cell'"):
        Query("cell", "x")
    with pytest.raises(ValueError, match="unknown kind 'fast'"):
        searches.searched(how="fast")
    tile = searches.tile()
    with pytest.raises(ValueError, match="not in rank order"):
        replace(tile, answers=tile.answers[::-1])


@pytest.mark.parametrize("document", searches.all_kinds(), ids=lambda document: document.query.kind)
def test_the_json_holds_every_number_and_no_picture(document):
    told = json.loads(json.dumps(document.to_json(), allow_nan=False))
    assert told["format"] == "search"
    assert [one["score"] for one in told["answers"]] == [one.score for one in document.answers]
    assert told["searched"]["n_tiles"] == document.searched.n_tiles
    assert told["query"]["box_um"] == (list(document.query.box_um) if document.query.box_um else None)
    for one, answer in zip(told["answers"], document.answers, strict=True):
        assert one["box"] == (
            answer.box and {"x": answer.box.x, "y": answer.box.y, "w": answer.box.w, "h": answer.box.h}
        )
        assert [pair["share"] for pair in one["evidence"]] == [pair.share for pair in answer.evidence]
        known = answer.image and {"sha256": hashlib.sha256(answer.image).hexdigest(), "n_bytes": len(answer.image)}
        assert one["image"] == known


def test_digests_name_the_encoder_and_the_state_of_the_archive():
    assert searches.tile().digests == {"encoder": "ab12cd34", "archive": "ef56"}
    document: SearchDocument = replace(searches.tile(), searched=searches.searched(version=""))
    assert document.digests == {"encoder": "ab12cd34"}
