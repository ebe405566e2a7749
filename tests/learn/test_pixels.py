"""Pixel sources: in memory, joined, in part; rows, numbers and names stay with their pixels, digests with both."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.encoders import load_encoder
from histokin.encoders.card import fingerprint
from histokin.errors import EncoderError, TrainingError
from histokin.learn import override, pretrain
from histokin.learn.pixels import ArrayPixels, JoinedPixels, Labels, Places, SomePixels


def numbered(n: int, first: int, *, px: int = 4, mpp: float = 1.0, slides: np.ndarray | None = None) -> Any:
    """Tiles whose red is their number; slides 0, 0, 1, 1, ...; labels and groups in threes."""
    tiles = np.zeros((n, px, px, 3), np.uint8)
    tiles[..., 0] = np.arange(first, first + n)[:, None, None]
    row = np.arange(n)
    return ArrayPixels(
        tiles,
        mpp,
        row // 2 if slides is None else slides,
        places=Places(np.stack([row, row], 1) * 10.0 + first, np.full(len(row), 10.0)),
        labels=Labels(row % 3 - 1, ("a", "b"), row // 3),
    )


def numbers(tiles: np.ndarray) -> list[int]:
    return tiles[:, 0, 0, 0].tolist()


def test_the_first_column_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, px, px, 3\) uint8 tiles, got \(2, 4, 5, 3\)"):
        ArrayPixels(np.zeros((2, 4, 5, 3), np.uint8), 1.0)
    with pytest.raises(ValueError, match="float64"):
        ArrayPixels(np.zeros((2, 4, 4, 3)), 1.0)
    with pytest.raises(ValueError, match="got 3 for 2"):
        ArrayPixels(np.zeros((2, 4, 4, 3), np.uint8), 1.0, np.arange(3))


def test_tiles_without_slides_are_slides_of_their_own_in_one_cohort() -> None:
    source = ArrayPixels(np.zeros((3, 4, 4, 3), np.uint8), 0.5)
    assert source.slides.tolist() == [0, 1, 2]
    assert source.cohorts.tolist() == [0, 0, 0]
    assert (source.places, source.labels, source.px, source.field_px, len(source)) == (None, None, 4, 4, 3)


def test_wider_regions_state_both_sides() -> None:
    source = ArrayPixels(np.zeros((3, 8, 8, 3), np.uint8), 0.5, px=4)
    assert (source.px, source.field_px) == (4, 8)
    assert source.read(np.array([0, 2])).shape == (2, 8, 8, 3)


CHANGES: dict[str, Callable[[np.ndarray], ArrayPixels]] = {
    "a pixel": lambda t: ArrayPixels(t + (np.arange(3 * 48).reshape(3, 4, 4, 3) == 50).astype(np.uint8), 1.0),
    "their order": lambda t: ArrayPixels(t[::-1], 1.0),
    "mpp": lambda t: ArrayPixels(t, 0.5),
    "slides": lambda t: ArrayPixels(t, 1.0, np.array([0, 0, 1])),
    "side of the tile": lambda t: ArrayPixels(t, 1.0, px=2),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_changes_with(what: str) -> None:
    tiles = np.random.default_rng(0).integers(0, 250, (3, 4, 4, 3), np.uint8)
    assert ArrayPixels(tiles.copy(), 1.0).digest == ArrayPixels(tiles, 1.0).digest
    assert CHANGES[what](tiles).digest != ArrayPixels(tiles, 1.0).digest


def test_joined_sources_give_each_row_its_own_pixels() -> None:
    joined: Any = JoinedPixels([numbered(4, 0), numbered(3, 100), numbered(5, 200)])
    assert len(joined) == 12
    assert numbers(joined.read(np.arange(12))) == [0, 1, 2, 3, 100, 101, 102, 200, 201, 202, 203, 204]
    assert numbers(joined.read(np.array([11, 0, 4, 4, 3]))) == [204, 0, 100, 100, 3]
    assert joined.read(np.array([], np.int64)).shape == (0, 4, 4, 3)


def test_joined_slides_cohorts_and_groups_stay_apart() -> None:
    joined: Any = JoinedPixels([numbered(4, 0), numbered(3, 100)])
    assert joined.slides.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert joined.cohorts.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert joined.labels.groups.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert joined.places.centres_um[4].tolist() == [100, 100]


def test_numbers_of_slides_with_gaps_stay_apart_too() -> None:
    joined: Any = JoinedPixels([numbered(3, 0, slides=np.array([7, 2, 7])), numbered(2, 9, slides=np.array([0, 7]))])
    assert joined.slides.tolist() == [7, 2, 7, 8, 15]


def test_a_class_of_two_cohorts_is_one_and_unlabelled_stays_unlabelled() -> None:
    first, second = numbered(3, 0), numbered(3, 9)
    third: Any = ArrayPixels(np.zeros((2, 4, 4, 3), np.uint8), 1.0)
    first.labels = Labels(np.array([0, 1, -1]), ("stroma", "tumour"), np.zeros(3, np.int64))
    second.labels = Labels(np.array([1, -1, 0]), ("fat", "stroma"), np.zeros(3, np.int64))
    joined: Any = JoinedPixels([first, second, third]).labels
    assert joined.classes == ("fat", "stroma", "tumour")
    assert joined.codes.tolist() == [1, 2, -1, 1, -1, 0, -1, -1]
    assert JoinedPixels([third, third]).labels is None


def test_places_are_known_only_where_all_know_them() -> None:
    bare: Any = ArrayPixels(np.zeros((2, 4, 4, 3), np.uint8), 1.0)
    assert JoinedPixels([numbered(2, 0), bare]).places is None
    wide = numbered(2, 0)
    wide.places = Places(np.zeros((2, 2)), np.full(2, 25.0))
    joined: Any = JoinedPixels([numbered(2, 0), wide])
    assert joined.places.pitch_um.tolist() == [10, 10, 25, 25]


def test_joined_tiles_of_other_size_are_refused_and_of_other_mpp_taken() -> None:
    with pytest.raises(TrainingError, match=r"tiles of 4 and 6 px cannot be trained on together.*one --tile-px"):
        JoinedPixels([numbered(2, 0), numbered(2, 0, px=6)])
    joined: Any = JoinedPixels([numbered(2, 0, mpp=0.5), numbered(3, 0, mpp=1.0), numbered(2, 0, mpp=0.5)])
    assert (joined.mpp, joined.mpps) == (0.5, (0.5, 1.0))  # of most tiles


def test_the_digest_of_joined_sources_knows_their_order() -> None:
    first, second = numbered(2, 0), numbered(2, 5)
    digests = {JoinedPixels(each).digest for each in ([first, second], [second, first], [first, first], [first])}
    assert len(digests) == 4
    assert JoinedPixels([numbered(2, 0), second]).digest in digests


def test_some_rows_keep_what_is_known_of_them_in_the_order_given() -> None:
    rows = np.array([5, 0, 3])
    some: Any = SomePixels(numbered(6, 10), rows)
    assert len(some) == 3
    assert numbers(some.read(np.array([0, 1, 2, 0]))) == [15, 10, 13, 15]
    assert some.slides.tolist() == [2, 0, 1]
    assert some.labels.codes.tolist() == [1, -1, -1]
    assert some.labels.groups.tolist() == [1, 0, 1]
    assert some.places.centres_um[:, 0].tolist() == [60, 10, 40]
    assert (some.px, some.field_px, some.mpp, some.places.pitch_um.tolist()) == (4, 4, 1.0, [10.0] * 3)


def test_the_digest_of_some_rows_knows_which_and_in_what_order() -> None:
    source = numbered(6, 0)
    digests = {SomePixels(source, np.array(rows)).digest for rows in ([0, 1], [1, 0], [0, 2], [0, 1, 2])}
    assert len(digests | {source.digest}) == 5
    assert SomePixels(source, np.array([0, 1], np.int32)).digest in digests


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_some_of_joined_reads_what_a_plain_array_would(sizes: list[int], data: st.DataObject) -> None:
    sources = [numbered(n, 20 * i) for i, n in enumerate(sizes)]
    flat = np.concatenate([source.tiles for source in sources])
    chosen = np.array(data.draw(st.lists(st.integers(0, len(flat) - 1), min_size=1)), np.int64)
    asked = np.array(data.draw(st.lists(st.integers(0, len(chosen) - 1))), np.int64)
    some: Any = SomePixels(JoinedPixels(sources), chosen)
    np.testing.assert_array_equal(some.read(asked), flat[chosen][asked])
    nested = SomePixels(some, np.arange(len(chosen))[::-1])
    np.testing.assert_array_equal(nested.read(np.arange(len(chosen))), flat[chosen[::-1]])


def test_an_encoder_trained_at_several_scales_takes_tiles_of_each_of_them(tmp_path, tiny):
    rng = np.random.default_rng(0)
    fine, coarse = (
        ArrayPixels(rng.integers(0, 255, (n, 32, 32, 3), np.uint8), mpp=mpp) for n, mpp in ((12, 0.5), (8, 1.0))
    )
    joined = JoinedPixels([fine, coarse])
    assert (joined.mpp, joined.mpps) == (0.5, (0.5, 1.0))
    folder = pretrain(joined, override(tiny, ["run.steps=1"]), tmp_path, device="cpu").encoder
    cards = [load_encoder(folder, tile_px=32, mpp=mpp, device="cpu").card for mpp in (0.5, 1.0)]
    assert [card.mpp for card in cards] == [0.5, 1.0]
    assert fingerprint(cards[0]) != fingerprint(cards[1])
    with pytest.raises(EncoderError, match="at 2 mpp"):
        load_encoder(folder, tile_px=32, mpp=2.0, device="cpu")


def test_a_cohort_that_is_kept_out_leaves_no_trace_of_its_scale():
    joined = JoinedPixels([numbered(6, 0, mpp=0.25), numbered(4, 100, mpp=1.0)])
    rest = SomePixels(joined, np.arange(6, 10))
    assert (joined.mpp, joined.mpps, rest.mpp, rest.mpps) == (0.25, (0.25, 1.0), 1.0, (1.0,))
