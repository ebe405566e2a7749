from report import comparisons
from report.comparisons import measure

from histokin.report.comparison.words import protocol_sentence, summary


def test_the_protocol_is_said_in_words():
    assert protocol_sentence(measure(), 700) == (
        "700 tiles of 9 patients; the patient is left out, each in turn, and predicted by what was fitted on the "
        "others; 95 % intervals resample the 9 patients."
    )
    retrieval = {"leave_out": "slide", "n_queries": 20, "n_labelled": 700, "cluster": "slide", "n_clusters": 5}
    assert protocol_sentence(measure(protocol=retrieval), 700) == (
        "20 tiles of 700 ask; the slide of the asking tile is left out, all other labelled tiles answer; 95 % "
        "intervals resample the 5 slides."
    )
    assert protocol_sentence(measure(protocol=retrieval), 700, "slide").startswith("20 slides of 700 ask; the slide of")
    alone = protocol_sentence(measure(protocol={"leave_out": "self", "n_queries": 20}), 700)
    assert alone == "20 tiles of 700 ask; only the asking tile itself is left out, all other labelled tiles answer."
    assert protocol_sentence(measure(protocol={}), 700) == ""


def test_the_summary_names_recipes_budget_and_tasks():
    assert summary(comparisons.full()) == (
        "3 encoders (recipes simclr and byol), trained without labels on tiles of A and B for 40 steps of 64 tiles "
        "each, judged frozen on 1 task beside floors that need no training."
    )
