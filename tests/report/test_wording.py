import math

import pytest

from histokin.report import wording
from histokin.report.document import Value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8123, "0.812"),
        (0.0, "0"),
        (-0.5, "−0.500"),
        (0.00042, "0.00042"),
        (3.1e-7, "3.1e−07"),
        (168.23, "168.2"),
        (120.0, "120"),
        (1.0, "1.000"),
        (12345.6, "12,346"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_numbers_are_rounded_for_people(value, text):
    assert wording.number(value) == text


def test_a_small_number_never_reads_as_zero():
    assert wording.number(0.02, 1) == "0.02"
    assert wording.percent(0.004) == "0.4 %"
    assert wording.p_value(1e-9) == "p < 0.001"


@pytest.mark.parametrize(
    ("name", "text"),
    [("mmv_at_5", "mMV@5"), ("acc_at_10", "Acc@10"), ("balanced_accuracy", "balanced accuracy"), ("auroc", "AUROC")],
)
def test_metrics_read_as_the_field_writes_them(name, text):
    assert wording.metric(name) == text


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [(1, "slide", "1 slide"), (0, "slide", "0 slides"), (2, "query", "2 queries"), (3, "key", "3 keys")],
)
def test_counts_agree_with_their_nouns(n, noun, text):
    assert wording.counted(n, noun) == text


def test_differences_carry_their_sign_and_intervals_both_ends():
    assert wording.signed(0.151) == "+0.151"
    assert wording.signed(-0.01) == "−0.010"
    assert wording.interval(Value(0.5, 0.4, 0.6)) == "[0.400, 0.600]"
    assert wording.interval(Value(0.5, 0.4, None)) == ""


def test_undecodable_file_names_and_control_characters_become_encodable():
    hostile = {"a\udcff": ["b\x00c", "d\x1b[31m", "kept\n\tü"]}
    cleaned = wording.clean(hostile)
    assert cleaned == {"a\ufffd": ["b\ufffdc", "d\ufffd[31m", "kept\n\tü"]}
    str(cleaned).encode()


@pytest.mark.parametrize(("seconds", "text"), [(42, "42 s"), (185, "3 min"), (7800, "2 h 10 min"), (None, "–")])
def test_durations_are_in_the_unit_people_use(seconds, text):
    assert wording.duration(seconds) == text
