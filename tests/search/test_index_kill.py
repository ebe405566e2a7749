"""kill -9 of a writer that adds, replaces, deletes and compacts: every reader sees a complete version."""

import multiprocessing
import signal

import numpy as np
import pytest
from search.index_writer import state_after, write
from search.searcher_suite import as_tuples, assert_close, by_loop, entry
from search.test_index import new_index

from histokin.search.index import Index

ROUNDS = 100


@pytest.mark.torture
def test_readers_see_a_complete_version_after_each_of_100_kills(tmp_path):
    folder, progress = new_index(tmp_path / "i", n_lists=8), tmp_path / "progress"
    progress.touch()
    spawner = multiprocessing.get_context("forkserver")
    spawner.set_forkserver_preload(["search.index_writer"])
    rng = np.random.default_rng(0)
    asked = entry("q", 5).vectors
    done = 0
    n_meanwhile = 0
    for _ in range(ROUNDS):
        process = spawner.Process(target=write, args=(folder, progress, done, int(rng.integers(1, 400))))
        process.start()
        while process.is_alive():
            Index(folder).verify()  # while the writer writes
            n_meanwhile += 1
            process.join(0.05)
        assert process.exitcode == -signal.SIGKILL
        index = Index(folder)
        index.verify()
        told = progress.stat().st_size
        states = {n: state_after(n) for n in (told, told + 1)}
        done = told if is_same(index, states[told], asked) else told + 1
        assert is_same(index, states[done], asked)
        with progress.open("ab") as file:
            file.write(b"." * (done - told))
    assert min(done, n_meanwhile) >= ROUNDS  # it wrote, and was read meanwhile


def content(index: Index) -> dict[str, int]:
    return dict(zip(index.slides.slide.tolist(), index.pinned().tile_counts().tolist(), strict=True))


def sizes(slides: dict) -> dict[str, int]:
    return {name: len(slides[name].tile) for name in sorted(slides)}


def is_same(index: Index, slides: dict, asked: np.ndarray) -> bool:
    """Whether an index answers as the loop over these slides."""
    if content(index) != sizes(slides):
        return False
    try:
        assert_close(as_tuples(index, index.search(asked, 20, exact=True)), by_loop(list(slides.values()), asked, 20))
    except AssertionError:
        return False
    return True
