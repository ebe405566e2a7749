import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from worlds import Exact, glass, png, stained, waves

from histokin.errors import NoResolution, SlideMissing, SlideUnreadable, SlideUnsupported
from histokin.slides import content_key, open_slide
from histokin.slides.generated import write_pyramid
from histokin.slides.slide import Slide


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s") / "a.tiff"
    write_pyramid(path, stained(700, 1000), mpp=0.5)
    return path


def test_info_says_what_the_file_says(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        info = slide.info
    assert (info.width, info.height, info.mpp_source, info.vendor, info.reader) == (
        1000, 700, "file", "generic-tiff", "openslide",
    )  # fmt: skip
    assert info.mpp == pytest.approx((0.5, 0.5))
    assert [level.downsample_x for level in info.levels] == [1.0, 4.0]


def test_the_users_mpp_overrides_the_files(pyramid: Path) -> None:
    with open_slide(pyramid, 0.3) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == ((0.3, 0.3), "user")


def test_without_mpp_a_slide_opens_and_what_needs_one_refuses(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(stained(50, 60)))
    with open_slide(tmp_path / "a.png") as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (None, "none")
        assert slide.thumbnail(max_px=30).shape == (25, 30, 3)
        with pytest.raises(NoResolution, match="--mpp"):
            slide.thumbnail(mpp=8)


@pytest.mark.parametrize("mpp", [0.0, -0.5, 352.8, 1000.0, float("nan")])
def test_an_impossible_mpp_is_refused(pyramid: Path, mpp: float) -> None:
    with pytest.raises(SlideUnsupported, match="cannot be"):
        open_slide(pyramid, mpp)


def test_what_is_no_slide_file_says_why(tmp_path: Path) -> None:
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(SlideMissing, match="no such file"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(SlideMissing, match="no such file"):
        open_slide(tmp_path / "loop.svs")
    with pytest.raises(SlideUnsupported, match="a folder"):
        open_slide(tmp_path)
    with pytest.raises(SlideUnsupported, match="no ordinary file"):
        open_slide(tmp_path / "pipe.svs")  # reading it would wait for ever
    with pytest.raises(SlideUnreadable, match="cannot be read"):
        open_slide("/proc/self/mem")


def test_a_slide_is_picklable_by_its_path(pyramid: Path) -> None:
    with open_slide(pyramid, 0.3) as slide, pickle.loads(pickle.dumps(slide)) as other:
        assert other.info == slide.info
        assert np.array_equal(other.read(10, 10, 5, 5), slide.read(10, 10, 5, 5))


@pytest.mark.parametrize("name", ["a b.tiff", "ä-🧬.tiff", "'q\".tiff", "two\nlines.tiff", "-dash.tiff", "50%.tiff"])
def test_odd_file_names_open(name: str, pyramid: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pyramid.read_bytes())
    with open_slide(tmp_path / name) as slide:
        assert slide.info.width == 1000


# --- thumbnails -----------------------------------------------------------------------------------------------------


def in_memory(levels: list[np.ndarray], mpp: float = 0.5) -> Slide:
    exact = Exact(levels, mpp)
    return Slide(Path("memory"), exact, exact.info, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [1, 2, 5, 16])
def test_a_thumbnail_is_the_exact_box_average(factor: int) -> None:
    picture = stained(320, 480)
    small = in_memory([picture]).thumbnail(mpp=0.5 * factor)
    boxes = picture.reshape(320 // factor, factor, 480 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(small - boxes).max() <= 0.51


def test_strips_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = stained(333, 251)
    whole = in_memory([picture]).thumbnail(mpp=1.5)
    monkeypatch.setattr("histokin.slides.slide._STRIP_PIXELS", 251 * 31)
    monkeypatch.setattr("histokin.slides.slide._STRIP_ROWS", 1)
    slide = in_memory([picture])
    assert np.array_equal(slide.thumbnail(mpp=1.5), whole)
    assert slide._reader.n_reads == 12


def test_the_smallest_sufficient_level_is_read() -> None:
    picture = waves(1600, 800, 400.0)
    quarter = picture.reshape(200, 4, 400, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
    marked = quarter.copy()
    marked[..., 2] = 7
    slide = in_memory([picture, marked])
    assert (slide.thumbnail(mpp=4.0)[..., 2] == 7).all()
    assert (slide.thumbnail(mpp=1.0)[..., 2] == 128).all()


def test_thumbnail_positions_are_true_at_odd_sizes() -> None:
    """1003 px at a factor of 8: a bright bar stays where it is, to a pixel of the thumbnail."""
    picture = np.zeros((64, 1003, 3), np.uint8)
    picture[:, 800:816] = 255
    small = in_memory([picture]).thumbnail(mpp=4.0)
    centre = (small[0, :, 0] * (np.arange(small.shape[1]) + 0.5)).sum() / small[0, :, 0].sum()
    assert centre * 1003 / small.shape[1] == pytest.approx(808, abs=8)


@pytest.mark.parametrize(("max_px", "shape"), [(100, (70, 100)), (1, (1, 1)), (5000, (700, 1000))])
def test_max_px_bounds_the_longer_side_and_never_enlarges(pyramid: Path, max_px: int, shape: tuple) -> None:
    with open_slide(pyramid) as slide:
        assert slide.thumbnail(max_px=max_px).shape[:2] == shape


def test_a_thumbnail_needs_exactly_one_size(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        for sizes in ({}, {"mpp": 8.0, "max_px": 10}):
            with pytest.raises(ValueError, match="either mpp or max_px"):
                slide.thumbnail(**sizes)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (17, 3)])
def test_the_tiniest_slides_have_a_thumbnail(size: tuple[int, int]) -> None:
    small = in_memory([glass(*size)]).thumbnail(mpp=8.0)
    assert small.shape == (max(1, round(size[0] / 16)), max(1, round(size[1] / 16)), 3)


# --- identity -------------------------------------------------------------------------------------------------------


def test_a_content_key_does_not_depend_on_name_or_time(pyramid: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other.svs"
    copy.write_bytes(pyramid.read_bytes())
    os.utime(copy, (0, 0))
    with open_slide(pyramid) as slide:
        key = content_key(pyramid, slide.info)
        assert content_key(copy, slide.info) == key
        for place in (0, copy.stat().st_size // 2, -1):
            changed = bytearray(pyramid.read_bytes())
            changed[place] ^= 1
            copy.write_bytes(changed)
            assert content_key(copy, slide.info) != key
