import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histokin.streams import seed64, stream, stream_key

NAMES = st.lists(st.one_of(st.text(st.characters(exclude_characters="\x1f")), st.integers()), max_size=4)


def test_a_stream_never_changes_between_versions() -> None:
    assert stream_key(0, "views", 3) == 0x8DE26ECA72700F6EEB023418A4E31A23
    assert stream(7, "a", 1).integers(0, 1000, 4).tolist() == [290, 89, 257, 890]


@given(st.integers(), NAMES, NAMES)
def test_different_names_give_different_streams(seed: int, first: list, second: list) -> None:
    same = [(type(a), a) for a in first] == [(type(b), b) for b in second]
    assert (stream_key(seed, *first) == stream_key(seed, *second)) == same


def test_order_type_and_seed_count() -> None:
    keys = {stream_key(0, "a", "b"), stream_key(0, "b", "a"), stream_key(0, "ab"), stream_key(0, 1), stream_key(0, "1"),
            stream_key(1, "a", "b"), stream_key(0)}  # fmt: skip
    assert len(keys) == 7


def test_streams_do_not_depend_on_the_order_of_calls() -> None:
    alone = stream(1, "b").standard_normal(8)
    stream(1, "a").standard_normal(100)
    np.random.default_rng(0)
    assert np.array_equal(stream(1, "b").standard_normal(8), alone)


@given(st.integers(), NAMES)
def test_seed64_fits_a_signed_64_bit_integer(seed: int, names: list) -> None:
    assert 0 <= seed64(seed, *names) < 2**63


def test_neighbouring_streams_are_uncorrelated() -> None:
    draws = np.stack([stream(0, "sample", i).standard_normal(400) for i in range(50)])
    correlation = np.corrcoef(draws)[np.triu_indices(50, 1)]
    assert abs(correlation.mean()) < 4 / np.sqrt(400 * len(correlation))
    assert np.abs(correlation).max() < 5.5 / np.sqrt(400)
