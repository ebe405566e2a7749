from report.comparisons import entry, measure, row, task

from histokin.report.comparison import views


def test_a_table_has_entries_then_floors_and_a_column_for_each_entry_that_is_held_against():
    shown = views.metric_view(measure(), "balanced_accuracy", task().twins, {"half": ["good"]})
    assert shown is not None
    assert shown.columns == ["− random", "− best floor", "− good"]
    assert [r.name for r in shown.rows] == ["good", "half", "bad", "random", "texture"]
    half = shown.rows[1]
    assert [d.other for d in half.differences] == ["random", "texture", "good"]
    assert [d.standing for d in half.differences] == ["above", "alike", "alike"]
    assert shown.rows[0].differences[2].other == ""  # nobody asked for good against good
    assert [r.name for r in shown.rows if r.is_best_floor] == ["texture"]
    assert all('class="reference"' in r.track and 'class="chance"' in r.track for r in shown.rows)


def test_a_metric_without_any_value_is_left_out():
    assert views.metric_view(measure([row("a", None)], chance={}), "macro_f1", {}, {}) is None


def test_curves_other_than_the_loss_share_their_axes():
    entries = [
        entry("low", looks=[{"step": 10, "rank": 1.0}, {"step": 20, "rank": 2.0}]),
        entry("high", looks=[{"step": 10, "rank": 50.0}, {"step": 40, "rank": 100.0}]),
    ]
    low, high = views.entry_views(entries)
    assert len(low.charts) == len(high.charts) == 2  # loss and rank: nothing else was looked at
    labels = [chart.split("</div>")[0].split("y-axis")[1] for chart in (low.charts[1], high.charts[1])]
    assert labels[0] == labels[1]
    assert low.charts[1].count('class="curve other"') == 1
    assert [name for name, _ in views.look_notes(entries)] == ["Rank"]


def test_an_entry_that_was_never_looked_at_still_has_its_loss():
    (shown,) = views.entry_views([entry("short", looks=[])])
    assert len(shown.charts) == 1
    (nothing,) = views.entry_views([entry("shorter", looks=[], losses=[])])
    assert nothing.charts == []
