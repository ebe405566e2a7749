"""Hits: columns named after the archive's rows."""

import json

import numpy as np
import pytest

from histokin.artefacts import plain
from histokin.search import Archive, Hits, top_k


def test_tile_hits_carry_slide_patient_label_and_place():
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]])
    archive = Archive.of_tiles(
        np.array(["a", "a", "b", "b"]),
        np.array(["p", "p", "q", "q"]),
        np.array([0, 1, 0, 1]),
        np.array([[0, 0], [256, 0], [0, 512], [256, 512]]),
        np.array(["t", "t", "s", "t"]),
    )
    found = top_k(vectors[:1], vectors, 3, query_groups=np.array(["p"]), database_groups=archive.patient)
    rows = Hits.of(found, archive, "tile", ("patient left out",)).to_rows()
    assert [(r["rank"], r["slide"], r["patient"], r["label"], r["tile"], r["x"], r["y"]) for r in rows] == [
        (1, "b", "q", "t", 1, 256, 512),
        (2, "b", "q", "s", 0, 0, 512),
    ]
    assert json.loads(json.dumps(plain(rows))) == rows


def test_equal_scores_come_by_slide_then_tile():
    # Golden rank_tie_rule: rows sorted by (slide, tile); the excluded patient p9 never appears.
    slide, tile = np.array(["s1", "s1", "s2", "s3"]), np.array([3, 9, 7, 1])
    patient = np.array(["p2", "p2", "p1", "p9"], dtype=object)
    vectors = np.array([[0.9, np.sqrt(0.19)]] * 3 + [[0.95, np.sqrt(1 - 0.95**2)]])
    query = np.array([[1.0, 0.0]])
    found = top_k(query, vectors, 4, query_groups=np.array(["p9"], dtype=object), database_groups=patient)
    hits = Hits.of(found, Archive.of_tiles(slide, patient, tile), "tile")
    assert list(zip(hits.slide, hits.tile.tolist(), strict=True)) == [("s1", 3), ("s1", 9), ("s2", 7)]


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        Archive.of_tiles(np.array(["a"]), np.array(["p", "q"]), np.array([0]))
