"""Results on their way out: JSON, terminal table, per-query rows."""

import json

import numpy as np
import pytest

from histokin.evaluate import Items, evaluate_retrieval


@pytest.fixture(scope="module")
def evaluation():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(9), 6)
    labels = patient % 2
    x = rng.normal(size=(54, 5)) + labels[:, None]
    items = Items.of([f"class {v}" for v in labels], [f"p{p}" for p in patient], [f"s{p}" for p in patient])
    return evaluate_retrieval({"main": x}, items, floors={"random": [rng.normal(size=(54, 4)) for _ in range(2)]})


def test_json_is_plain_and_complete(evaluation):
    data = json.loads(json.dumps(evaluation.to_json()))
    first = data["results"][0]
    for name in ("value", "interval", "chance", "null", "prevalence", "n_queries", "n_patients", "leave_out", "vote"):
        assert name in first
    assert first["interval"]["note"] == "optimistic, 9 patients"
    assert data["protocol"]["leave_out"] == "patient"
    assert data["protocol"]["repeats"] == {"main": 1, "random": 2}
    floor = next(r for r in data["results"] if r["name"] == "random" and r["metric"] == "macro_f1@1")
    assert floor["delta"]["p"] is None  # macro-F1 is no mean over queries: an interval, but no swap test


def test_the_table_shows_what_a_figure_must_not_be_shown_without(evaluation):
    text = evaluation.to_table()
    lines = text.splitlines()
    assert "leave out patient" in lines[0]
    assert "54 queries of 9 patients" in lines[1]
    assert "prevalence: class 0 0.556, class 1 0.444" in text
    result = evaluation.result("main", "acc@1")
    row = next(line for line in lines if line.startswith("main") and "acc@1" in line)
    assert f"{result.value:.3f}" in row
    assert str(result.interval) in row
    assert f"{result.chance:.3f}" in row
    assert "optimistic, 9 patients" in row
    assert "random *" in text


def test_any_metric_can_be_computed_again_from_the_query_rows(evaluation):
    rows = evaluation.query_rows("main")
    right = [row["label"] in row["labels"].split("|")[:3] for row in rows]
    assert np.mean(right) == pytest.approx(evaluation.result("main", "acc@3").value)
    assert {row["repeat"] for row in evaluation.query_rows("random")} == {0, 1}
    assert rows[0]["patient"] == "p0"
    assert len(rows[0]["scores"].split()) == 5


def test_an_unknown_result_names_the_known_ones(evaluation):
    with pytest.raises(KeyError, match="no result main acc@7"):
        evaluation.result("main", "acc@7")
