import pickle
from pathlib import Path

import pytest

import histokin.errors as module
from histokin.errors import HistokinError, SlideMissing

EVERY = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, HistokinError)]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[HistokinError]) -> None:
    error = kind("it broke", Path("a b/c.svs"), "Mend it.")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.what, back.where, back.remedy) == ("it broke", Path("a b/c.svs"), "Mend it.")
    assert str(back) == str(error)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_says_what_where_remedy_and_code(kind: type[HistokinError]) -> None:
    assert str(kind("it broke", "c.svs", "Mend it.")) == f"c.svs: it broke. Mend it. [{kind.code}]"


def test_codes_are_unique_and_begin_with_their_parents() -> None:
    codes = [kind.code for kind in EVERY]
    assert len(set(codes)) == len(codes)
    leaves = [kind for kind in EVERY if HistokinError not in kind.__bases__ and kind is not HistokinError]
    assert leaves
    assert all(kind.code.startswith(f"{kind.__base__.code}-") for kind in leaves)


def test_no_error_has_a_constructor_of_its_own() -> None:
    assert [kind for kind in EVERY if kind is not HistokinError and "__init__" in vars(kind)] == []


def test_a_missing_slide_reads_as_a_sentence() -> None:
    error = SlideMissing("there is no such file", Path("slides/a.svs"), "Correct the path.")
    assert str(error) == "slides/a.svs: there is no such file. Correct the path. [slide-missing]"
