import hashlib
import json

import pytest
from report import documents

from histokin.report import write_report
from histokin.report.write import report_json


def test_both_files_are_written_and_nothing_else(tmp_path):
    path = write_report(documents.full(), tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["index.html", "report.json"]


def test_equal_documents_give_equal_bytes(tmp_path):
    first, second = (write_report(documents.full(), tmp_path / name) for name in ("a", "b"))
    for name in ("index.html", "report.json"):
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()


def test_the_json_holds_the_whole_document_and_pictures_as_digests(tmp_path):
    document = documents.full()
    read = json.loads((write_report(document, tmp_path).parent / "report.json").read_text(encoding="utf-8"))
    assert read == json.loads(json.dumps(report_json(document)))
    assert (read["format"], read["format_version"]) == ("report", "1.0")
    value = read["evaluation"]["tables"][0]["rows"][0]["values"]["mmv_at_5"]
    assert value == {"value": 0.8123456, "low": 0.75, "high": 0.87, "note": "", "p": None}
    assert read["embedding_map"]["x"] == document.embedding_map.x
    image = document.search.examples[0].query.image
    expected = {"sha256": hashlib.sha256(image).hexdigest(), "n_bytes": len(image)}
    assert read["search"]["examples"][0]["query"]["image"] == expected
    assert [slide["slide"] for slide in read["cohort"]["slides"]] == [s.slide for s in document.cohort.slides]


def test_a_document_that_cannot_be_drawn_leaves_the_old_report(tmp_path):
    path = write_report(documents.full(), tmp_path)
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    broken = documents.cohort(slides=[documents.SlideCard("s", "p", "ok", thumbnail=b"no picture")])
    with pytest.raises(ValueError, match="JPEG or PNG"):
        write_report(documents.full(cohort=broken), tmp_path)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_undecodable_names_reach_both_files(tmp_path):
    path = write_report(documents.hostile("case-\udce4"), tmp_path)
    assert "case-\ufffd" in path.read_text(encoding="utf-8")
    assert "case-\ufffd" in (tmp_path / "report.json").read_text(encoding="utf-8")
