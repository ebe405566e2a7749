import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report import documents

from histokin.report import EvaluationSection, MapSection, Measure, MetricRow, SlideCard, Value, render_page
from histokin.report.views import MAX_CARDS, MAX_MAP_POINTS, data_uri

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """A strict enough reader: every element must be closed in order; collects elements and texts."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, name, attributes):
        names = [key for key, _ in attributes]
        assert len(names) == len(set(names)), (name, names)
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open, f"</{name}> closes nothing"
        assert self.open.pop() == name

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, name, style=None):
        return [a for n, a in self.elements if n == name and (style is None or style in (a.get("class") or "").split())]

    @property
    def text(self):
        return " ".join(" ".join(data for parent, data in self.texts if parent not in ("script", "style")).split())


@pytest.fixture(scope="module")
def html():
    return render_page(documents.full())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_is_well_formed_with_one_title_one_h1_and_unique_ids(page, html):
    assert html.startswith("<!doctype html>")
    assert len(page.all("title")) >= 1
    assert len(page.all("h1")) == 1
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_every_inner_link_and_label_leads_somewhere(page):
    ids = {a["id"] for _, a in page.elements if "id" in a}
    for _, attributes in page.elements:
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


def test_nothing_points_outside_the_file(page, html):
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            if key in attributes:
                assert re.match(r"#|data:image/(jpeg|png);base64,", attributes[key]), (name, attributes)
    assert not {"link", "iframe", "object", "embed", "form", "base"} & {name for name, _ in page.elements}
    assert "://" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\(", html)) == set()


def test_the_policy_allows_this_script_alone_and_no_network(page, html):
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "\"><img src=x onerror='alert(1)'>",
        "<!--<script>",
        "{{ 7 * 7 }}{% raw %}",
        "&lt;b&gt; & < >",
    ],
)
def test_every_text_from_data_is_shown_as_text(text):
    html = render_page(documents.hostile(text))
    page = Page(html)
    clean = Page(render_page(documents.hostile("name")))
    assert [name for name, _ in page.elements] == [name for name, _ in clean.elements]
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert " ".join(text.split()) in page.text
    payload = json.loads(re.findall(r'id="map-data">(.*?)</script>', html, flags=re.DOTALL)[0])
    assert payload["colourings"]["slide"]["names"] == [text]


def test_undecodable_names_can_be_written():
    render_page(documents.hostile("case-\udce4\x00\x1b[0m")).encode()


def test_equal_documents_give_equal_pages(html):
    assert render_page(documents.full()) == html


def test_texts_of_data_do_not_reach_style_or_script():
    html = render_page(documents.hostile("needle-in-the-data"))
    for block in re.findall(r"<style>(.*?)</style>|<script>(.*?)</script>", html, flags=re.DOTALL):
        assert "needle" not in "".join(block)


@pytest.mark.parametrize(
    ("field", "anchor"),
    [("training", "training"), ("evaluation", "metrics"), ("search", "retrieval"), ("embedding_map", "map")],
)
def test_a_section_without_data_is_absent_together_with_its_link(field, anchor, page):
    without = Page(render_page(documents.full(**{field: None})))
    assert {a.get("id") for a in page.all("section")} - {a.get("id") for a in without.all("section")} == {anchor}
    assert {a["href"] for a in page.all("a")} - {a["href"] for a in without.all("a")} == {f"#{anchor}"}


def test_the_smallest_document_is_a_page():
    nothing = replace(
        documents.full(training=None, evaluation=None, search=None, embedding_map=None, notes=[], digests={}),
        cohort=documents.cohort(slides=[], n_slides=0, n_usable=0, n_tiles=0, n_patients=0),
        subtitle="",
        command="",
        created_with={},
    )
    assert "0 of 0" in Page(render_page(nothing)).text


# ---- slides


def test_unusable_slides_are_listed_with_state_and_reason(page):
    assert "no pixel size" in page.text
    assert "the file states no pixel size" in page.text
    assert "the first tile is cut off" in page.text
    assert "Left out: no pixel size (1), unreadable (1)" in page.text
    assert len(page.all("li", "bad")) == 2


def test_a_long_cohort_shows_sixty_slides_and_every_unusable_one_and_counts_the_rest():
    n = 200
    slides = [
        SlideCard(f"s{i}", "p", *(("damaged", f"reason {i}") if i % 50 == 49 else ("ok", "")), n_tiles=0)
        for i in range(n)
    ]
    found = Page(render_page(documents.full(cohort=documents.cohort(slides=slides, n_slides=n, n_usable=196))))
    n_bad_later = sum(i % 50 == 49 for i in range(MAX_CARDS, n))
    assert len(found.all("li", "card")) == MAX_CARDS + n_bad_later
    assert all(f"reason {i}" in found.text for i in (49, 99, 149, 199))
    assert f"{n - MAX_CARDS - n_bad_later} more usable slides are not drawn here" in found.text


def test_a_used_slide_with_a_remark_is_marked_as_neither_good_nor_bad():
    slides = [SlideCard("twin", "p", "duplicate", "same content as a", n_tiles=9)]
    found = Page(render_page(documents.full(cohort=documents.cohort(slides=slides))))
    assert len(found.all("li", "warn")) == 1
    assert "same content as a" in found.text


# ---- training


def test_a_collapsed_run_says_so():
    run = documents.training(verdict="Feature standard deviation fell to 0.0001.", is_collapsed=True)
    found = Page(render_page(documents.full(training=run)))
    assert "Collapsed. Feature standard deviation fell to 0.0001." in found.text
    assert found.all("p", "bad")


def test_curves_are_drawn_for_what_was_logged_only():
    run = documents.training(monitors=[{"step": 1, "rank": 20.0}])
    found = Page(render_page(documents.full(training=run)))
    assert len(found.all("figure", "chart")) == 3  # loss, learning rate, rank
    nothing = Page(render_page(documents.full(training=documents.training(curve=[], monitors=[], recipe={}))))
    assert "no curve was logged" in nothing.text
    assert not nothing.all("figure", "chart")


def test_the_recipe_is_listed_by_dotted_key(page):
    assert "loss.temperature 0.2" in page.text
    assert "method simclr" in page.text


# ---- retrieval


def test_right_and_wrong_neighbours_differ_in_frame_mark_and_words(page):
    assert len(page.all("figure", "right")) == 1
    assert len(page.all("figure", "wrong")) == 1
    alts = [a["alt"] for a in page.all("img")]
    assert "neighbour 1: tumour, slide slide-1, patient P1, right" in alts
    assert "neighbour 2: stroma, slide slide-2, patient P2, wrong" in alts
    assert all(alts)
    assert "1 of 2 right" in page.text


def test_without_judgements_no_mark_is_explained_or_drawn():
    given = documents.search().examples[0]
    hits = [replace(hit, is_right=None, label="") for hit in given.hits]
    section = replace(documents.search(), examples=[replace(given, hits=hits)])
    found = Page(render_page(documents.full(search=section)))
    assert "✓ marks" not in found.text
    assert "judge by eye" in found.text
    assert not found.all("figure", "right") + found.all("figure", "wrong")


def test_only_jpeg_and_png_may_be_shown():
    assert data_uri(documents.jpeg()).startswith("data:image/jpeg;base64,")
    with pytest.raises(ValueError, match="JPEG or PNG"):
        data_uri(b"<svg onload='alert(1)'>")


# ---- metrics


def test_numbers_in_the_tables_are_those_of_the_document(page):
    table = documents.table()
    shown = [float(a["value"]) for a in page.all("data") if a["value"]]
    for row in (*table.rows, *table.per_class):
        for value in row.values.values():
            assert value.value in shown
        if row.delta:
            assert row.delta.value in shown
    for text in (
        "0.812 [0.750, 0.870]",
        "+0.151 [0.090, 0.210] p = 0.012",
        "p < 0.001",
        "2,000 queries",
        "18 patients",
    ):
        assert text in page.text
    assert "tumour 70 %" in page.text


def test_chance_is_always_a_row(page):
    assert page.text.count("chance 0.580") >= 1
    assert "Dashed line: chance, 0.580" in page.text


def test_the_header_quotes_the_headline_against_the_best_floor(page):
    assert "mMV@5, Tile retrieval, leave one patient out 0.812 [0.750, 0.870]" in page.text
    assert "best floor: 0.661 (histogram), difference +0.151 [0.090, 0.210]" in page.text


def test_a_value_that_could_not_be_computed_is_a_dash_with_its_reason():
    rows = [
        MetricRow("ours", "encoder", {"acc": Value(0.5)}),
        MetricRow("b", "floor", {"acc": Value(None, note="one class")}),
        MetricRow("c", "floor", {"acc": Value(math.nan)}),
    ]
    section = EvaluationSection([documents.table(rows=rows, per_class=[])])
    found = Page(render_page(documents.full(evaluation=section)))
    assert "– one class" in found.text
    assert "nan" not in found.text.lower()


def test_without_labels_the_page_says_why_and_shows_what_needs_none():
    section = EvaluationSection(
        [], [Measure("effective rank", 168.2, "dimensions in use")], [], "There is no label column."
    )
    found = Page(render_page(documents.full(evaluation=section)))
    assert "No figures that need labels. There is no label column." in found.text
    assert "effective rank 168.2 dimensions in use" in found.text
    assert not found.all("table", "values")


# ---- map


def test_the_map_has_a_mark_for_every_point_in_the_colour_of_its_class(html):
    points = documents.embedding_map()
    drawn = re.search(r'<g class="points">(.*?)</g>', html, flags=re.DOTALL)
    assert drawn
    styles = re.findall(r'class="(k\d+)"', drawn.group(1))
    assert len(styles) == len(points.x)
    by_class = dict(zip(points.class_, styles, strict=True))
    assert len(set(by_class.values())) == 3
    assert styles == [by_class[name] for name in points.class_]


def test_the_payload_names_every_point_in_all_three_colourings(html):
    payload = json.loads(re.findall(r'id="map-data">(.*?)</script>', html, flags=re.DOTALL)[0])
    points = documents.embedding_map()
    for name, column in (("class", points.class_), ("slide", points.slide), ("patient", points.patient)):
        colouring = payload["colourings"][name]
        assert [colouring["names"][i] for i in colouring["of"]] == [value or "unlabelled" for value in column]


def test_a_map_without_classes_opens_on_slides():
    points = replace(documents.embedding_map(), class_=[""] * 40)
    found = Page(render_page(documents.full(embedding_map=points)))
    assert [a["data-colouring"] for a in found.all("button") if "data-colouring" in a] == ["slide", "patient"]


def test_points_that_are_too_many_or_nowhere_are_counted():
    n = MAX_MAP_POINTS + 10
    x = [math.nan, *(float(i) for i in range(n - 1))]
    section = MapSection("PCA", x, [0.0] * n, ["a"] * n, ["s"] * n, ["p"] * n)
    html = render_page(documents.full(embedding_map=section))
    assert html.count("<use ") >= MAX_MAP_POINTS
    assert "9 more points are not drawn" in html
    assert "1 point had no place" in html


def test_a_class_has_one_colour_all_over_the_page(html):
    swatches = re.findall(r'<use href="#m\d" class="(k\d+)"></use></svg><bdi>tumour</bdi>', html)
    assert len(swatches) >= 5  # cards, query, neighbour, legend, prevalence, per class
    assert len(set(swatches)) == 1


def test_long_names_stay_whole_in_the_page():
    name = "a-very-long-name-" * 20
    assert Page(render_page(documents.hostile(name))).text.count(name) >= 20
