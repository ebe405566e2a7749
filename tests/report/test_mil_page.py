import base64
import hashlib
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report import mil_documents as documents
from report.test_page import Page

from histokin.report.mil.document import Prediction
from histokin.report.mil.page import render_mil, write_mil
from histokin.report.mil.slides import MOST_PREDICTIONS

KINDS = pytest.mark.parametrize("document", documents.all_kinds(), ids=lambda document: document.title)


@pytest.fixture(scope="module")
def html():
    return render_mil(documents.trained())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def section(html, name):
    """The markup of one section."""
    return re.findall(rf'<section id="{name}".*?</section>', html, re.DOTALL)[0]


def rendered(document, **changes):
    return Page(render_mil(replace(document, **changes)))


@KINDS
def test_every_kind_is_a_well_formed_page_whose_links_lead_somewhere(document):
    html = render_mil(document)
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert len(page.all("h1")) == 1
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


@KINDS
def test_pictures_are_named_or_hidden_and_what_scrolls_can_be_reached_by_keyboard(document):
    page = Page(render_mil(document))
    for attributes in page.all("svg"):
        is_named = attributes.get("role") == "img" and attributes.get("aria-label")
        assert is_named or attributes.get("aria-hidden") == "true", attributes
    assert all(a["alt"] for a in page.all("img"))
    for a in page.all("div", "scroll"):
        assert (a["tabindex"], a["role"], bool(a["aria-label"])) == ("0", "region", True)


def test_nothing_points_outside_the_file_and_only_its_own_script_may_run(page, html):
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "data", "action"):
            if key in attributes:
                assert re.match(r"#|data:image/(jpeg|png);base64,", attributes[key]), (name, attributes[key][:80])
    assert "://" not in html
    assert "url(" not in html
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }}"])
def test_every_text_from_data_is_shown_as_text(text):
    found, clean = (Page(render_mil(documents.hostile(name))) for name in (text, "name"))
    assert [name for name, _ in found.elements] == [name for name, _ in clean.elements]
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    assert text in found.text


def test_undecodable_names_can_be_written():
    render_mil(documents.hostile("case-\udce4\x00\x1b[0m")).encode()


def test_equal_documents_give_equal_bytes_in_one_file(tmp_path, html):
    path = write_mil(documents.trained(), tmp_path / "mil")
    assert path == tmp_path / "mil" / "index.html"
    assert path.read_text(encoding="utf-8") == html
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


# ---- figures


def test_the_head_says_what_was_judged_how_good_it_is_and_against_what(page):
    head = page.text[: page.text.index("How good")]
    for text in (
        "ABMIL on embeddings of simclr-resnet18 tells diagnosis (benign, carcinoma and inflammation) of slides",
        "judged on 60 slides, 60 patients and 34,840 tiles held out.",
        "Macro AUC by slide 0.919 [0.869, 0.969]",
        "best floor: 0.829 (mean + logistic), difference +0.090 [0.030, 0.150]",
        "Better than the best floor (mean + logistic). Macro AUC, abmil minus mean + logistic: +0.090 [0.030, 0.150]",
        "benign 40 % carcinoma 35 % inflammation 25 %",
        "Fold 0-2: not calibrated",
        "Two slides have no tiles and were not told of.",
    ):
        assert text in head


def test_every_figure_of_every_row_is_on_the_page_with_its_interval(page):
    document = documents.trained()
    shown = {a["value"] for a in page.all("data")}
    for judgement in document.judgements:
        for row in judgement.measure.rows:
            for value in row.values.values():
                assert str(value.value) in shown
    assert "Dashed line: chance, 0.500." in page.text
    assert "Prevalence: benign 40 %, carcinoma 35 %, inflammation 25 %." in page.text
    assert "By patient" in page.text
    assert "how often a patient of the class is ranked above another" in page.text


def test_single_models_epochs_and_temperatures_are_told_beside_the_ensemble(page):
    told = page.text[page.text.index("What was trained") :]
    assert "5 folds × 3 inner splits × 3 seeds: 45 models" in told
    assert "13 to 34, median 19" in told  # epochs count from 1 for people
    assert "1.31, 1.12, 1.45, 1.20, 1.28" in told
    assert "Macro AUC 0.871 ± 0.012, Balanced accuracy 0.743 ± 0.021" in told
    assert "options.attention 256" in told


def test_a_comparison_shows_models_by_features_and_differences_to_the_reference():
    html = render_mil(documents.compared())
    grid = Page(re.findall(r'<table class="values grid-table.*?</table>', html, re.DOTALL)[0])
    assert [data.strip() for parent, data in grid.texts if parent == "bdi"] == ["ours", "imagenet"]
    text = Page(html).text
    assert "ABMIL 0.919 [0.869, 0.969] reference ▼ 0.802" in text
    assert "CLAM-SB ≈ 0.910 [0.860, 0.960] –" in text
    assert "Mean pooling ▼ 0.856 [0.806, 0.906] ▼ 0.730" in text
    assert text.count("− abmil, ours") == 8  # four metrics, by slide and by patient
    assert "chosen after looking" in text


def test_curves_carry_their_areas_and_a_band_where_one_classifier_stands_alone(html):
    document = documents.trained()
    found = section(html, "curves")
    for curve in document.curves:
        assert f"AUC {curve.auc.value:.3f} [{curve.auc.low:.3f}, {curve.auc.high:.3f}]" in found
        assert f"AP {curve.ap.value:.3f}" in found
    assert found.count('class="band') == 2 * len(document.curves)
    several = section(render_mil(documents.compared()), "curves")
    assert 'class="band' not in several
    assert several.count('class="step') == 2 * 9


def test_calibration_is_shown_before_and_after_the_temperature(html):
    found = Page(section(html, "curves")).text
    one = documents.trained().calibrations[0]
    for curve in filter(None, (one.before, one.after)):
        assert f"ECE {curve.ece:.3f} ; Brier {curve.brier:.3f}" in found


# ---- slides


def rows_of(html):
    table = re.findall(r'<table class="values slides-table".*?</table>', html, re.DOTALL)[0]
    return re.findall(r'<th scope="row">(?:<a [^>]*>)?<bdi>(.*?)</bdi>', table)


def test_wrong_slides_stand_first_the_surest_at_the_top_then_right_ones_the_least_sure_first(html):
    told = documents.trained().predictions
    wrong = sorted((one for one in told if not one.is_right), key=lambda one: one.told[one.truth])
    right = sorted((one for one in told if one.is_right), key=lambda one: one.told[one.truth])
    assert rows_of(html) == [one.slide for one in [*wrong, *right]]
    assert f"{len(wrong)} of 60 slides are wrong" in Page(html).text


def test_every_column_can_be_sorted_by_the_unrounded_number(html):
    table = section(html, "slides")
    assert "data-sortable" in table
    for one in documents.trained().predictions:
        assert f'data-value="{one.told[one.said]}"' in table
        assert f'data-value="{one.told[one.truth]}"' in table
        assert f'data-value="{one.n_tiles}"' in table


def test_of_many_slides_the_least_surprising_are_counted_and_not_shown():
    many = [
        Prediction(
            f"S{number}", {"benign": 0.5 + number / 2000, "carcinoma": 0.5 - number / 2000}, "benign", "benign", True
        )
        for number in range(MOST_PREDICTIONS + 7)
    ]
    document = replace(documents.trained(), predictions=many, gallery=[])
    html = render_mil(document)
    assert rows_of(html) == [f"S{number}" for number in range(MOST_PREDICTIONS)]
    assert "7 slides more, told with less surprise, stand in predictions.csv alone." in Page(html).text


def test_new_slides_have_no_truth_and_the_page_claims_none():
    html = render_mil(documents.predicted())
    page = Page(html)
    text = page.text
    assert "asked about 12 slides, whose truth is not known" in text
    assert not {"figures", "curves", "tiles", "faithfulness"} & {a.get("id") for a in page.all("section")}
    assert "right" not in text.split("Limits")[1].split("What this page")[0]
    assert ">true<" not in html


@pytest.mark.parametrize(
    ("index", "texts"),
    [
        (0, ["C-index", "10 months, event", "A risk ranks slides"]),
        (1, ["Mean absolute error", "No chance level.", "error"]),
        (2, ["Macro AUC", "EGFR", "1 of 4 slides is wrong"]),
    ],
)
def test_other_targets_are_told_in_their_own_words(index, texts):
    found = Page(render_mil(documents.other_targets()[index])).text
    assert all(text in found for text in texts)


def test_values_stand_by_their_error():
    assert rows_of(render_mil(documents.other_targets()[1])) == ["S3", "S2", "S1", "S0"]


# ---- what was looked at


def test_each_slide_of_the_gallery_shows_its_maps_over_one_copy_of_its_thumbnail(html, page):
    document = documents.trained()
    for one in document.gallery:
        assert html.count(base64.b64encode(one.thumbnail).decode()) == 1
        for found in one.maps:
            assert html.count(base64.b64encode(found.image).decode()) == 1
    overlays = page.all("img", "over")
    assert [a["alt"] for a in overlays][:3] == [
        "S00: Attention, percentile, benign",
        "S00: Attention, times uniform, benign",
        "S00: Contribution, benign",
    ]
    assert len(re.findall(r'<use href="#picture-1"', html)) == 4
    assert "2 tiles without a place, not shown" in page.text


def test_a_map_on_the_page_has_a_colour_exactly_where_there_are_tiles():
    coords, _ = documents.tiles(0)
    size = documents.TILE // 4
    expected = np.zeros((documents.HEIGHT // 4, documents.WIDTH // 4), bool)
    for x, y in coords // 4:
        expected[y : y + size, x : x + size] = True
    for found in documents.trained().gallery[0].maps:
        alpha = np.array(Image.open(io.BytesIO(found.image)).convert("RGBA"))[..., 3]
        assert ((alpha == 255) == expected).all()


def test_legends_say_what_stands_at_their_ends_and_where_attention_is_uniform(html):
    document = documents.trained()
    legends = re.findall(r'<div class="legend-bar">.*?</div>(?:<div class="sides">.*?</div>)?</div>', html, re.DOTALL)
    relative = document.gallery[0].maps[1]
    assert "0 %" in legends[0]
    assert "100 %" in legends[0]
    at = 100 * np.log(1 / relative.low) / np.log(relative.high / relative.low)
    assert f'<i style="left:{at:.2f}%">' in legends[1]
    limits = {(one.maps[2].low, one.maps[2].high) for one in document.gallery}
    assert len(limits) == 1  # one scale for all slides
    ((low, high),) = limits
    assert low == -high
    assert f"+{high:.2f}" in legends[2]
    assert "for benign" in legends[2]


def test_the_number_of_effective_tiles_stands_beside_each_slide(page):
    for one in documents.trained().gallery:
        assert one.effective is not None
        share = one.effective / one.prediction.n_tiles
        assert f"attention as on {one.effective:.1f} tiles, exp(H), {share * 100:.0f} %" in page.text


def test_no_scale_bar_is_drawn_where_the_pixel_size_is_unknown(page):
    assert len(page.all("span", "scale-bar")) == 3
    assert Page(render_mil(documents.predicted())).all("span", "scale-bar") == []


def test_sheets_show_every_tile_and_frame_those_of_slides_of_the_class(html):
    document = documents.trained()
    found = section(html, "tiles")
    for sheet in document.sheets:
        for tile in [*sheet.highest, *sheet.lowest]:
            assert base64.b64encode(tile.image).decode() in found
    framed = sum(tile.truth == sheet.of for sheet in document.sheets for tile in [*sheet.highest, *sheet.lowest])
    assert found.count('class="own ') == framed > 0


def test_faithfulness_shows_falls_with_intervals_and_says_what_they_allow(html):
    found = Page(section(html, "faithfulness")).text
    for _, *values in documents.trained().faithfulness[0].points:
        for value in values:
            assert f"+{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" in found
    assert "Deleting what the map calls important hurts more than chance at 1 %, 5 % and 10 %." in found


def test_a_map_that_random_tiles_equal_is_not_to_be_read():
    one = documents.trained().faithfulness[0]
    points = [(share, top, random, replace(lead, low=-0.01)) for share, top, random, lead in one.points]
    text = rendered(documents.trained(), faithfulness=[replace(one, points=points)]).text
    assert "cannot be told from random tiles: do not read the map" in text


def test_a_picture_that_is_neither_jpeg_nor_png_is_refused():
    one = documents.trained().gallery[0]
    bad = replace(one, maps=[replace(one.maps[0], image=b"<svg onload=alert(1)>")])
    with pytest.raises(ValueError, match="JPEG or PNG"):
        rendered(documents.trained(), gallery=[bad])
