"""Any sequence of additions, deletions and compactions leaves what a dictionary of slides would."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from search.searcher_suite import MADE, as_tuples, assert_close, by_loop, entry, queries_of
from search.test_index import new_index

from histokin.search.index import Index, add_slides, compact, delete_slides, retrain

NAMES = st.sampled_from("abcdef")
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(st.tuples(NAMES, st.integers(0, 25)), max_size=3, unique_by=lambda s: s[0])),
    st.tuples(st.just("delete"), st.lists(NAMES, max_size=3, unique=True)),
    st.tuples(st.just("compact"), st.booleans()),
    st.tuples(st.just("retrain"), st.integers(0, 3)),
)


@settings(max_examples=8)
@given(st.lists(STEPS, min_size=2, max_size=7))
def test_an_index_holds_what_a_dictionary_would(steps):
    slides = {}
    with tempfile.TemporaryDirectory() as folder:
        path = new_index(Path(folder) / "i", n_lists=8)
        index = Index(path)
        for number, (verb, what) in enumerate(steps):
            if verb == "add":
                added = [entry(name, n, f"p{name}", seed=number) for name, n in what]
                done = add_slides(path, MADE, added, segment_rows=30)
                assert set(done.replaced) == {slide.slide for slide in added} & slides.keys()
                slides |= {slide.slide: slide for slide in added}
            elif verb == "delete":
                gone = [name for name in what if name in slides]
                assert delete_slides(path, gone).slides == len(gone)
                slides = {name: slide for name, slide in slides.items() if name not in gone}
            elif verb == "compact":
                compact(path, whole=what)
            else:
                retrain(path, seed=what)
            index.refresh()
            assert index.slides.slide.tolist() == sorted(slides)
            assert index.pinned().tile_counts().tolist() == [len(slides[name].tile) for name in sorted(slides)]
        index.verify()
        living = list(slides.values())
        asked = queries_of(living, 3) if sum(len(s.tile) for s in living) else np.ones((2, 12))
        for field in ("tiles", "mosaics"):
            found = index.search(asked, 6, field=field, exact=True)
            assert_close(as_tuples(index, found), by_loop(living, asked, 6, field=field))
