import numpy as np
import pytest
from report import evaluations
from sklearn.metrics import confusion_matrix

from histokin.report import Confusion, PartLine, Value, palette
from histokin.report.evaluation import views


def test_shares_of_a_confusion_are_those_of_the_true_class():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, (2, 300))
    said = np.where(rng.random(300) < 0.2, 4, said)  # 4: nothing could be said
    counts = confusion_matrix(truth, said, labels=range(5))[:4]
    shares = confusion_matrix(truth, said, labels=range(5), normalize="true")[:4]
    view = views.confusion_view(Confusion("a", "", list("abcd"), counts.tolist()))
    assert [[cell.share for cell in cells] for _, _, cells in view.lines] == pytest.approx(shares)
    assert [n for _, n, _ in view.lines] == np.bincount(truth).tolist()
    assert [short for short, _ in view.headings] == ["a", "b", "c", "d", "none"]
    assert [[c.is_right for c in cells] for _, _, cells in view.lines] == np.eye(4, 5, dtype=bool).tolist()


def test_columns_of_many_classes_are_numbered_and_an_empty_class_has_no_share():
    names = [f"a rather long class {i}" for i in range(20)]
    view = views.confusion_view(Confusion("a", "", names, [[0] * 20 for _ in names]))
    assert view.is_numbered
    assert view.headings[19] == ("20", names[19])
    assert {cell.share for _, _, cells in view.lines for cell in cells} == {0.0}


def test_encoders_have_a_colour_and_a_shape_that_no_class_has():
    document = evaluations.full()
    classes = views.class_slots(document)
    rows = views.row_slots(document, classes)
    assert list(rows) == evaluations.ENCODERS
    assert len(set(rows.values())) == 3
    assert not {colour for colour, _ in rows.values()} & {slot[0] for name, slot in classes.items() if name}
    assert not {shape for _, shape in rows.values()} & {shape for _, shape in classes.values()}
    assert classes[""] == palette.NEUTRAL_SLOT


def test_classes_and_groups_are_tables_by_metric_with_the_encoders_as_columns():
    chapter = evaluations.probe_chapter()
    rows = dict.fromkeys(evaluations.ENCODERS, (0, 1))
    lines = [
        PartLine("UNI", "b", "recall", Value(0.5), 10, 2, 0.2),
        PartLine("UNI", "a", "recall", Value(0.75), 1, None),
        PartLine("colour", "b", "recall", Value(0.25), 10, 2),
        PartLine("UNI", "a", "f1", Value(0.1), 1, None),
        PartLine("UNI", "a", "auc", Value(None), 1, None),
    ]
    recall, f1 = views.part_tables(chapter, lines, rows)
    assert (recall.name, recall.columns, recall.floors, recall.has_chance) == ("Recall", ["UNI"], ["colour"], True)
    assert [(row.part, row.size, row.chance) for row in recall.rows] == [
        ("b", ["10 tiles", "2 patients"], 0.2),
        ("a", ["1 tile"], None),
    ]
    assert [row.values for row in recall.rows] == [[Value(0.5)], [Value(0.75)]]
    assert (f1.name, f1.has_chance, f1.is_long) == ("F1", False, False)
    many = [PartLine("UNI", str(i), "recall", Value(0.5), 1) for i in range(views.MANY_PARTS + 1)]
    assert views.part_tables(chapter, many, rows)[0].is_long


def test_the_headline_of_an_error_holds_the_lowest_floor_and_an_encoder_without_figures_a_gap():
    measure = evaluations.measure("probe", {"nll": (2.0, -1.0)})
    cut = [row for row in measure.rows if row.name != evaluations.ENCODERS[2]]
    chapter = evaluations.probe_chapter(measures=[evaluations.measure("probe", {"nll": (2.0, -1.0)}, rows=cut)])
    found = views.headlines(evaluations.full(chapters=[chapter]))
    (row,) = found.rows
    assert (row.metric, row.floor, row.is_lower_better) == ("NLL", "texture", True)
    assert [(cell.tone, cell.standing) for cell in row.cells] == [
        ("good", "▼ random ▼ floor"),
        ("good", "▼ floor"),
        ("plain", ""),
    ]
    assert row.cells[2].value is None


def test_chapters_whose_first_measure_is_empty_are_named_and_not_drawn():
    chapters = [
        evaluations.probe_chapter(measures=[evaluations.measure("m", {}, rows=[])]),
        evaluations.probe_chapter(),
    ]
    found = views.headlines(evaluations.full(chapters=chapters))
    assert found.without == [("chapter-1", chapters[0].title)]
    assert [row.anchor for row in found.rows] == ["chapter-2"]
