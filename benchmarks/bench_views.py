"""Views in fused batches against the loop over pictures one would write with torchvision and Pillow, in one run.

    python benchmarks/bench_views.py [--tiles 64] [--px 160] [--repeats 5]

Both do the same operations with the same strengths; their random numbers differ. The loop takes what the libraries give
(Pillow for geometry, colour, blur; NumPy for stain in optical density, OpenCV for stain in LAB). Contenders alternate;
minimum of the repeats. Prints views a second and the ratio of times; writes benchmarks/results/views.json.
"""

import argparse
import dataclasses
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as T  # noqa: N812 - short for the many names below

from histokin.artefacts import versions, write_json
from histokin.learn.recipe import TISSUE_MEAN, TISSUE_STD, LocalViewSpec, ViewSpec, per_view
from histokin.learn.stains import StainTemplates
from histokin.learn.views import STAINS, UNSTAINING, local_spec, make_views, plan_views
from histokin.slides.generated import GeneratedSlideSpec, render_slide

RESULTS = Path(__file__).parent / "results"
# Of colorectal H&E, LAB by slide: see the table in histokin/tissue/colour.py.
TEMPLATES = StainTemplates(
    np.array([59.0, 43.0, -27.0]), np.array([7.0, 6.0, 3.5]), np.array([15.0, 11.0, 10.0]), np.array([2.0, 1.8, 1.0])
)
DEFAULT = ViewSpec(train_px=96, embed_px=128, mean=TISSUE_MEAN, std=TISSUE_STD)
SETTINGS = {
    "simclr defaults": DEFAULT,
    "with hue, saturation, blur .5": dataclasses.replace(DEFAULT, saturation=0.2, hue=0.05, blur=0.5),
    "RandStainNA": dataclasses.replace(DEFAULT, stain="lab"),
    "dino 2 + 6": dataclasses.replace(
        DEFAULT,
        saturation=0.2,
        hue=0.05,
        jitter_p=0.8,
        stain_p=0.5,
        blur=(1.0, 0.1, 0.5),
        local=LocalViewSpec(count=6, px=48),
    ),
}


class StainInDensity:
    """Gain and offset of haematoxylin, eosin and residual of one picture."""

    def __init__(self, spec: ViewSpec, rng: np.random.Generator) -> None:
        self._spec, self._rng = spec, rng

    def __call__(self, picture: Image.Image) -> Image.Image:
        if self._rng.random() >= self._spec.stain_p:
            return picture
        density = -np.log((np.asarray(picture, np.float32) + 1) / 256)
        gain = 1 + self._spec.stain_gain * self._rng.uniform(-1, 1, 3)
        stain = density.reshape(-1, 3) @ UNSTAINING * gain + self._spec.stain_offset * self._rng.uniform(-1, 1, 3)
        light = 256 * np.exp(-stain @ STAINS) - 1
        return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8).reshape(np.asarray(picture).shape))


class StainInLab:
    """RandStainNA of one picture, all of its pixels alike."""

    def __init__(self, spec: ViewSpec, rng: np.random.Generator) -> None:
        self._spec, self._rng = spec, rng

    def __call__(self, picture: Image.Image) -> Image.Image:
        lab = cv2.cvtColor(np.asarray(picture, np.float32) / 255, cv2.COLOR_RGB2Lab)
        want = TEMPLATES.draw(self._rng.standard_normal((1, 2, 3)), 1 + self._spec.stain_gain)[0]
        lab = (lab - lab.mean((0, 1))) / lab.std((0, 1)) * want[1] + want[0]
        light = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB)
        return Image.fromarray((light * 255).astype(np.uint8))


def picture_transforms(spec: ViewSpec, px: int, view: int, rng: np.random.Generator) -> T.Compose:
    """What one would write for one view."""
    side = int(spec.train_px)
    scale = tuple(min(1.0, (zoom * side / px) ** 2) for zoom in (spec.zoom_min, spec.zoom_max))
    jitter = T.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    quarters = [T.Lambda(lambda x: x), *(T.Lambda(lambda x, k=k: x.transpose(k)) for k in _QUARTERS)]
    steps = [
        T.RandomResizedCrop(side, scale, ((1 - spec.aspect) ** 2, (1 + spec.aspect) ** 2)),
        T.RandomHorizontalFlip(),
        T.RandomChoice(quarters),
        StainInLab(spec, rng) if spec.stain == "lab" else StainInDensity(spec, rng),
        T.RandomApply([jitter], spec.jitter_p),
        T.RandomGrayscale(spec.grey),
    ]
    if chance := per_view(spec.blur, view + 1)[view]:
        radius = 2 * math.ceil(3 * spec.blur_sigma) + 1
        steps.append(T.RandomApply([T.GaussianBlur(radius, (0.1, spec.blur_sigma))], chance))
    return T.Compose([*steps, T.ToTensor(), T.Normalize(spec.mean, spec.std)])


_QUARTERS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def in_a_loop(pictures: list[Image.Image], views: list[T.Compose]) -> list[Tensor]:
    return [torch.stack([torch.as_tensor(view(picture)) for picture in pictures]) for view in views]


def fused(tiles: Tensor, spec: ViewSpec, step: int) -> list[Tensor]:
    px, samples = tiles.shape[1], np.arange(len(tiles))
    plan = plan_views(spec, px, seed=0, step=step, samples=samples, templates=TEMPLATES)
    made = [make_views(tiles, plan, spec)]
    if spec.local.count:
        small = local_spec(spec)
        n, purpose = spec.local.count, "local views"
        plan = plan_views(
            small, px, seed=0, step=step, samples=samples, n_views=n, purpose=purpose, templates=TEMPLATES
        )
        made.append(make_views(tiles, plan, small))
    return made


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(spec: ViewSpec, tiles: np.ndarray, repeats: int) -> dict[str, float]:
    """Times of both, in turn, and how they compare."""
    rng, px = np.random.default_rng(0), tiles.shape[1]
    on_device, pictures = torch.from_numpy(tiles), [Image.fromarray(tile) for tile in tiles]
    views = [picture_transforms(spec, px, view, rng) for view in range(2)]
    if spec.local.count:
        small = local_spec(spec)
        views += [picture_transforms(small, px, view, rng) for view in range(spec.local.count)]
    loop, batch = [], []
    fused(on_device, spec, 0)  # the first call sets threads up
    for step in range(repeats):
        loop.append(seconds(lambda: in_a_loop(pictures, views)))
        batch.extend(seconds(lambda at=3 * step + k: fused(on_device, spec, at)) for k in range(3))
    (loop_wall, loop_cpu), (wall, cpu) = np.min(loop, axis=0), np.min(batch, axis=0)
    n_views = len(tiles) * len(views)
    return {
        "n_views": n_views,
        "loop_wall_s": float(loop_wall),
        "loop_cpu_s": float(loop_cpu),
        "fused_wall_s": float(wall),
        "fused_cpu_s": float(cpu),
        "fused_views_per_s": n_views / float(wall),
        "loop_views_per_s": n_views / float(loop_wall),
        "wall_ratio": float(loop_wall / wall),
        "cpu_ratio": float(loop_cpu / cpu),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    for name, value in (("tiles", 64), ("px", 160), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    across = math.ceil(math.sqrt(a.tiles))
    slide = render_slide(GeneratedSlideSpec(width=across * a.px, height=across * a.px, mpp=1.0, seed=1)).rgb
    cut = [slide[y * a.px :, x * a.px :][: a.px, : a.px] for y in range(across) for x in range(across)]
    tiles = np.ascontiguousarray(np.stack(cut[: a.tiles]))
    found = {name: measure(spec, tiles, a.repeats) for name, spec in SETTINGS.items()}
    for name, r in found.items():
        print(
            f"{name:<32} fused {r['fused_views_per_s']:7.0f} views/s, loop {r['loop_views_per_s']:6.0f}; "
            f"faster x{r['wall_ratio']:5.2f} wall, x{r['cpu_ratio']:5.2f} cpu"
        )
    result = {
        "inputs": vars(a),
        "settings": found,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }
    write_json(RESULTS / "views.json", result)


if __name__ == "__main__":
    main()
