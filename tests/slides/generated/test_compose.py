import numpy as np

from histokin.slides.generated import GeneratedSlideSpec
from histokin.slides.generated.cells import Cells
from histokin.slides.generated.compose import Painter
from histokin.slides.generated.noise import Grid, smooth_noise
from histokin.slides.generated.nuclei import LYMPHOCYTE, Plane, make_red_cells, make_stamps
from histokin.slides.generated.stain import patient_style, scanner_style
from histokin.streams import stream

POSITIVE = (
    *("haematoxylin", "eosin", "fibre", "granule", "fill_h", "fill_e"),
    *("ring_h", "ring_e", "fat", "nuclear", "ink"),
)


def paint(block: tuple[int, int], width: int = 333, height: int = 270) -> np.ndarray:
    spec = GeneratedSlideSpec(width=width, height=height)
    grid, rng = Grid.over(width, height, spec.mpp), stream(0, "compose")
    layers = {name: 0.3 * np.abs(smooth_noise(rng, grid, 40.0)) for name in POSITIVE}
    layers |= {name: 8 * smooth_noise(rng, grid, 40.0) for name in ("void_um", "ring_um", "fat_wall_um")}
    layers |= {name: 900 * smooth_noise(rng, grid, 200.0) for name in ("u", "v")}
    layers["is_tissue"] = np.ones(grid.shape, np.float32)
    planes = []
    for stamps in (make_stamps(rng, LYMPHOCYTE, spec.mpp, 4), make_red_cells(rng, spec.mpp, 4)):
        plane = Plane(width, height, spec.mpp)
        plane.stamp_any(rng, rng.uniform(0, 130, (150, 2)), stamps)
        planes.append(plane)
    painter = Painter(
        rng,
        spec,
        grid,
        layers=layers,
        cells=Cells(*planes, np.zeros(grid.shape, np.float32)),
        ink_colour=np.ones(3, np.float32),
        stains=patient_style(0, 0, 0.3).stains,
        scanner=scanner_style(0, 0),
        block=block,
    )
    return painter.paint()


def test_blocks_leave_no_seams():
    one_piece = paint((512, 512))
    for block in ((64, 512), (64, 64), (20, 36)):
        # rounding of the last float bit may differ with the vector length, a seam would not be one level
        assert np.abs(paint(block).astype(int) - one_piece).max() <= 1, block


def test_the_picture_uses_the_whole_range():
    pixels = paint((64, 512))
    assert pixels.min() < 60
    assert pixels.max() > 200
