from dataclasses import replace

import pytest
from report import evaluations

from histokin.report.evaluation.words import counted, left_out, metric_words, prevalence_words, summary


@pytest.mark.parametrize(
    ("metric", "level", "name", "meaning"),
    [
        ("acc@1", "slide", "Acc@1", "Share of slides whose single nearest slide is of the same class."),
        ("acc@5", "tile", "Acc@5", "Share of tiles that have one of their own class among the 5 nearest."),
        ("map@10", "tile", "mAP@10", "Mean average precision of the 10 nearest"),
        ("macro_f1@5", "tile", "Macro F1@5", "Mean over classes of the harmonic mean"),
        ("balanced_accuracy", "slide", "Balanced accuracy", "Mean over classes of the share of slides named right."),
        ("some_new_thing", "tile", "some new thing", ""),
        ("tumour", "tile", "tumour", "The queries of this class alone."),
    ],
)
def test_a_metric_is_named_and_explained_for_what_is_asked(metric, level, name, meaning):
    found = metric_words(metric, evaluations.probe_chapter(level=level))
    assert found[0] == name
    assert found[1].startswith(meaning)
    assert bool(found[1]) == bool(meaning)


def test_counts_are_said_in_number():
    assert counted({"queries": 1, "patients": 2, "classes": 1, "tiles": 8264, "slides": 1}) == [
        "1 query",
        "2 patients",
        "1 class",
        "8,264 tiles",
        "1 slide",
    ]


def test_prevalence_names_the_commonest_and_the_rarest():
    assert prevalence_words({"b": 0.2, "a": 0.5, "": 0.3}) == "a 50 %; unlabelled 30 %; b 20 %"
    assert prevalence_words({"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}) == "a 40 %; b 30 %; c 20 %; d 10 %"
    assert prevalence_words(dict(zip("abcde", [0.5, 0.3, 0.1, 0.08, 0.02], strict=True))) == (
        "a 50 %; b 30 %; c 10 %; 2 more, the rarest 2.0 %"
    )
    assert prevalence_words({}) == ""


def test_the_summary_says_who_was_judged_on_what_and_what_was_left_out():
    document = evaluations.full()
    assert summary(document) == (
        "3 encoders, frozen, judged on 40 slides, 40 patients and 8,264 tiles, beside 4 floors that need no training. "
        "The patient that is asked about is left out of what answers and of what is fitted, where a chapter does not "
        "say otherwise."
    )
    assert summary(replace(document, leave_out="self")).endswith("Only what is asked about is itself left out.")
    assert (left_out("self"), left_out("site"), left_out("")) == ("only the query itself left out", "site left out", "")
