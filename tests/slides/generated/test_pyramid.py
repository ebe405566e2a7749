import io

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histokin.slides.generated import GeneratedSlideSpec, render_slide, write_pyramid


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([120 + 60 * np.sin(x / 40), 130 + 60 * np.cos(y / 30), 200 - 0.1 * x], axis=-1).astype(np.uint8)


class Mirrored:
    """Rows of a taller picture, made when asked for."""

    def __init__(self, tile: np.ndarray, times: int) -> None:
        self.tile, self.shape, self.asked = tile, (len(tile) * times, *tile.shape[1:]), []

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.asked.append((rows.start, rows.stop))
        y = np.arange(rows.start, min(rows.stop, self.shape[0]))
        n = len(self.tile)
        return self.tile[np.where(y // n % 2, n - 1 - y % n, y % n)]


@pytest.fixture(scope="module")
def tissue():
    return render_slide(GeneratedSlideSpec(width=1100, height=900)).rgb


def test_openslide_sees_resolution_levels_and_pixels(tmp_path, tissue):
    write_pyramid(tmp_path / "a.tiff", tissue, mpp=0.5, quality=90, levels=(1, 2, 4, 8))
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        assert slide.level_dimensions == ((1100, 900), (550, 450), (275, 225), (137, 112))
        assert slide.level_downsamples == pytest.approx((1, 2, 4, 8), rel=0.01)
        pixels = np.asarray(slide.read_region((0, 0), 0, (1100, 900)))
        small = np.asarray(slide.read_region((0, 0), 2, (275, 225)))[..., :3].astype(int)
    assert (pixels[..., 3] == 255).all()
    assert np.abs(pixels[..., :3].astype(int) - tissue).mean() < 4
    box = tissue.reshape(225, 4, 275, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - box).mean() < 6
    assert abs((small - box).mean()) < 0.5


def test_levels_are_exact_box_averages(tmp_path):
    """On a picture constant in blocks of 64 px, nothing is lost to JPEG but rounding."""
    blocks = np.random.default_rng(0).integers(40, 220, (9, 11), np.uint8)
    picture = np.repeat(np.kron(blocks, np.ones((64, 64), np.uint8))[..., None], 3, axis=2)
    write_pyramid(tmp_path / "a.tiff", picture, mpp=1.0, quality=100, levels=(1, 4))
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        small = np.asarray(slide.read_region((0, 0), 1, slide.level_dimensions[1]))[..., :3].astype(int)
    assert np.abs(small - picture[::4, ::4]).max() <= 2


def test_edge_tiles_are_padded_with_the_edge_not_with_black(tmp_path):
    white = np.full((300, 300, 3), 240, np.uint8)
    write_pyramid(tmp_path / "a.tiff", white, mpp=0.5)
    with tifffile.TiffFile(tmp_path / "a.tiff") as tiff:
        tiles = list(_tiles(tiff))
    for tile in tiles:
        assert tile.shape == (256, 256, 3)
        assert tile.min() >= 238


def _tiles(tiff):
    from PIL import Image

    page = tiff.pages[0]
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        tiff.filehandle.seek(offset)
        yield np.asarray(Image.open(io.BytesIO(tiff.filehandle.read(count))))


def test_bytes_depend_on_the_arguments_alone(tmp_path, tissue):
    for name, quality in (("a", 85), ("b", 85), ("c", 70)):
        write_pyramid(tmp_path / f"{name}.tiff", tissue, mpp=0.5, quality=quality)
    a, b, c = ((tmp_path / f"{name}.tiff").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    tile=st.sampled_from([64, 128, 256]),
    levels=st.sampled_from([(1,), (1, 2), (1, 3, 5), (1, 4, 16)]),
)
def test_any_size_comes_back(tmp_path, height, width, tile, levels):
    picture = smooth_picture(height, width)
    write_pyramid(tmp_path / "a.tiff", picture, mpp=0.25, quality=95, tile=tile, levels=levels)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert slide.dimensions == (width, height)
        expected = [d for d in levels if d == 1 or (max(width, height) >= 128 * d and min(width, height) >= d)]
        assert slide.level_dimensions == tuple((width // d, height // d) for d in expected)
        for level, downsample in enumerate(expected):
            w, h = slide.level_dimensions[level]
            pixels = np.asarray(slide.read_region((0, 0), level, (w, h)))
            assert (pixels[..., 3] == 255).all()
            crop = picture[: h * downsample, : w * downsample].reshape(h, downsample, w, downsample, 3)
            assert np.abs(pixels[..., :3] - crop.mean(axis=(1, 3))).mean() < 5


def test_a_source_of_rows_gives_the_same_file_as_the_array_and_is_read_once(tmp_path):
    rows = Mirrored(smooth_picture(210, 520), times=5)
    write_pyramid(tmp_path / "rows.tiff", rows, mpp=0.5)
    write_pyramid(tmp_path / "array.tiff", rows[0:1050], mpp=0.5)
    assert (tmp_path / "rows.tiff").read_bytes() == (tmp_path / "array.tiff").read_bytes()
    assert rows.asked[:-1] == [(y, y + 256) for y in range(0, 1050, 256)]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((10, 10), {}, r"need \(height, width, 3\) pixels, got \(10, 10\)"),
        ((10, 10, 4), {}, r"need \(height, width, 3\)"),
        ((10, 10, 3), {"tile": 100}, r"tile must be a multiple of 16, got 100"),
        ((10, 10, 3), {"levels": (2, 4)}, r"levels must ascend from 1, got \(2, 4\)"),
        ((10, 10, 3), {"levels": (1, 4, 4)}, r"levels must ascend"),
        ((10, 10, 3), {"mpp": 0.0}, r"mpp must be above 0"),
    ],
)
def test_impossible_files_are_refused_and_leave_nothing(tmp_path, shape, options, message):
    with pytest.raises(ValueError, match=message):
        write_pyramid(tmp_path / "a.tiff", np.zeros(shape, np.uint8), **({"mpp": 0.5} | options))
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_half_way_leaves_nothing(tmp_path):
    class Broken(Mirrored):
        def __getitem__(self, rows: slice) -> np.ndarray:
            return super().__getitem__(rows).astype(np.float32 if rows.start >= 512 else np.uint8)

    with pytest.raises(ValueError, match=r"rows 512 to 768 are float32"):
        write_pyramid(tmp_path / "a.tiff", Broken(smooth_picture(210, 300), times=5), mpp=0.5)
    assert list(tmp_path.iterdir()) == []
