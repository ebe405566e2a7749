from dataclasses import replace

from report import comparisons
from report.comparisons import entry, measure, row, task

from histokin.report.comparison.scaling import cohort_views, scalings


def _counted(*counts, recipe="simclr", **changes):
    return [entry(f"{recipe} {n}", recipe=recipe, at_most=n, n_tiles=n, **changes) for n in counts]


def _measured(entries):
    rows = [row(e.name, 0.5 + i / 10) for i, e in enumerate(entries)] + [row("texture", 0.7, "floor")]
    return task(measures=[measure(rows)], twins={})


def test_entries_that_differ_in_their_number_of_tiles_make_a_line_a_recipe():
    entries = [*_counted(1000, 30, 100), *_counted(30, 100, recipe="byol"), entry("alone", recipe="dino", n_tiles=5)]
    (block,) = scalings(comparisons.full(entries=entries, tasks=[_measured(entries)]))
    assert [name for name, _ in block.legend] == ["simclr", "byol", "best floor"]
    slots = [slot for _, slot in block.legend if slot]
    assert len({shape for _, shape in slots}) == len({colour for colour, _ in slots}) == 2
    (chart,) = block.charts
    assert chart.count("<use ") == 5
    assert chart.count('class="whisker') == 5
    assert chart.count('class="hollow"') == 3
    assert "at 30 tiles" in chart


def test_entries_that_differ_in_more_than_one_thing_make_no_line():
    entries = [*_counted(30), *_counted(100, settings=["loss.temperature=0.1"])]
    assert scalings(comparisons.full(entries=entries, tasks=[_measured(entries)])) == []


def test_pixel_sizes_are_joined_over_the_tables_of_one_task():
    entries = [entry(f"simclr {mpp}", mpp=mpp, n_tiles=int(100 / mpp)) for mpp in (0.5, 1.0)]
    tasks = [replace(_measured([e]), title=f"T, {e.mpp} mpp", subject="T", mpp=e.mpp) for e in entries]
    (block,) = scalings(comparisons.full(entries=entries, tasks=tasks))
    assert block.title == "T: pixel size"
    assert block.charts[0].count("<use ") == 2


def test_one_cohort_stands_against_several_with_the_paired_difference():
    entries = [entry("both"), entry("on A", train=["A"]), entry("on B", train=["B"])]
    rows = [
        row("both", 0.8, **{"on A": (0.1, 0.2), "on B": (-0.1, 0.2)}),
        row("on A", 0.6),
        row("on B", 0.7),
        row("texture", 0.5, "floor"),
    ]
    document = comparisons.full(entries=entries, tasks=[task(measures=[measure(rows)], twins={})])
    (view,) = cohort_views(document)
    assert (view.joint, view.floor) == ("A + B", "texture")
    assert [(r.trained_on, r.is_joint) for r in view.rows] == [("A + B", True), ("A", False), ("B", False)]
    assert [r.difference and r.difference.standing for r in view.rows] == [None, "above", "alike"]


def test_two_single_cohorts_have_no_joint_training_to_be_held_against():
    entries = [entry("on A", train=["A"]), entry("on B", train=["B"])]
    rows = [row("on A", 0.6), row("on B", 0.7)]
    (view,) = cohort_views(comparisons.full(entries=entries, tasks=[task(measures=[measure(rows)], twins={})]))
    assert view.joint == ""
    assert all(r.difference is None for r in view.rows)
