"""Why an answer is where it is, in sentences: every number from the document, nothing that it does not hold."""

from dataclasses import replace

import pytest
from report import searches

from histokin.errors import SearchError
from histokin.report.search.explaining import explain


def test_a_region_is_explained_by_its_pairs_of_tiles() -> None:
    document = searches.region()
    answer = document.answers[0]
    lines = explain(document, 1).splitlines()
    assert lines[0] == "Rank 1 of 7: slide S2 at (190, 210) of patient P2, carcinoma, score 0.9183."
    assert lines[2] == "The score lies above 99.4 % of random pairs of tiles across patients."
    assert lines[3] == "Of queries of the archive's own kind, a share of 0.512 comes no nearer to others."
    assert lines[4] == "5 of 9 pairs of tiles carry 77% of the score:"  # .31 + .22 + .14 + .08 + .02
    shown = sorted(answer.evidence, key=lambda pair: -pair.share)[:5]
    for line, pair in zip(lines[5:10], shown, strict=True):
        query, met = pair.query.box, pair.answer.box
        assert line.strip().startswith(f"query ({query.x}, {query.y}) met ({met.x}, {met.y}): {pair.score:.4f}, share")
    assert lines[10] == "Could not answer: patient P1, whose the query is (3 slides)."
    assert len(lines) == 11


def test_the_greatest_shares_come_first_whatever_the_order_of_the_pairs() -> None:
    document = searches.region()
    answer = replace(document.answers[0], evidence=document.answers[0].evidence[::-1])
    turned = replace(document, answers=[answer, *document.answers[1:]])
    assert "share 31%" in explain(turned, 1).splitlines()[5]
    assert "share 31%" in explain(document, 1).splitlines()[5]


def test_a_slide_is_named_with_its_strategy_and_a_tile_with_its_number() -> None:
    assert explain(searches.slide(), 2).startswith(
        "Rank 2 of 2: slide S3 of patient P3, inflammation, score 0.7000, by "
    )
    assert ", by maxsim." in explain(searches.slide(), 2)
    document = searches.tile()
    first = replace(document.answers[0], tile=17)
    said = explain(replace(document, answers=[first]), 1)
    assert f"slide S2, tile 17 at ({first.box.x}, {first.box.y}) of patient P2, carcinoma" in said


def test_the_label_is_that_of_the_column_that_names_the_answers() -> None:
    document = searches.region()
    by_site = replace(document, by_patient=document.by_patient[::-1])
    assert "of patient P2, B, score" in explain(by_site, 1)
    assert "of patient P2, score" in explain(replace(document, by_patient=[]), 1)


def test_what_was_not_measured_is_not_told() -> None:
    document = searches.tile()
    bare = replace(document.answers[0], patient="", labels={}, box=None, percentile=None, p=None, evidence=[])
    said = explain(replace(document, answers=[bare]), 1)
    assert said.splitlines()[0] == "Rank 1 of 1: slide S2, score 0.9183."
    for word in ("random pairs", "share", "pairs of tiles", "Could not answer", "None", "nan"):
        assert word not in said


def test_one_pair_is_told_in_the_singular() -> None:
    document = searches.region()
    one = replace(document.answers[0], evidence=document.answers[0].evidence[:1])
    assert "1 of 1 pair of tiles carries 31% of the score:" in explain(replace(document, answers=[one]), 1)


@pytest.mark.parametrize("rank", [0, 8, -1])
def test_a_rank_that_nobody_has_is_refused_with_those_there_are(rank: int) -> None:
    with pytest.raises(SearchError, match=f"no answer has rank {rank}. The search has 7 answers, ranked from 1"):
        explain(searches.region(), rank)


def test_a_search_without_answers_explains_none() -> None:
    with pytest.raises(SearchError, match=r"no answer has rank 1. The search has 0 answers"):
        explain(searches.picture(), 1)
