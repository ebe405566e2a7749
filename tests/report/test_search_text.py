import csv
import io
import unicodedata
from dataclasses import replace

import pytest
from report import searches

from histokin.report.search import words
from histokin.report.search.csv import answers_csv
from histokin.report.search.document import Agreement, NoveltyTest
from histokin.report.search.text import search_text


def columns(line):
    return len(line) + sum(unicodedata.east_asian_width(character) in "WF" for character in line)


def lines_of(document):
    return [" ".join(line.split()) for line in search_text(document).splitlines()]


def test_the_terminal_shows_every_answer_in_order_with_what_is_known_of_it():
    lines = lines_of(searches.region())
    at = lines.index("# score % lower p diagnosis patient slide x y")
    assert lines[at + 1] == "1 0.9183 99.4 0.512 carcinoma P2 S2 190 210"
    assert lines[at + 6] == "6 0.7598 96.9 0.512 P4 S4 390 40"
    assert lines[at + 8] == ""
    assert "diagnosis: 3 of 5 patients: carcinoma" in lines
    assert "! Site C is outside what the threshold was calibrated on." in lines


def test_columns_without_anything_are_left_out_of_the_terminal():
    assert "# score diagnosis patient slide" in lines_of(searches.slide())
    assert not any(line.startswith("#") for line in lines_of(searches.picture()))


def test_columns_stay_aligned_and_short_where_names_are_long_or_wide():
    tile = searches.tile()
    names = ["正常粘膜" * 9, "x" * 200, "é", "", "a\tb\nc"]
    answers = [
        replace(answer, slide=name, labels={"diagnosis": name})
        for answer, name in zip(tile.answers, names, strict=True)
    ]
    lines = search_text(replace(tile, answers=answers)).splitlines()
    at = next(i for i, line in enumerate(lines) if line.lstrip().startswith("#"))
    place = columns(lines[at][: lines[at].index("x y")])
    for line, answer in zip(lines[at + 1 : at + 6], answers, strict=True):
        box = f"{answer.box.x} {answer.box.y}"
        assert columns(line[: line.rindex(box)]) == place
        assert columns(line) <= 110


@pytest.mark.parametrize("document", [*searches.all_kinds(), searches.hostile("name " * 60)])
def verdict_sentences_are_no_wider_than_a_terminal(document):
    assert max(len(line) for line in search_text(document).splitlines()) <= 110


def test_an_undecodable_name_can_be_printed():
    search_text(searches.hostile("case-\udce4\x00\x1b[0m")).encode()


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (99.97, "above 99.9 % of random pairs"),
        (100, "above all random pairs"),
        (99.9, "above 99.9 % of random pairs"),
        (57.0, "above 57 % of random pairs"),
        (0.0, "above 0 % of random pairs"),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_a_percentile_is_never_rounded_up(share, text):
    assert words.more_alike_than(share) == text


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.29, 3)])
def test_what_cannot_be_calibrated_says_how_many_patients_are_needed(alpha, needed):
    """The k-th smallest of n patients, k = floor(alpha (n + 1)), exists from the first n with k >= 1 on."""
    first = next(n for n in range(1, 200) if int(alpha * (n + 1) + 1e-9) >= 1)
    headline, explained = words.verdict_sentences(NoveltyTest(alpha, 3, 0.9))
    assert first == needed
    assert headline == "A good match cannot be told from a poor one"
    assert f"an error rate of {alpha * 100:g} % takes {needed} patients, and there are 3 patients." in explained


def test_the_novelty_test_says_threshold_p_and_whom_it_was_calibrated_on():
    headline, explained = words.verdict_sentences(NoveltyTest(0.05, 40, 0.41, 0.655, 0.0123, "colon"))
    assert headline == "No good match"
    assert "0.4100, is below 0.6550 (error rate 5 %, calibrated on 40 patients of colon; p = 0.012)" in explained
    headline, explained = words.verdict_sentences(NoveltyTest(0.05, 40, 0.7, 0.655, 0.4))
    assert headline == "Tissue of a kind that the archive knows"
    assert "no probability that a label is right" in explained
    assert "Nothing answered; the threshold is 0.6550" in words.verdict_sentences(NoveltyTest(0.05, 40, None, 0.655))[1]


def test_agreement_is_a_count_of_patients_and_never_hidden_where_there_is_none():
    assert words.agreement(Agreement("d", 5, [("tumour", 4), ("stroma", 1)])) == "4 of 5 patients: tumour"
    assert words.agreement(Agreement("d", 4, [("a", 2), ("b", 1)], 1)) == (
        "no agreement among 4 patients: a 2, b 1, 1 unlabelled"
    )
    assert words.agreement(Agreement("d", 0, [])) == "no agreement among 0 patients"
    assert words.agreement(Agreement("d", 3, [("a", 3)], is_by_patient=False)) == "3 of 3 patients or slides: a"


def test_filters_and_what_was_left_out_are_named_with_their_sizes():
    facts = dict(words.searched_facts(searches.searched()))
    assert facts["only organ"] == "colon and rectum"
    assert facts["left out"] == "patient P1, whose the query is (3 slides, 1,240 tiles)"
    assert facts["search"] == "index, 64 lists probed; finds 97 % of what an exact search does"
    exact = dict(words.searched_facts(searches.searched(how="exact", nprobe=None, recall=None, left_out=[])))
    assert exact["search"] == "exact: every vector was compared"
    assert exact["left out"] == "nothing"


def test_what_cannot_be_known_counts_unlabelled_answers_and_those_of_the_query_s_site():
    said = " ".join(words.unknown(searches.region()))
    assert "Without one: 1 of 7 answers." in said
    assert "From the query's own site: 2 of 7 answers." in said  # S3 twice, of site A
    assert "An index does not compare everything" in said
    said = " ".join(words.unknown(searches.tile()))
    assert "Without one" not in said
    assert "own site" not in said  # the query's site is not known
    assert "An index" not in said


def test_drawn_down_queries_and_unknown_scales_say_so():
    assert "812 tiles, 64 of them asked, weighted for all they stand for" in words.asked(searches.slide())
    assert "scale unknown" in words.asked(searches.picture())
    assert "448 µm × 336 µm" in words.asked(searches.region())


def test_the_csv_gives_every_number_back_to_the_last_digit():
    document = searches.region()
    for line, answer in zip(csv.DictReader(io.StringIO(answers_csv(document))), document.answers, strict=True):
        numbers = [float(line[name]) for name in ("rank", "score", "percentile", "p", "x", "y", "w", "h")]
        box = answer.box
        assert numbers == [answer.rank, answer.score, answer.percentile, answer.p, box.x, box.y, box.w, box.h]
        assert (line["slide"], line["patient"]) == (answer.slide, answer.patient)
        assert {name: line[name] for name in answer.labels} == answer.labels


def test_the_csv_has_empty_cells_for_what_is_not_there():
    (first, *_) = csv.DictReader(io.StringIO(answers_csv(searches.slide())))
    assert [first[name] for name in ("percentile", "p", "x", "h")] == [""] * 4


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "\r=x"])
def test_no_text_of_the_csv_can_be_run_by_a_spreadsheet(text):
    head, first, _ = csv.reader(io.StringIO(answers_csv(searches.hostile(text)), newline=""))
    assert [cell for cell in (*head, *first) if cell.lstrip().startswith(("=", "+", "-", "@"))] == []
    assert "'" + text.replace("\r", " ") in head
