"""`histokin run` on real tissue with a small budget; the longer runs of docs/results.md are the same commands."""

import json
import os
from pathlib import Path

import pytest
from program import histokin, leftovers
from worlds import chapter_of

DATA = Path(os.environ.get("HISTOKIN_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.long,
    pytest.mark.skipif(not DATA.is_dir(), reason="real tissue is not here (HISTOKIN_DATA)"),
]


def _evaluation(work: Path) -> dict:
    return json.loads(next(work.glob("evaluation/*/evaluation.json")).read_text())


def _balanced(found: dict, row: str, metric: str = "acc@1") -> float:
    quantities = chapter_of(found, "retrieval", "tile")["quantities"]
    return next(q["values"][row] for q in quantities if q["name"] == f"{metric}, mean over classes")


def test_five_sections_without_labels_end_with_a_sentence_instead_of_figures(tmp_path: Path) -> None:
    done = histokin("run", DATA / "her2st/images", "--mpp", 0.688, "--out", "work", "--steps", 30, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = _evaluation(tmp_path / "work")
    assert [chapter["protocol"] for chapter in found["chapters"]] == ["label-free"]
    assert "neither the slides nor their tiles carry any" in dict(found["refusals"])["labels"]
    names = {quantity["name"] for quantity in found["chapters"][0]["quantities"]}
    assert names >= {"effective rank", "uniformity", "same slide nearby"}
    assert len(list((tmp_path / "work").glob("thumbnails/*.jpg"))) == 5
    assert 400 < json.loads(histokin("tile", DATA / "her2st/images", "--mpp", 0.688, "--out", "work", "--json",
                                     cwd=tmp_path).stdout)["n_tiles"] < 700  # fmt: skip
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "mpp", "n_patients", "floors"),
    [
        # balanced Acc@1 of glas and plain of monuseg, as documented for these files
        ("glas", 0.62, 9, {"colour": 0.487, "histogram": 0.523, "texture": 0.560}),
        ("monuseg", 0.25, 30, {}),
    ],
)
def test_ready_tiles_with_patients_are_evaluated_beside_their_floors(
    name: str, mpp: float, n_patients: int, floors: dict[str, float], tmp_path: Path
) -> None:
    done = histokin("run", DATA / name / "labels.csv", "--mpp", mpp, "--out", "work", "--steps", 20, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = _evaluation(tmp_path / "work")
    assert chapter_of(found, "retrieval", "tile")["counts"]["patients"] == n_patients
    for row, value in floors.items():
        assert _balanced(found, row) == pytest.approx(value, abs=0.004)  # float16 stores
    assert (tmp_path / "work/report/index.html").exists()
