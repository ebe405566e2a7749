import base64
import hashlib
import re
from dataclasses import fields, replace

import pytest
from report import evaluations
from report.test_page import Page

from histokin.report import Chapter, ComparedMeasure, ComparedRow, Value, render_evaluation, write_evaluation


@pytest.fixture(scope="module")
def html():
    return render_evaluation(evaluations.full())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def rendered(*chapters, **changes):
    return Page(render_evaluation(evaluations.full(chapters=list(chapters), **changes)))


def numbers(page):
    return [float(a["value"]) for a in page.all("data") if a["value"]]


def test_the_page_is_well_formed_with_one_h1_and_unique_ids_that_links_lead_to(page, html):
    assert html.startswith("<!doctype html>")
    assert len(page.all("h1")) == 1
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


def test_nothing_points_outside_the_file_and_only_its_own_script_may_run(page, html):
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "data", "action"):
            if key in attributes:
                assert re.match(r"#|data:image/(jpeg|png);base64,", attributes[key]), (name, attributes)
    assert "://" not in html
    assert "url(" not in html
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }}"])
def test_every_text_from_data_is_shown_as_text(text):
    found = Page(render_evaluation(evaluations.hostile(text)))
    clean = Page(render_evaluation(evaluations.hostile("name")))
    assert [name for name, _ in found.elements] == [name for name, _ in clean.elements]
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    assert text in found.text


def test_undecodable_names_can_be_written():
    render_evaluation(evaluations.hostile("case-\udce4\x00\x1b[0m")).encode()


def test_equal_documents_give_equal_bytes_in_one_file(tmp_path, html):
    path = write_evaluation(evaluations.full(), tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    assert path.read_text(encoding="utf-8") == html
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_every_drawing_is_named_or_hidden_and_what_scrolls_can_be_reached_by_keyboard(page):
    for attributes in page.all("svg"):
        is_named = attributes.get("role") == "img" and attributes.get("aria-label")
        assert is_named or attributes.get("aria-hidden") == "true", attributes
    regions = page.all("div", "scroll")
    assert regions
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)
    names = [a["aria-label"] for a in regions]
    assert "Tiles: linear probe of label: confusion of UNI" in names


def test_every_number_of_the_measures_is_on_the_page_with_its_interval(page):
    shown = set(numbers(page))
    for chapter in evaluations.full().chapters:
        for measure in chapter.measures:
            for row in measure.rows:
                assert {value.value for value in row.values.values()} <= shown
        for line in chapter.per_class + chapter.per_group:
            if line.row in evaluations.ENCODERS and line.value.value is not None:
                assert line.value.value in shown
        for quantity in chapter.quantities:
            assert {value for value in quantity.values.values() if value is not None} <= shown
        for curve in chapter.reliability:
            earned = {curve.ece, curve.ace, curve.brier, curve.nll, curve.tempered_ece} - {None}
            assert earned <= shown
        assert set(chapter.prevalence.values()) <= shown
    assert "0.860 [0.810, 0.910]" in page.text


def test_every_text_of_a_chapter_is_on_the_page():
    chapter = evaluations.probe_chapter(lookups=evaluations.lookups(), lookup_note="Drawn by the seed.")
    text = rendered(chapter).text
    for field in fields(Chapter):
        value = getattr(chapter, field.name)
        if isinstance(value, str):
            assert value in text, field.name
        if field.name in ("notes", "controls"):
            assert all(sentence in text for sentence in value)
    for line in chapter.per_class + chapter.per_group:
        assert line.part in text
        assert f"{line.n:,} tile" in text
    for confusion in chapter.confusions:
        assert confusion.how in text
    assert "812 queries" in text
    assert "UNI : random ViT-L" in text  # the twin
    assert "UNI: 3 of 5 folds took a setting at an end of the grid." in text
    assert "grid.C [0.01, 1.0]" in text  # the protocol as flat rows


def test_every_table_names_queries_patients_prevalence_and_chance(page):
    asked = (
        "812 queries, 40 patients, 8 classes. Prevalence: tumour 31 %; stroma, complex 22 %; lympho 15 %; 5 more, the"
    )
    n_metrics = sum(len(measure.metrics) for measure in evaluations.probe_chapter().measures)
    n_hidden = 1  # the table of values that are not drawn
    assert page.text.count(asked) == n_metrics + n_hidden
    assert "Dashed line: chance, 0.125." in page.text
    assert "No chance level." in page.text  # NLL
    keys = page.text.count("Mark: value; bar: 95 % interval.")
    assert keys == sum(len(m.metrics) for c in evaluations.full().chapters for m in c.measures)


def test_the_headline_gives_value_interval_standing_floor_and_chance_of_each_encoder(page):
    start, end = page.text.index("Headline figures"), page.text.index("Without a figure that has an interval")
    top = page.text[start:end]
    assert "Tiles: linear probe of label Balanced accuracy 812 queries, 40 patients, 8 classes; tumour 31 %" in top
    assert "0.860 [0.810, 0.910] ▲ random ▲ floor" in top
    assert "0.740 [0.690, 0.790] ▲ floor" in top  # no random twin of its own architecture
    assert "0.600 [0.550, 0.650] texture 0.125" in top
    assert "▲ random ≈ floor" in top  # ridge, wide intervals
    assert page.text[end:].startswith(
        "Without a figure that has an interval: Tiles: few-shot classification of label , Tiles: quality without labels"
    )


def test_lower_is_better_where_the_metric_is_an_error(html):
    found = re.findall(r'<table class="dots([^"]*)">.*?</table>', html, flags=re.DOTALL)
    assert sum("lower-is-better" in style for style in found) == 1
    assert "lower is better" in Page(html).text


def test_p_values_stand_beside_differences_and_are_explained_only_where_there_are_any(page):
    assert "p = 0.012" in page.text
    assert "p: of the difference, adjusted for the comparisons of this table." in page.text
    alone = Page(render_evaluation(evaluations.alone())).text
    assert "p: of the difference" not in alone


def test_long_tables_are_folded_and_short_ones_open(html):
    details = dict(re.findall(r"<details( open)? class=\"folded\">\s*<summary>(By \w+)", html))
    assert details == {" open": "By class", "": "By group"}
    assert "1 more metric NLL" in Page(html).text
    assert "1 more metric Precision" in Page(html).text


def test_counts_of_a_confusion_stand_with_what_could_not_be_said(page):
    (matrix, *_) = evaluations.probe_chapter().confusions
    titles = [a["title"] for a in page.all("td") if "said to be" in (a.get("title") or "")]
    n = sum(matrix.counts[0])
    assert f"tumour said to be none: {matrix.counts[0][8]} of {n}, {matrix.counts[0][8] / n * 100:.1f} %" in titles
    assert f"tumour said to be tumour: {matrix.counts[0][0]} of {n}, {matrix.counts[0][0] / n * 100:.0f} %" in titles


def test_retrieval_pictures_say_right_and_wrong_and_what_was_not_found(page):
    assert len(page.all("figure", "right")) == len(page.all("figure", "wrong")) - 2 == 4
    assert "neighbour 2 by UNI: tumour, slide slide-2, patient P2, right" in [a["alt"] for a in page.all("img")]
    assert "nothing was found outside the query's own patient" in page.text


def test_refusals_notes_stores_and_how_to_repeat_are_on_the_page(page):
    document = evaluations.full()
    for protocol, sentence in document.refusals:
        assert f"{protocol} {sentence}" in page.text
    for store in document.stores:
        assert store.name in page.text
        assert (
            f"{store.writer} {store.n_slides} {store.n_tiles:,} {store.width:,} {store.dtype} {store.fingerprint}"
            in page.text
        )
    for text in (
        *document.notes,
        document.command,
        "splits.k 5",
        "numpy 2.0",
        "seed 7",
        "left out patient",
        "reference UNI",
    ):
        assert text in page.text


def test_a_chapter_without_anything_says_so_and_one_with_notes_alone_does_not():
    assert "nothing was measured" in rendered(Chapter("a", "A", "", "", "tile", "", {})).text
    assert "nothing was measured" not in rendered(Chapter("a", "A", "", "", "tile", "", {}, notes=["Clean."])).text


def test_sections_without_content_are_absent_together_with_their_links(page):
    without = rendered(maps=[], refusals=[])
    gone = {"refusals", "maps", "chapters"}
    assert {a.get("id") for a in page.all("section")} - {a.get("id") for a in without.all("section")} == gone
    assert not {f"#{name}" for name in gone} & {a["href"] for a in without.all("a")}
    assert "no chapter has a figure with an interval" in without.text


def test_one_encoder_alone_has_no_columns_of_differences_and_says_why_there_are_no_floors():
    found = Page(render_evaluation(evaluations.alone()))
    assert "− best floor" not in found.text
    assert "− random" not in found.text
    assert "Solid line" not in found.text
    assert "paired differences" not in found.text
    assert "There are no floors: the tiles' pixels were not given." in found.text
    assert "mine, frozen, judged on 3 slides and 50 tiles, without floors." in found.text


def test_a_metric_without_any_number_says_why():
    assert "mMV@5: no row has a number (n/a (3 patients))." in Page(render_evaluation(evaluations.alone())).text


def test_a_difference_known_from_the_reference_alone_is_shown_for_the_others_too():
    main = ComparedRow("UNI", "entry", {"acc@1": Value(0.9)}, {"acc@1": {"other": Value(0.25, 0.125, 0.375)}})
    measure = ComparedMeasure("m", {}, [], ["acc@1"], {}, [main, ComparedRow("other", "entry", {"acc@1": Value(0.65)})])
    found = rendered(Chapter("p", "P", "", "", "tile", "", {}, measures=[measure]))
    assert "− UNI" in found.text
    assert "−0.250 [−0.375, −0.125]" in found.text


def test_maps_have_a_mark_for_every_point_in_colours_that_all_encoders_share(html):
    document = evaluations.full()
    drawn = re.findall(r'<g class="points">(.*?)</g>', html, flags=re.DOTALL)
    assert len(drawn) == len(document.maps)
    colours: dict[str, set[str]] = {}
    for (_, section), marks in zip(document.maps, drawn, strict=True):
        styles = re.findall(r'class="(k\d+)"', marks)
        assert len(styles) == len(section.x)
        for name, style in zip(section.class_, styles, strict=True):
            colours.setdefault(name, set()).add(style)
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(evaluations.CLASSES)


def test_a_map_without_classes_says_that_it_shows_slides():
    (name, section), *_ = evaluations.full().maps
    found = rendered(maps=[(name, replace(section, class_=[""] * len(section.x)))])
    assert "coloured by slide: no class is known" in found.text
