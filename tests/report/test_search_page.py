import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest
from report import searches
from report.test_page import Page

from histokin.report.search.csv import answers_csv
from histokin.report.search.document import Cutout
from histokin.report.search.geojson import to_geojson
from histokin.report.search.page import render_search, write_search
from histokin.search.region import Box


@pytest.fixture(scope="module")
def html():
    return render_search(searches.region())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def rendered(document, **changes):
    return Page(render_search(replace(document, **changes)))


def bytes_of(address):
    return base64.b64decode(address.split("base64,")[1])


def files(page):
    return {a["download"]: bytes_of(a["href"]) for a in page.all("a") if "download" in a}


@pytest.mark.parametrize("document", searches.all_kinds(), ids=lambda document: document.query.kind)
def test_every_kind_of_search_is_a_well_formed_page_whose_links_lead_somewhere(document):
    html = render_search(document)
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


def test_nothing_points_outside_the_file_and_only_its_own_script_may_run(page, html):
    own = r"#|data:image/(jpeg|png);base64,|data:(text/csv;charset=utf-8|application/geo\+json);base64,"
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "data", "action"):
            if key in attributes:
                assert re.match(own, attributes[key]), (name, attributes[key][:80])
    assert "://" not in html
    assert "url(" not in html
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }}"])
def test_every_text_from_data_is_shown_as_text(text):
    found, clean = (Page(render_search(searches.hostile(name))) for name in (text, "name"))
    assert [name for name, _ in found.elements] == [name for name, _ in clean.elements]
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    assert text in found.text


def test_undecodable_names_can_be_written():
    render_search(searches.hostile("case-\udce4\x00\x1b[0m")).encode()


def test_equal_documents_give_equal_bytes_in_one_file(tmp_path, html):
    path = write_search(searches.region(), tmp_path / "search")
    assert path == tmp_path / "search" / "index.html"
    assert path.read_text(encoding="utf-8") == html
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


@pytest.mark.parametrize("document", searches.all_kinds(), ids=lambda document: document.query.kind)
def test_pictures_are_named_or_hidden_and_what_scrolls_or_widens_can_be_reached_by_keyboard(document):
    page = Page(render_search(document))
    for attributes in page.all("svg"):
        is_named = attributes.get("role") in ("img", "group") and attributes.get("aria-label")
        assert is_named or attributes.get("aria-hidden") == "true", attributes
    assert all(a["alt"] for a in page.all("img"))
    for a in page.all("div", "scroll") + page.all("div", "has-wider"):
        assert a["tabindex"] == "0"
        assert a["role"] in ("region", "group")
        assert a["aria-label"]


def test_answers_stand_by_patient_in_the_order_of_their_best_answer(html):
    found = [
        (name, [int(rank) for rank in re.findall(r'data-rank="(\d+)"', body)])
        for name, body in re.findall(r'<section class="patient" aria-label="([^"]*)">(.*?)</section>', html, re.DOTALL)
    ]
    assert found == [
        ("patient P2", [1, 3]),
        ("patient P3", [2, 7]),
        ("patient P6", [4]),
        ("patient P5", [5]),
        ("patient P4", [6]),
    ]


def test_every_picture_of_the_document_is_on_the_page_and_none_of_them_twice(page):
    document = searches.region()
    expected = {document.query.image, document.query.context.image}
    expected |= {document.slides[one.slide].thumbnail for one in (document.query, *document.answers)}
    for answer in document.answers:
        expected |= {answer.image, answer.context.image}
        for pair in answer.evidence:
            if pair.query.image and pair.answer.image:
                expected |= {pair.query.image, pair.answer.image}
    shown = [bytes_of(a["src"]) for a in page.all("img")] + [bytes_of(a["href"]) for a in page.all("image")]
    assert set(shown) == expected
    assert len(shown) == len(expected)


def test_boxes_between_pixels_are_shown_whole_and_written_with_two_decimals():
    tile = searches.tile()
    first = replace(tile.answers[0], box=Box(10.256, 20.5, 112.0, 112.4))
    found = rendered(tile, answers=[first])
    assert "10 20 112 112" in found.text
    (collection,) = [json.loads(text) for name, text in files(found).items() if name == "S2.geojson"]
    assert collection["features"][0]["geometry"]["coordinates"][0][0] == [10.26, 20.5]


def test_every_answer_is_in_the_table_with_its_numbers_unrounded(page):
    numbers = {float(a["value"]) for a in page.all("data")}
    for answer in searches.region().answers:
        box = answer.box
        assert {answer.score, answer.percentile, answer.p, box.x, box.y, box.w, box.h} <= numbers
        assert {pair.share for pair in answer.evidence if pair.answer.image} <= numbers
    start = page.text.index("All answers as a table")
    assert (
        "rank diagnosis site scanner score random pairs less alike p patient slide x y w h 1 carcinoma B A 0.9183"
        in (page.text[start:])
    )


def test_the_table_has_no_columns_for_what_no_answer_has():
    text = Page(render_search(searches.slide())).text
    assert "rank diagnosis site scanner score patient slide 1 carcinoma A A 0.8000 P2 S2 2" in text


def test_the_files_on_the_page_are_the_csv_and_a_geojson_a_slide(page):
    found = files(page)
    document = searches.region()
    assert found.pop("answers.csv").decode() == answers_csv(document)
    assert {name.removesuffix(".geojson"): json.loads(text) for name, text in found.items()} == to_geojson(document)


def test_places_are_drawn_at_level_0_pixels_of_the_slide(html):
    document = searches.region()
    drawn = re.findall(r'<svg viewBox="0 0 1024 768" class="on-slide"[^>]*slide S4">.*?</svg>', html)
    (answer,) = [one for one in document.answers if one.slide == "S4"]
    (place,) = re.findall(r'<rect class="ring" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)">', drawn[0])
    assert tuple(map(int, place)) == (answer.box.x, answer.box.y, answer.box.w, answer.box.h)


def test_heat_is_the_share_of_each_query_tile_over_the_largest_and_leads_to_its_pair(html):
    document = searches.region()
    answer, box = document.answers[0], document.query.box
    (drawn,) = re.findall(r'<svg [^>]*class="heat" role="group" aria-label="[^"]*answer 1">.*?</svg>', html)
    assert f'viewBox="{box.x} {box.y} {box.w} {box.h}"' in drawn
    marks = re.findall(r'class="warmth" style="--share:([\d.]+)" x="(\d+)" y="(\d+)"', drawn)
    found = {(int(x), int(y)): float(share) for share, x, y in marks}
    shares: dict[tuple[int, int], float] = {}
    for pair in answer.evidence:
        place = (pair.query.box.x, pair.query.box.y)
        shares[place] = shares.get(place, 0) + pair.share
    assert found == {place: pytest.approx(share / max(shares.values()), abs=0.005) for place, share in shares.items()}
    shown = [pair for pair in answer.evidence if pair.answer.image]
    assert re.findall(r'href="#(pair-1-\d)"', drawn) == [f"pair-1-{number}" for number in range(len(shown), 0, -1)]


def test_heat_over_all_answers_is_the_mean_of_their_shares(html):
    (drawn,) = re.findall(r'<svg [^>]*class="heat" role="img" aria-label="Mean share[^"]*">.*?</svg>', html)
    document = searches.region()
    mean: dict[tuple[int, int], float] = {}
    for answer in document.answers:
        for pair in answer.evidence:
            place = (pair.query.box.x, pair.query.box.y)
            mean[place] = mean.get(place, 0) + pair.share / len(document.answers)
    marks = re.findall(r'class="warmth" style="--share:([\d.]+)" x="(\d+)" y="(\d+)"', drawn)
    found = {(int(x), int(y)): float(share) for share, x, y in marks}
    assert found == {place: pytest.approx(share / max(mean.values()), abs=0.005) for place, share in mean.items()}
    assert f"The fullest tint is {max(mean.values()) * 100:.0f} %." in Page(html).text


def test_what_the_shown_pairs_do_not_carry_is_said():
    assert "Pairs that are not shown carried 25 %." in Page(render_search(searches.region())).text
    tile = searches.slide()
    (first, second), *_ = [answer.evidence for answer in tile.answers]
    whole = [replace(tile.answers[0], evidence=[replace(first, share=0.6), replace(second, share=0.4)])]
    assert "not shown" not in rendered(tile, answers=whole).text


@pytest.mark.parametrize(
    ("mpp", "bar"),
    [(1.0, ("20 µm", 17.86)), (0.25, ("5 µm", 17.86)), (10.0, ("200 µm", 17.86)), (0.31, ("10 µm", 28.8))],
)
def test_the_scale_bar_is_a_round_length_in_proportion_to_the_picture(mpp, bar):
    tile = searches.tile()
    found = render_search(replace(tile, query=replace(tile.query, mpp=mpp, context=None)))
    (width, text), *_ = re.findall(r'<span class="scale-bar" style="width:([\d.]+)%"><i>([^<]*)</i>', found)
    assert (text, float(width)) == (bar[0], pytest.approx(bar[1], abs=0.01))


def test_no_scale_is_drawn_where_the_pixel_size_is_unknown():
    tile = searches.tile()
    slides = {name: replace(card, mpp=None) for name, card in tile.slides.items()}
    found = rendered(tile, query=replace(tile.query, mpp=None), slides=slides)
    assert found.all("span", "scale-bar") == []
    assert "scale unknown" in found.text


def test_an_answer_of_another_width_than_the_query_says_its_own():
    tile = searches.tile()
    assert "field" not in Page(render_search(tile)).text.split("All answers")[0].replace("wider field", "")
    slides = tile.slides | {"S2": replace(tile.slides["S2"], mpp=0.5)}
    assert rendered(tile, slides=slides).text.count("field 56 µm wide") == 3


def test_the_head_says_what_was_searched_whether_it_is_alike_and_how_patients_agree(page):
    head = page.text[: page.text.index("At the query's scale")]
    for text in (
        "7 regions most like the region asked, from 41,238 tiles of 96 slides, 80 patients and 4 sites, compared by",
        "Tissue of a kind that the archive knows The best score, 0.9183, reaches 0.6100",
        "3 of 5 patients: carcinoma",
        "carcinoma 3 inflammation 1 unlabelled 1",
        "no agreement among 5 patients: B 2, C 2, A 1",
        "Labels that others gave to the answers, not a finding on the query.",
        "Site C is outside what the threshold was calibrated on.",
        "Two slides of the archive state no pixel size and were not searched.",
    ):
        assert text in head
    assert "patient P1, whose the query is (3 slides, 1,240 tiles)" in page.text
    assert "archive ef56" in page.text


def test_the_order_can_be_chosen_only_where_a_patient_has_several_answers():
    tile = searches.tile()
    assert len([a for a in Page(render_search(tile)).all("button") if "data-arrange" in a]) == 2
    apart = [tile.answers[0], tile.answers[2]]
    assert not [a for a in rendered(tile, answers=apart).all("button") if "data-arrange" in a]


@pytest.mark.parametrize(("document", "tone"), [(searches.region(), "good"), (searches.tile(), "bad")])
def test_the_verdict_has_its_own_tone_and_words(document, tone):
    assert len(Page(render_search(document)).all("div", tone)) == 1


def test_a_search_without_answers_says_so_and_has_no_table():
    found = Page(render_search(searches.picture()))
    assert "No tile answered out of 41,238 tiles of 96 slides, 80 patients and 4 sites" in found.text
    assert "nothing that was allowed to answer is left" in found.text
    assert not {"table", "evidence"} & {a.get("id") for a in found.all("section")}
    assert files(found) == {}


def test_answers_without_pictures_or_thumbnails_are_named_all_the_same():
    tile = searches.tile()
    bare = [replace(answer, image=None, context=None) for answer in tile.answers]
    found = rendered(tile, answers=bare, slides={})
    assert found.text.count("no picture") == len(bare)
    assert all(answer.slide in found.text for answer in bare)


def test_a_picture_that_is_neither_jpeg_nor_png_is_refused():
    tile = searches.tile()
    box = tile.query.box
    with pytest.raises(ValueError, match="JPEG or PNG"):
        rendered(tile, query=replace(tile.query, context=Cutout(box, b"<svg onload=alert(1)>")))
