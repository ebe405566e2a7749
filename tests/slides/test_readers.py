import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import tifffile
from worlds import damage_tile, phase_position, png, set_tag, stained, waves

from histokin.errors import SlideError, SlideUnreadable, SlideUnsupported
from histokin.slides import open_slide, picture_size
from histokin.slides.generated import write_pyramid
from histokin.slides.readers import OpenSlideReader, PictureReader, open_reader

ROUGH = stained(150, 200)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# --- which reader ---------------------------------------------------------------------------------------------------


def test_readers_are_chosen_by_content_not_by_name(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "slide.png", stained(300, 300), mpp=0.5)
    write(tmp_path / "picture.svs", png(ROUGH))
    slide, why = open_reader(tmp_path / "slide.png")
    assert isinstance(slide, OpenSlideReader)
    assert "generic-tiff" in why
    slide.close()
    assert isinstance(open_reader(tmp_path / "picture.svs")[0], PictureReader)


# --- OpenSlide ------------------------------------------------------------------------------------------------------


def test_a_pyramid_reads_as_what_was_written(tmp_path: Path) -> None:
    picture = waves(700, 500, 90.0)
    write_pyramid(tmp_path / "a.tiff", picture, mpp=0.25, quality=95)
    reader = OpenSlideReader(tmp_path / "a.tiff")
    region = reader.read(100, 37, 300, 200, 0)
    assert region.shape == (200, 300, 3)
    assert np.abs(region.astype(int) - picture[37:237, 100:400]).mean() < 2.0
    assert reader.stated_mpp == pytest.approx((0.25, 0.25))
    reader.close()


def test_outside_the_slide_is_white(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", np.full((300, 300, 3), 90, np.uint8), mpp=0.5)
    reader = OpenSlideReader(tmp_path / "a.tiff")
    region = reader.read(-50, 280, 100, 40, 0)
    assert (region[:, :50] == 255).all()
    assert (region[20:] == 255).all()
    assert np.abs(region[:20, 50:].astype(int) - 90).max() <= 2
    assert (reader.read(5000, 5000, 4, 4, 0) == 255).all()
    reader.close()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_levels_of_odd_sizes_do_not_drift(tmp_path: Path, level: int) -> None:
    """OpenSlide takes the mean factor of both axes; unmended the last pixels here lie up to 2.8 level px off."""
    write_pyramid(tmp_path / "a.tiff", waves(4443, 700, 640.0), mpp=0.25, quality=98, levels=(1, 2, 4, 16))
    reader = OpenSlideReader(tmp_path / "a.tiff")
    size = reader.levels[level]
    assert size.downsample_x == (2, 4, 16)[level - 1]
    n = min(size.width // 2, 400)
    for start in (0, size.width // 3, size.width - n - 1):
        row = reader.read(int(start * size.downsample_x), 64, n, 1, level)[0, :, 0]
        found = phase_position(row, 640 / size.downsample_x, start + 0.5)
        assert found == pytest.approx(start + 0.5, abs=0.5 / size.downsample_x + 0.1)
    reader.close()


def test_a_handle_that_met_damage_reads_good_places_afterwards(tmp_path: Path) -> None:
    picture = stained(768, 768)
    for name in ("a.tiff", "b.tiff"):
        write_pyramid(tmp_path / name, picture, mpp=0.5)
    damage_tile(tmp_path / "b.tiff", (1, 1))
    whole, damaged = OpenSlideReader(tmp_path / "a.tiff"), OpenSlideReader(tmp_path / "b.tiff")
    for _ in range(2):
        with pytest.raises(SlideUnreadable, match="pixels at 300, 300"):
            damaged.read(300, 300, 50, 50, 0)
        assert np.array_equal(damaged.read(0, 0, 256, 256, 0), whole.read(0, 0, 256, 256, 0))
    whole.close()
    damaged.close()


def test_a_file_that_vanishes_while_it_is_read_is_a_slide_error(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", stained(512, 512), mpp=0.5)
    damage_tile(tmp_path / "a.tiff", (1, 1))
    reader = OpenSlideReader(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").unlink()
    with pytest.raises(SlideUnreadable, match="OpenSlide cannot open it"):
        reader.read(300, 300, 50, 50, 0)


def test_a_header_that_claims_terabytes_ends_no_process(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", stained(300, 300), mpp=0.5)
    set_tag(tmp_path / "a.tiff", 322, 1 << 30)
    code = "import sys; from histokin.slides import open_slide; open_slide(sys.argv[1]).read(0, 0, 9, 9)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.tiff"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1  # OpenSlide would abort: -6
    assert "header claims tiles" in done.stderr


# --- plain pictures -------------------------------------------------------------------------------------------------


def tiff(**options: object) -> bytes:
    import io

    out = io.BytesIO()
    array = options.pop("array", ROUGH)
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


LOSSLESS = {
    "png": partial(png, ROUGH),
    "png 16 bit": cv2.imencode(".png", ROUGH[..., ::-1].astype(np.uint16) * 257)[1].tobytes,
    "tiff": tiff,
    "tiff lzw": partial(tiff, compression="lzw"),
    "tiff deflate": partial(tiff, compression="deflate"),
    "tiff planar": lambda: tiff(array=np.moveaxis(ROUGH, 2, 0), planarconfig="separate", photometric="rgb"),
    "tiff big": partial(tiff, bigtiff=True),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_pictures_come_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p", LOSSLESS[kind]())
    assert picture_size(path) == (200, 150)
    reader = PictureReader(path)
    assert np.array_equal(reader.read(0, 0, 200, 150, 0), ROUGH)
    assert np.array_equal(reader.read(20, 30, 40, 50, 0), ROUGH[30:80, 20:60])


def test_grey_and_jpeg_pictures_become_rgb(tmp_path: Path) -> None:
    grey = ROUGH[..., :1]
    for data in (
        cv2.imencode(".png", grey)[1].tobytes(),
        tiff(array=grey[..., 0]),
        simplejpeg.encode_jpeg(np.ascontiguousarray(grey), colorspace="GRAY", colorsubsampling="Gray", quality=98),
    ):
        pixels = PictureReader(write(tmp_path / "p", data)).read(0, 0, 200, 150, 0)
        assert np.abs(pixels.astype(int) - np.repeat(grey, 3, 2)).max() <= 4


def test_transparent_parts_of_a_png_show_white_glass(tmp_path: Path) -> None:
    rgba = np.dstack([ROUGH, np.full((150, 200), 255, np.uint8)])
    rgba[:10] = 0
    rgba[10:20, :, 3] = 128
    pixels = PictureReader(write(tmp_path / "p", png(rgba))).read(0, 0, 200, 150, 0)
    assert (pixels[:10] == 255).all()
    mixed = ROUGH[10:20] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(pixels[10:20] - mixed).max() <= 0.51
    assert np.array_equal(pixels[20:], ROUGH[20:])


def test_a_plain_picture_has_one_level_and_white_around(tmp_path: Path) -> None:
    reader = PictureReader(write(tmp_path / "p", png(ROUGH)))
    region = reader.read(-5, 145, 20, 20, 0)
    assert (region[:, :5] == 255).all()
    assert (region[5:] == 255).all()
    assert np.array_equal(region[:5, 5:], ROUGH[145:, :15])
    assert (reader.read(900, 900, 3, 3, 0) == 255).all()
    with pytest.raises(ValueError, match="level 0 only"):
        reader.read(0, 0, 1, 1, 1)


def test_16_bit_grey_is_unsupported_and_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "p", tiff(array=ROUGH[..., 0].astype(np.uint16)))
    with pytest.raises(SlideUnsupported, match="8-bit RGB"):
        PictureReader(path)


def test_a_picture_too_large_to_decode_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = bytearray(png(ROUGH))
    header[16:24] = (30000).to_bytes(4, "big") * 2
    with pytest.raises(SlideUnsupported, match=r"30000 x 30000 px would take 2\.7 GB.*tiled pyramidal"):
        PictureReader(write(tmp_path / "p", bytes(header)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", ["png", "tiff", "tiff lzw", "jpeg"])
def test_truncated_pictures_are_unreadable_never_half_grey(kind: str, share: float, tmp_path: Path) -> None:
    data = simplejpeg.encode_jpeg(ROUGH) if kind == "jpeg" else LOSSLESS[kind]()
    with pytest.raises(SlideUnreadable, match=r"truncated|damaged|decoded|neither"):
        PictureReader(write(tmp_path / "p", data[: int(len(data) * share)]))


@pytest.mark.parametrize("kind", ["png", "tiff lzw", "jpeg", "pyramid"])
def test_flipped_bytes_are_read_or_refused_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """The headers and some of the data of sound files, 60 damaged ones a kind."""
    if kind == "pyramid":
        write_pyramid(tmp_path / "whole", stained(300, 300), mpp=0.5)
        data = (tmp_path / "whole").read_bytes()
    else:
        data = simplejpeg.encode_jpeg(ROUGH) if kind == "jpeg" else LOSSLESS[kind]()
    rng = np.random.default_rng(1)
    outcomes = set()
    for i in range(60):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[rng.integers(0, 400 if i % 3 else len(data))] = rng.integers(0, 256)
        try:
            with open_slide(write(tmp_path / "p", bytes(damaged)), 1.0) as slide:
                slide.read(0, 0, 20, 20)
                outcomes.add("read")
        except SlideError as error:
            outcomes.add("refused" if error.remedy else "no remedy")
    assert "refused" in outcomes
    assert "no remedy" not in outcomes


def test_a_level_read_from_outside_the_slide_begins_where_it_was_told(tmp_path: Path) -> None:
    """OpenSlide drops the fraction of a level pixel of negative coordinates: here -4 / 4.0013 would become 0."""
    write_pyramid(tmp_path / "a.tiff", stained(700, 4443), mpp=0.25)
    reader = OpenSlideReader(tmp_path / "a.tiff")
    inside = reader.read(0, 0, 60, 60, 1)
    for left, top in ((1, 0), (0, 1), (3, 5)):
        region = reader.read(-4 * left, -4 * top, 60, 60, 1)
        assert np.array_equal(region[top:, left:], inside[: 60 - top, : 60 - left])
        assert (region[:, :left] == 255).all()
        assert (region[:top] == 255).all()
    assert (reader.read(-400, -400, 50, 50, 1) == 255).all()
    reader.close()
