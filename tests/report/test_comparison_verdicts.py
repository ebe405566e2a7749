import math

import pytest
from report import comparisons
from report.comparisons import measure, row, task

from histokin.report import Value
from histokin.report.comparison import verdicts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.3, "above"),
        (-0.3, -0.001, "below"),
        (-0.1, 0.1, "alike"),
        (0.0, 0.3, "alike"),
        (-0.3, 0.0, "alike"),
        (None, None, "unknown"),
        (math.nan, math.nan, "unknown"),
    ],
)
def test_a_difference_is_claimed_only_if_its_whole_interval_lies_beyond_zero(low, high, expected):
    assert verdicts.standing(Value(0.1, low, high)) == expected


def test_a_difference_that_was_not_computed_is_unknown():
    assert verdicts.standing(None) == "unknown"


def test_the_verdict_groups_entries_by_what_their_intervals_allow():
    said = verdicts.verdict(task())
    assert said is not None
    assert (said.metric, said.floor) == ("balanced_accuracy", "texture")
    assert [(line.claim, line.names, line.tone) for line in said.lines] == [
        ("Higher than random weights and the best floor (texture)", ["good"], "good"),
        ("Higher than random weights, but cannot be told apart from the best floor (texture)", ["half"], "part"),
        ("Cannot be told apart from random weights, but lower than the best floor (texture)", ["bad"], "bad"),
    ]
    assert said.among == "Highest value among the entries: good. Cannot be told apart from it: half. Lower: bad."
    assert said.notes == ["optimistic, 9 patients"]
    assert said.is_optimistic


def test_the_overview_gives_both_comparisons_of_every_metric():
    assert verdicts.overview(task()).rows == [
        ("good", [("good", "▲ random ▲ floor")]),
        ("half", [("part", "▲ random ≈ floor")]),
        ("bad", [("bad", "≈ random ▼ floor")]),
    ]


def test_where_random_weights_are_the_best_floor_they_are_named_once():
    rows = [row("good", 0.8, random=(0.1, 0.3)), row("random", 0.5, "floor"), row("texture", 0.4, "floor")]
    said = verdicts.verdict(task(measures=[measure(rows)]))
    assert said is not None
    assert [line.claim for line in said.lines] == ["Higher than random weights, here also the best floor"]


def test_with_two_architectures_an_entry_is_held_against_its_own_random_twin():
    rows = [
        row("small", 0.6, **{"random 1": (0.1, 0.2), "random 2": (-0.2, -0.1)}),
        row("large", 0.7, **{"random 1": (0.1, 0.3), "random 2": (-0.1, 0.1)}),
        row("random 1", 0.5, "floor"),
        row("random 2", 0.69, "floor"),
    ]
    said = verdicts.verdict(task(measures=[measure(rows)], twins={"small": "random 1", "large": "random 2"}))
    assert said is not None
    claims = {line.names[0]: line.claim for line in said.lines}
    assert claims["small"] == "Higher than random weights, but lower than the best floor (random 2)"
    assert claims["large"] == "Cannot be told apart from random weights or the best floor (random 2)"


def test_without_intervals_nothing_is_claimed():
    rows = [row("good", 0.9, random=None, texture=None), *comparisons.ROWS[3:]]
    said = verdicts.verdict(task(measures=[measure(rows)]))
    assert said is not None
    assert [line.claim for line in said.lines] == ["No interval against random weights or the best floor (texture)"]
    assert said.among == ""
    assert verdicts.overview(task(measures=[measure(rows)])).rows == [("good", [("plain", "? random ? floor")])]


def test_entries_that_none_can_be_told_apart_from_the_highest_are_said_to_be_so():
    rows = [row("a", 0.8, b=(-0.1, 0.2)), row("b", 0.75, a=(-0.2, 0.1)), row("texture", 0.7, "floor")]
    said = verdicts.verdict(task(measures=[measure(rows)], twins={}))
    assert said is not None
    assert said.among == "Highest value among the entries: a. None of the others can be told apart from it."


def test_a_task_without_figures_has_no_verdict():
    assert verdicts.verdict(task(measures=[])) is None


def test_the_best_floor_has_the_highest_value_and_ties_go_to_the_first():
    rows = [row("a", 0.9), row("x", 0.5, "floor"), row("y", None, "floor"), row("z", 0.5, "floor")]
    found = verdicts.best_floor(measure(rows), "balanced_accuracy")
    assert found is not None
    assert found.name == "x"
    assert verdicts.best_floor(measure(rows[:1]), "balanced_accuracy") is None


def test_of_an_error_the_lowest_floor_is_best_and_lower_is_good():
    rows = [
        row("good", 0.4, metric="nll", random=(-0.3, -0.1), texture=(-0.2, -0.1)),
        row("bad", 0.9, metric="nll", random=(0.1, 0.3), texture=(0.2, 0.4)),
        row("random", 0.7, "floor", "nll"),
        row("texture", 0.6, "floor", "nll"),
    ]
    found = verdicts.best_floor(measure(rows), "nll")
    assert found is not None
    assert found.name == "texture"
    shown = verdicts.overview(task(measures=[measure(rows, metrics=["nll"])])).rows
    assert shown == [("good", [("good", "▼ random ▼ floor")]), ("bad", [("bad", "▲ random ▲ floor")])]


def test_an_entry_without_a_twin_or_a_floor_stands_to_what_there_is():
    good, *_, texture = comparisons.ROWS
    metric = "balanced_accuracy"
    assert verdicts.standings_of(measure([good, texture]), good, metric, {}) == ("good", "▲ floor")
    assert verdicts.standings_of(measure([good]), good, metric, {"good": "random"}) == ("good", "▲ random")
    assert verdicts.standings_of(measure([good]), good, metric, {}) == ("plain", "")


def test_a_difference_that_was_computed_from_the_other_side_is_turned_round():
    first, second = row("a", 0.8, b=(-0.1, 0.3)), row("b", 0.7)
    judged = measure([first, second])
    assert verdicts.between(judged, "balanced_accuracy", first, "b") == first.minus["balanced_accuracy"]["b"]
    turned = verdicts.between(judged, "balanced_accuracy", second, "a")
    assert turned is not None
    assert (turned.value, turned.low, turned.high) == (pytest.approx(-0.1), -0.3, 0.1)
    assert turned.note == "optimistic, 9 patients"
    assert verdicts.between(judged, "macro_f1", second, "a") is None


def test_every_difference_behind_the_verdicts_is_counted_once():
    assert verdicts.n_differences(comparisons.full()) == 6  # three entries against random and texture
    rows = [row("good", 0.8, random=(0.1, 0.3)), row("random", 0.5, "floor")]
    assert verdicts.n_differences(comparisons.full(tasks=[task(measures=[measure(rows)])])) == 1
