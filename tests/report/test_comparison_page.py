import base64
import hashlib
import re
from dataclasses import replace

import pytest
from report import comparisons
from report.test_page import Page

from histokin.report import render_comparison, write_comparison


@pytest.fixture(scope="module")
def html():
    return render_comparison(comparisons.full())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


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
    found = Page(render_comparison(comparisons.hostile(text)))
    clean = Page(render_comparison(comparisons.hostile("name")))
    assert [name for name, _ in found.elements] == [name for name, _ in clean.elements]
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    assert text in found.text


def test_undecodable_names_can_be_written():
    render_comparison(comparisons.hostile("case-\udce4\x00\x1b[0m")).encode()


def test_every_figure_of_the_document_is_on_the_page_with_its_interval(page):
    shown = [float(a["value"]) for a in page.all("data") if a["value"]]
    for row in comparisons.ROWS:
        assert row.values["balanced_accuracy"].value in shown
        for name in ("random", "texture"):
            if name in row.minus["balanced_accuracy"]:
                assert row.minus["balanced_accuracy"][name].value in shown
    assert "0.800 [0.700, 0.900]" in page.text
    assert "+0.200 [0.100, 0.300]" in page.text
    assert "Dashed line: chance, 0.500" in page.text
    assert "Solid line: best floor (texture)" in page.text
    assert "optimistic, 9 patients" in page.text


def test_verdicts_warnings_alarms_and_what_the_intervals_leave_out_are_said(page):
    assert "Higher than random weights and the best floor (texture) good" in page.text
    assert "good: 3 of 9 folds took a setting at an end of the grid." in page.text
    assert "1 alarm" in page.text
    assert "collapsed" in page.text
    assert "One training an entry, seed 7" in page.text
    assert "Each of the 6 differences" in page.text


def test_right_and_wrong_neighbours_differ_in_frame_mark_and_words(page, html):
    assert len(page.all("figure", "right")) == len(page.all("figure", "wrong")) == 2
    alts = [a["alt"] for a in page.all("img")]
    assert "neighbour 1 by good: benign, slide slide-1, patient P1, right" in alts
    assert "neighbour 2 by good: malignant, slide slide-2, patient P2, wrong" in alts
    assert "1 of 2" in page.text
    marks = re.findall(
        r'class="picture (right|wrong)">.*?class="verdict" aria-hidden="true">(.)<', html, flags=re.DOTALL
    )
    assert sorted(marks) == [("right", "✓")] * 2 + [("wrong", "✕")] * 2


def test_values_stand_under_their_pictures_and_none_is_right_or_wrong():
    task = comparisons.task(kind="values", lookups=comparisons.lookups(numeric=True))
    found = Page(render_comparison(comparisons.full(tasks=[task])))
    assert not found.all("figure", "right") + found.all("figure", "wrong")
    assert found.text.count("0.2468") == 5
    assert "✓" not in found.text


def test_a_task_without_pictures_says_why():
    found = Page(
        render_comparison(comparisons.full(tasks=[comparisons.task(lookups=[], lookup_note="No pictures: x.")]))
    )
    assert "No pictures: x." in found.text


def test_what_could_not_be_measured_is_said():
    task = comparisons.task(measures=[], refusals=["linear probe: one class only."])
    found = Page(render_comparison(comparisons.full(tasks=[task])))
    assert "Not judged. linear probe: one class only." in found.text
    assert "Not measured linear probe: one class only." in found.text


def test_recipe_plan_command_and_fingerprint_are_on_the_page(page):
    for text in (
        "method: simclr seed: 0",
        "tasks: - work: T",
        "histokin compare T --out C",
        "feedgood",
        "run.steps=40",
    ):
        assert text in page.text


def test_without_anything_to_scale_over_there_is_no_such_section(page):
    assert "scaling" not in {a.get("id") for a in page.all("section")}
    entries = [
        replace(comparisons.entry("good"), at_most=n, n_tiles=n, name=name) for n, name in ((9, "good"), (5, "bad"))
    ]
    found = Page(render_comparison(comparisons.full(entries=entries)))
    assert "scaling" in {a.get("id") for a in found.all("section")}


def test_equal_documents_give_equal_bytes_in_one_file(tmp_path, html):
    path = write_comparison(comparisons.full(), tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    assert path.read_text(encoding="utf-8") == html
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
