"""From a table's columns to targets: which slides take part, what is refused, and that folds can be made."""

from pathlib import Path

import numpy as np
import pytest
from mil.test_reading import write
from pipeline.mil_archives import N, archive, patients_of, slides_of, table
from worlds import write_csv

from histokin.errors import EvaluationError, TrainingError
from histokin.evaluate.splits import inner_folds
from histokin.pipeline.mil import MilRequest, spec_of
from histokin.pipeline.mil.bags import Bags, open_bags
from histokin.pipeline.mil.targets import given_folds, labelled, outer_folds, task_of


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Bags:
    root = tmp_path_factory.mktemp("bags")
    return open_bags(archive(root / "store"), cache=root / "cache", labels=table(root / "labels.csv"))


def with_cells(bags: Bags, root: Path, **cells: str) -> Bags:
    """The same slides with another column, empty but for some."""
    rows = [{"slide": slide, "finding": cells.get(slide, "")} for slide in slides_of()]
    return open_bags(bags.place.source.store.folder, cache=root / "cache", labels=write_csv(root / "other.csv", rows))


def test_classes_labels_times_and_values_are_read_from_texts(bags: Bags) -> None:
    classes = task_of(bags, MilRequest("finding")).task
    assert classes.targets.names == ("clear", "some")
    assert classes.targets.values.tolist() == [number % 2 for number in range(N)]
    assert classes.items.patient.tolist() == patients_of()
    labels = task_of(bags, MilRequest("has_some,is_odd", "multilabel")).task.targets
    assert labels.values[:, 0].tolist() == [number % 2 for number in range(N)]
    assert np.isnan(labels.values[:, 1]).tolist() == [number % 5 == 0 for number in range(N)]
    survival = task_of(bags, MilRequest("time,dead", "survival")).task.targets
    assert survival.values[:, 1].tolist() == [float(number % 3 > 0) for number in range(N)]
    values = task_of(bags, MilRequest("score", "regression")).task.targets.values
    assert values.tolist() == [float(bags.known[slide].columns["score"]) for slide in slides_of()]


def test_slides_without_the_label_take_no_part_and_are_counted(bags: Bags, tmp_path: Path) -> None:
    asked = task_of(bags, MilRequest("is_odd"))
    assert len(asked.task) == N - 5
    assert asked.n_unlabelled == 5
    assert "Left out, without is_odd: 5 slides" in asked.notes[0]


def test_unknown_patients_count_one_a_slide_and_the_figures_are_said_to_be_optimistic(
    bags: Bags, tmp_path: Path
) -> None:
    named = with_cells(bags, tmp_path, s00="a", s01="b", s02="a", s03="b")
    asked = task_of(named, MilRequest("finding"))
    assert len(set(asked.task.items.patient)) == 4
    assert "The patient of 4 of 4 slides is not known" in asked.notes[-1]
    assert "optimistic" in asked.notes[-1]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (MilRequest("grade"), r"no slide has a column 'grade'.*There are: .*finding"),
        (MilRequest("score"), "score holds numbers, no classes.*--target regression"),
        (MilRequest("finding", "regression"), "finding of slide s00 is 'clear', no number"),
        (MilRequest("finding", "multilabel"), "finding of slide s00 is 'clear', neither yes nor no"),
        (MilRequest("time,finding", "survival"), "finding of slide s00 is 'clear', neither yes nor no"),
        (MilRequest("site", "classes", "site"), None),
    ],
)
def test_a_column_that_does_not_fit_is_refused(bags: Bags, request_: MilRequest, sentence: str | None) -> None:
    if sentence is None:
        assert len(task_of(bags, request_).task) == N
        return
    with pytest.raises(EvaluationError, match=sentence):
        task_of(bags, request_)


def test_one_class_and_times_of_zero_are_refused(bags: Bags, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="finding has one value only"):
        task_of(with_cells(bags, tmp_path, s00="a", s01="a"), MilRequest("finding"))
    rows = [{"slide": slide, "time": 0, "dead": 1} for slide in slides_of()]
    zero = open_bags(bags.place.source.store.folder, cache=tmp_path, labels=write_csv(tmp_path / "z.csv", rows))
    with pytest.raises(TrainingError, match="a time is not > 0"):
        task_of(zero, MilRequest("time,dead", "survival"))


def test_rare_sets_of_labels_are_joined_so_that_every_fold_has_them(bags: Bags) -> None:
    request = MilRequest("has_some,is_odd", "multilabel", spec=spec_of("abmil", n_folds=2, n_inner=2))
    task = task_of(bags, request).task
    table_ = outer_folds(task, request)
    for stratum in set(task.items.label.tolist()):
        own = {task.items.patient[row] for row in range(len(task)) if task.items.label[row] == stratum}
        assert len(own) >= 4  # two inner folds in each of two
    assert len(table_.folds) == 2
    assert len(inner_folds(table_, 2)) == 2


def test_sites_are_left_out_one_after_the_other(bags: Bags) -> None:
    request = MilRequest("finding", leave_out="site")
    table_ = outer_folds(task_of(bags, request).task, request)
    for repeat, fold in table_.folds:
        tested, trained = (set(table_.site[table_.rows(repeat, fold, part)]) for part in ("test", "train"))
        assert len(tested) == 1
        assert not tested & trained


def test_given_folds_are_held_against_the_patients_known_here(bags: Bags, tmp_path: Path) -> None:
    task = task_of(bags, MilRequest("finding")).task

    def given(tested: set[str]) -> Path:
        """A file that calls every slide a patient of its own."""
        rows = [
            {"item": slide, "slide": slide, "patient": slide, "repeat": 0, "fold": 0}
            | {"part": "test" if slide in tested else "train"}
            for slide in slides_of()
        ]
        return write_csv(tmp_path / "splits.csv", rows)

    with pytest.raises(EvaluationError, match=r"1 patient stands in two parts.*patient p0-0: row 0 \(s00, test\)"):
        given_folds(task, given({"s00", "s01", "s03"}))
    found = given_folds(task, given({"s00", "s01", "s02", "s03"}))
    assert set(found.patient[found.rows(0, 0, "test")]) == {"p0-0", "p1-0"}


def test_a_new_class_has_no_truth_for_classifiers_that_do_not_know_it(bags: Bags, tmp_path: Path) -> None:
    named = with_cells(bags, tmp_path, s00="some", s01="other", s04="clear")
    targets, rows = labelled(named, MilRequest("finding"), slides_of(), ("clear", "some"))
    assert rows.tolist() == [0, 4]
    assert targets is not None
    assert targets.values.tolist() == [1, 0]
    assert labelled(bags, MilRequest("grade"), slides_of(), ("a", "b"))[0] is None


def test_a_slide_of_two_patients_or_two_labels_is_refused(bags: Bags, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for slide in ("a", "b"):
        write(store, slide, np.ones((3, 4), np.float32))
    rows = [{"slide": "a", "finding": "x"}, {"slide": "a", "finding": "y"}, {"slide": "b", "finding": "y"}]
    with pytest.raises(EvaluationError, match="line 3 says something else of a than a line before"):
        open_bags(store, cache=tmp_path, labels=write_csv(tmp_path / "two.csv", rows))
