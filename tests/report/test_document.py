import pytest

from histokin.report.document import CohortSection, MapSection, MetricRow, MetricTable, SlideCard, Value


def test_a_map_with_columns_of_different_length_is_refused_with_the_lengths():
    with pytest.raises(ValueError, match=r"\[2, 2, 2, 1, 2\]"):
        MapSection("PCA", [0.0, 1.0], [0.0, 1.0], ["a", "b"], ["s"], ["p", "p"])


@pytest.mark.parametrize(
    ("build", "known"),
    [
        (lambda: CohortSection("pictures", 0, 0, 0, 0, ""), "slides, tiles"),
        (lambda: MapSection("t-SNE", [], [], [], [], []), "PCA, UMAP"),
        (lambda: MetricRow("a", "baseline", {}), "encoder, floor, chance, class"),
    ],
)
def test_an_unknown_kind_is_refused_and_the_known_ones_are_named(build, known):
    with pytest.raises(ValueError, match=known):
        build()


def test_the_trained_row_is_the_first_encoder_and_gives_the_headline():
    table = MetricTable(
        "t",
        "p",
        "tile",
        1,
        1,
        {},
        {},
        rows=[
            MetricRow("colour", "floor", {"acc_at_1": Value(0.2)}),
            MetricRow("ours", "encoder", {"mmv_at_5": Value(0.5), "acc_at_1": Value(0.4)}),
            MetricRow("imagenet", "encoder", {"mmv_at_5": Value(0.6)}),
        ],
    )
    assert table.trained is not None
    assert table.trained.name == "ours"
    assert table.headline_metric == "mmv_at_5"
    assert table.metrics == ["acc_at_1", "mmv_at_5"]


@pytest.mark.parametrize(
    ("state", "n_tiles", "is_usable"),
    [("ok", 5, True), ("ok", 0, True), ("duplicate", 5, True), ("no_mpp", 0, False)],
)
def test_a_slide_counts_as_used_when_all_is_well_or_tiles_came_of_it(state, n_tiles, is_usable):
    assert SlideCard("s", "p", state, n_tiles=n_tiles).is_usable is is_usable
