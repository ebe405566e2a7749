"""The exact searcher keeps the contract of all searchers."""

import numpy as np
import pytest
from search.searcher_suite import MADE, SearcherSuite, as_tuples, assert_close, by_loop, entry

from histokin.search.exact_searcher import ExactSearcher


class TestExactSearcher(SearcherSuite):
    @pytest.fixture
    def make(self):
        return lambda slides: ExactSearcher(MADE, slides)


def test_blocks_and_their_ties_make_no_difference(monkeypatch):
    slides = [entry(name, 70) for name in "abcde"]
    asked = np.concatenate([slide.vectors[:2] for slide in slides])
    monkeypatch.setattr("histokin.search.exact_searcher._ROWS", 13)
    monkeypatch.setattr("histokin.search.exact_searcher._QUERIES", 3)
    searcher = ExactSearcher(MADE, slides)
    for k in (1, 13, 30):
        assert_close(as_tuples(searcher, searcher.search(asked, k)), by_loop(slides, asked, k))
