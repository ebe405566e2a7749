import re
import unicodedata

import pytest
from report import evaluations

from histokin.report import Quantity, evaluation_text


def columns(line):
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return len(line) + wide


@pytest.fixture(scope="module")
def text():
    return evaluation_text(evaluations.full())


@pytest.mark.parametrize("document", [evaluations.full(), evaluations.alone(), evaluations.hostile("long name " * 40)])
def test_no_line_is_wider_than_110_columns(document):
    lines = evaluation_text(document).splitlines()
    assert max(len(line) for line in lines) <= 110
    assert all(line == line.rstrip() for line in lines)


def test_rows_have_values_with_intervals_and_last_what_the_reference_is_ahead(text):
    flat = [" ".join(line.split()) for line in text.splitlines()]
    at = flat.index("linear probe balanced_accuracy macro_f1 UNI - row")
    assert flat[at + 1] == "UNI 0.860 [0.810, 0.910] 0.830 [0.780, 0.880]"
    assert flat[at + 2] == "ResNet-50 (ImageNet) 0.740 [0.690, 0.790] 0.710 [0.660, 0.760] +0.120 [+0.060, +0.180]"
    assert flat[at + 7] == "texture * 0.600 [0.550, 0.650] 0.570 [0.520, 0.620] +0.260 [+0.200, +0.320]"
    assert flat[at + 8] == "chance 0.125 0.060"
    assert flat[at + 9] == "on the page, further metrics: macro_auc, nll"


def test_counts_prevalence_warnings_and_controls_stand_with_their_chapter(text):
    (chapter,) = [block for block in text.split("\n\n") if block.startswith("Tiles: linear probe of label")]
    flat = " ".join(chapter.split())
    assert "(812 queries, 40 patients, 8 classes; tumour 31 %; stroma, complex 22 %; lympho 15 %; 5 more," in flat
    assert "! UNI: 3 of 5 folds took a setting at an end of the grid." in flat
    assert "! 2 classes occur in fewer than 5 patients" in flat
    assert "! Shuffled labels fall to chance" in flat


def test_few_shot_medians_and_numbers_without_intervals_are_tables(text):
    flat = " ".join(text.split())
    assert "median over episodes, shots 1 2 4 8 16 32 UNI 0.566 0.684" in flat
    assert "without intervals RankMe uniformity UNI 412.7 -2.240" in flat
    assert "my simclr, 40k steps – -2.390" in flat


def test_refusals_stand_at_the_end_and_nothing_measured_is_said(text):
    assert text.split("\n\n")[-1].startswith("Not measured:\n  robustness: There is one site.")
    assert "Slides: retrieval by site (nothing was counted)\n  nothing was measured" in text


def test_one_encoder_alone_has_no_column_of_differences():
    text = evaluation_text(evaluations.alone())
    assert "mine - row" not in text
    assert "last column" not in text
    assert "! n/a (3 patients)" in text
    assert "Not measured" not in text


def test_names_that_take_two_columns_a_character_keep_the_columns_in_line():
    quantities = [Quantity("n", "", {"正常粘膜": 1.0, "正常粘膜" * 9: 2.0, "plain": 20000.0})]
    text = evaluation_text(evaluations.full(chapters=[evaluations.probe_chapter(quantities=quantities, measures=[])]))
    rows = [line for line in text.splitlines() if re.search(r" (1\.000|2\.000|20000)$", line)]
    assert len(rows) == 3
    assert len({columns(line) - len(line.split()[-1]) for line in rows}) == 1


def test_control_characters_of_names_do_not_reach_the_terminal():
    assert "\x1b" not in evaluation_text(evaluations.hostile("case-\x1b[0m"))
