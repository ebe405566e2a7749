from dataclasses import replace

import pytest
from report import mil_documents as documents

from histokin.report import ComparedMeasure, ComparedRow, Value
from histokin.report.mil import words
from histokin.report.mil.document import Heatmap, Judgement, MilDocument, Prediction
from histokin.report.mil.figures import legend
from histokin.report.mil.slides import prediction_table
from histokin.report.mil.views import key_figures, model_grid, output_slots, verdict
from histokin.report.palette import slot


def judged(metric, value, *, lead=None, chance=None):
    """A document of one figure, beside a floor where a lead over it is given."""
    minus = {metric: {"bag size": lead}} if lead else {}
    rows = [ComparedRow("m", "entry", {metric: value}, minus)]
    rows += [ComparedRow("bag size", "floor", {metric: Value(0.5)})] if lead else []
    measure = ComparedMeasure("held out", {}, [], [metric], {metric: chance}, rows)
    return MilDocument(
        "t",
        "",
        "value",
        "y",
        ["value"],
        [documents.classifier("m")],
        "m",
        {},
        judgements=[Judgement("slide", 9, 9, measure)],
    )


@pytest.mark.parametrize(
    ("metric", "ends", "tone", "claim"),
    [
        ("macro_auc", (0.1, 0.2), "good", "Better than the best floor (bag size)"),
        ("macro_auc", (-0.2, -0.1), "bad", "Worse than the best floor (bag size)"),
        ("macro_auc", (-0.1, 0.1), "plain", "Cannot be told apart from the best floor (bag size)"),
        ("macro_auc", (None, None), "plain", "No interval against the best floor (bag size)"),
        ("nll", (-0.2, -0.1), "good", "Better than the best floor (bag size)"),
        ("nll", (0.1, 0.2), "bad", "Worse than the best floor (bag size)"),
    ],
)
def test_the_verdict_reads_the_interval_of_the_difference_to_the_best_floor(metric, ends, tone, claim):
    found = verdict(judged(metric, Value(0.7, 0.6, 0.8), lead=Value(0.0, *ends)))
    assert found is not None
    assert (found.tone, found.claim) == (tone, claim)


@pytest.mark.parametrize(
    ("ends", "tone", "claim"),
    [
        ((0.6, 0.8), "good", "Better than chance"),
        ((0.4, 0.8), "plain", "Cannot be told apart from chance"),
        ((0.2, 0.4), "bad", "Worse than chance"),
    ],
)
def test_without_a_floor_the_verdict_is_against_chance(ends, tone, claim):
    found = verdict(judged("macro_auc", Value(0.5, *ends), chance=0.5))
    assert found is not None
    assert (found.tone, found.claim) == (tone, claim)


def test_without_floor_and_chance_or_without_a_figure_there_is_no_verdict():
    assert verdict(judged("r2", Value(0.5, 0.4, 0.6))) is None
    assert verdict(documents.predicted()) is None
    assert key_figures(documents.predicted())[-1].name == "slides"


def test_an_error_of_values_is_better_below():
    assert words.is_lower_better("mae")
    assert words.is_lower_better("nll")
    assert not words.is_lower_better("c_index")
    assert words.metric_words("mae", "slide")[0] == "Mean absolute error"


def test_surprise_is_how_little_the_truth_was_thought_of():
    assert Prediction("s", {"a": 0.3, "b": 0.7}, "a", "b").surprise == pytest.approx(0.7)
    assert Prediction("s", {"a": 0.3, "b": 0.7}).surprise == pytest.approx(0.3)
    assert Prediction("s", {"value": 7.0}, "9", error=2.0).surprise == 2.0


def test_slides_and_their_maps_are_joined_by_slide_and_fold():
    document = documents.trained()
    slots = output_slots(document)
    anchors = {row.prediction.slide: row.anchor for row in prediction_table(document, slots).rows if row.anchor}
    assert anchors == {"S00": "slide-1", "S01": "slide-2", "S02": "slide-3"}
    other = replace(document, predictions=[replace(one, fold="9") for one in document.predictions])
    assert not any(row.anchor for row in prediction_table(other, slots).rows)


def test_a_class_has_its_colour_by_its_name_whatever_the_order():
    document = documents.trained()
    assert output_slots(document) == output_slots(replace(document, outputs=document.outputs[::-1]))
    assert output_slots(document)["carcinoma"] == slot(1)


def test_models_by_features_are_drawn_only_where_both_differ():
    compared = documents.compared()
    assert model_grid(documents.trained()) is None
    assert model_grid(replace(compared, classifiers=[c for c in compared.classifiers if c.encoder == "ours"])) is None
    grid = model_grid(compared)
    assert grid is not None
    assert grid.columns == ["ours", "imagenet"]
    assert [(name, [cell is not None for cell in cells]) for name, cells in grid.rows] == [
        ("ABMIL", [True, True]),
        ("CLAM-SB", [True, False]),
        ("Mean pooling", [True, True]),
    ]
    faithful = [replace(c, preset="faithful") if c.model == "clam_sb" else c for c in compared.classifiers]
    grid = model_grid(replace(compared, classifiers=faithful))
    assert grid is not None
    assert grid.rows[1][0] == "CLAM-SB, faithful"


def test_two_classifiers_of_one_model_and_features_have_no_place_in_a_grid_and_stay_in_the_tables():
    compared = documents.compared()
    twins = [replace(c, model="abmil") if c.model == "clam_sb" else c for c in compared.classifiers]
    assert model_grid(replace(compared, classifiers=twins)) is None


@pytest.mark.parametrize(
    ("low", "high", "has_mark", "has_word"),
    [(0.1, 10, True, True), (0.5, 50, True, False), (0.01, 1.5, True, False), (0.2, 0.9, False, False)],
)
def test_uniform_attention_is_marked_where_it_lies_and_named_where_there_is_room(low, high, has_mark, has_word):
    found = legend(Heatmap("relative", b"", low, high), "tumour")
    assert ("<i style=" in found) == has_mark
    assert ("1 uniform" in found) == has_word


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("abmil", "is not respected", True),
        ("transmil", "is not respected", True),
        ("mean", "is not respected", False),
        ("max", "with a single output only", True),
        ("mean", "a small focus in a large slide is diluted", True),
        ("mil_rnn", "reads a few tiles", True),
    ],
)
def test_limits_are_those_of_the_models_on_the_page(model, text, said):
    document = replace(documents.trained(), classifiers=[documents.classifier("abmil", model)])
    assert (text in " ".join(words.limits(document))) == said


def test_a_reference_that_is_none_of_the_classifiers_or_names_twice_are_refused():
    with pytest.raises(ValueError, match="reference 'x' must be one of the distinct names"):
        replace(documents.trained(), reference="x")
    with pytest.raises(ValueError, match="distinct names"):
        replace(documents.trained(), classifiers=[documents.classifier("abmil")] * 2)
    with pytest.raises(ValueError, match="unknown kind 'ordinal'"):
        replace(documents.trained(), kind="ordinal")
    with pytest.raises(ValueError, match="unknown kind 'tile'"):
        replace(documents.trained().judgements[0], unit="tile")
