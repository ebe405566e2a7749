"""A training step, data included, against the same step on ready views and against the loop one would write.

    python benchmarks/bench_training.py [--tiles 512] [--px 160] [--batch 64] [--steps 8] [--rounds 4]

ResNet-18, 96 px views, SimCLR, two threads, generated tiles. Ours is what `pretrain` does: tiles from the packs of a
workspace, read ahead by a thread, views in one batch. `ready` has its views in memory and does forward, backward and
update only. The loop is a torch DataLoader over the same tiles as JPEG files with Pillow and torchvision's transforms,
with no and with two workers. All have the same network, loss, optimiser, batch and precision; ours jitters the stain on
top of what the loop does. Contenders alternate, each a block of steps at a time; the minimum over the rounds counts.

On a machine that others use, OMP_WAIT_POLICY=PASSIVE keeps threads that wait from taking the time of those that work.

With CUDA also: ResNet-50, 224 px, bf16, images a second against forward, backward and update on views on the device.
Writes benchmarks/results/training.json and fails where a floor is missed.
"""

import argparse
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T  # noqa: N812 - short for the many names below

from histokin.artefacts import versions, write_json
from histokin.learn import PixelSource, Recipe, override, read_recipe, resolve_recipe
from histokin.learn.distributed import World
from histokin.learn.methods import METHODS, Batch
from histokin.learn.precision import choose_precision, computing_in
from histokin.learn.recipe import ViewSpec, settled
from histokin.learn.steps import Setting, Share, make_batch, new_state, read_ahead, train_step
from histokin.learn.trainer import shares_of
from histokin.pipeline.packing import training_pixels
from histokin.pipeline.stages import tile
from histokin.slides.generated import GeneratedSlideSpec, render_slide
from histokin.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
READY = 4  # ready batches in memory
# Floors: time of a step over that on ready views; over that of the best loop; CPU time of data over the loop's.
MOST_OVER_READY, MOST_OVER_LOOP, MOST_CPU_OVER_LOOP, LEAST_ON_CUDA = 1.15, 1.0, 0.5, 0.85
# What both do with colour; the shipped recipe's stain jitter comes on top of it in ours.
COLOUR = ("views.saturation=0.2", "views.hue=0.05", "views.jitter_p=0.8")


class TileFiles(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each tile, decoded and transformed one picture at a time."""

    def __init__(self, paths: Sequence[Path], view: Callable[[Image.Image], Tensor]) -> None:
        self._paths, self._view = paths, view

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self._paths[index]) as file:
            picture = file.convert("RGB")
        return self._view(picture), self._view(picture)


def picture_transforms(spec: ViewSpec, px: int) -> T.Compose:
    """What one would write for a view."""
    side = settled(spec.train_px, "views.train_px")
    scale = ((spec.zoom_min * side / px) ** 2, min(1.0, (spec.zoom_max * side / px) ** 2))
    jitter = T.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    return T.Compose(
        [
            T.RandomResizedCrop(side, scale, ((1 - spec.aspect) ** 2, (1 + spec.aspect) ** 2)),
            T.RandomHorizontalFlip(),
            T.RandomVerticalFlip(),
            T.RandomApply([jitter], spec.jitter_p),
            T.RandomGrayscale(spec.grey),
            T.ToTensor(),
            T.Normalize(settled(spec.mean, "views.mean"), settled(spec.std, "views.std")),
        ]
    )


def write_tiles(folder: Path, n: int, px: int) -> list[Path]:
    """Cut a generated slide into JPEG files, as good as the packs' own: both have as much to decode."""
    across = int(np.ceil(np.sqrt(n)))
    slide = render_slide(GeneratedSlideSpec(width=across * px, height=across * px, mpp=1.0, seed=1)).rgb
    (folder / "tissue").mkdir(parents=True)
    paths = [folder / "tissue" / f"{i:04d}.jpg" for i in range(n)]
    for i, path in enumerate(paths):
        y, x = divmod(i, across)
        Image.fromarray(slide[y * px : (y + 1) * px, x * px : (x + 1) * px]).save(path, quality=95, subsampling=0)
    return paths


class Ours:
    """Steps as `pretrain` takes them."""

    def __init__(self, source: PixelSource, setting: Setting) -> None:
        self._state, self._setting = new_state(setting, source), setting
        self._pixels = read_ahead(source, all_shares(source, setting.recipe))

    def run(self, n_steps: int) -> None:
        for share, tiles in itertools.islice(self._pixels, n_steps):
            train_step(self._state, share, tiles, self._setting)

    def close(self) -> None:
        self._pixels.close()


class Ready:
    """Forward, backward and update on batches that come from an iterator of views."""

    def __init__(self, source: PixelSource, setting: Setting, views: Iterator[Tensor]) -> None:
        self._state, self._setting, self._views = new_state(setting, source), setting, views

    def run(self, n_steps: int) -> None:
        method, optimiser = self._state.method, self._state.optimiser
        precision = "bf16" if self._setting.recipe.precision == "bf16" else "fp32"
        for views in itertools.islice(self._views, n_steps):
            with computing_in(precision, self._setting.device):
                loss = method.loss(as_batch(views))["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def close(self) -> None:
        pass


def as_batch(views: Tensor) -> Batch:
    """Two views of each tile as a method takes them."""
    n = len(views) // 2
    return Batch(views, None, torch.arange(n), None, 0, 1)


def all_shares(source: PixelSource, recipe: Recipe) -> Iterator[Share]:
    """The shares of a run without end."""
    return shares_of(METHODS[recipe.method].sampler(source, recipe), itertools.count(), World())


def ready_views(source: PixelSource, setting: Setting) -> list[Tensor]:
    """The views of a run's first steps."""
    shares = itertools.islice(all_shares(source, setting.recipe), READY)
    return [
        make_batch(share, source.read(share.rows), setting, n_views=2, step=step).views
        for step, share in enumerate(shares)
    ]


def loaded_views(files: TileFiles, batch: int, workers: int) -> Iterator[Tensor]:
    """Batches of the loop, without end."""
    loader = DataLoader(
        files,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        for first, second in loader:
            yield torch.cat([first, second]).contiguous(memory_format=torch.channels_last)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def alternate(contenders: Mapping[str, Ours | Ready], steps: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds a step of each contender, round by round; a loader's workers are not counted."""
    for contender in contenders.values():
        contender.run(2)  # kernels are chosen, workers started, queues filled
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            # Blocks longer than what workers hold ready (2 x 2 batches): between blocks it is filled at nobody's cost.
            wall, cpu = seconds(lambda run=contender.run: run(steps))
            taken[name].append((wall / steps, cpu / steps))
    for contender in contenders.values():
        contender.close()
    return taken


def cpu_of_data(source: PixelSource, setting: Setting, files: TileFiles, rounds: int) -> tuple[float, float]:
    """Processor seconds of loading and views alone, a batch: ours and the loop's, minima of alternating repeats.

    On one thread: with more, threads that wait for each other spin, and that counts as work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shares, batch = all_shares(source, setting.recipe), setting.recipe.run.batch
    loop = loaded_views(files, batch, 0)
    ours, theirs = [], []
    for _ in range(rounds + 1):  # the first sets threads up
        share = next(shares)
        ours.append(seconds(lambda s=share: make_batch(s, source.read(s.rows), setting, n_views=2, step=0))[1])
        theirs.append(seconds(lambda: next(loop))[1])
    torch.set_num_threads(threads)
    return min(ours[1:]), min(theirs[1:])


def on_cpu(source: PixelSource, paths: Sequence[Path], precision: str, a: argparse.Namespace) -> dict[str, object]:
    """All contenders in one precision."""
    asked = ["backbone.name=resnet18", "backbone.args={}", "views.train_px=96", *COLOUR, f"run.batch={a.batch}"]
    asked += [f"precision={precision}", "run.steps=10000"]
    recipe = resolve_recipe(override(read_recipe("simclr"), asked), source.px, len(source), CPU)
    setting, files = Setting(recipe, CPU, source.px), TileFiles(paths, picture_transforms(recipe.views, source.px))
    contenders = {
        "ready": Ready(source, setting, itertools.cycle(ready_views(source, setting))),
        "ours": Ours(source, setting),
        "loop": Ready(source, setting, loaded_views(files, a.batch, 0)),
        "loop, 2 workers": Ready(source, setting, loaded_views(files, a.batch, 2)),
    }
    taken = alternate(contenders, a.steps, a.rounds)
    cpu, loop_cpu = cpu_of_data(source, setting, files, 2 * a.rounds)
    best = {name: min(wall for wall, _ in each) for name, each in taken.items()}
    best_cpu = {name: min(cpu for _, cpu in each) for name, each in taken.items()}
    return {
        "rounds_wall_and_cpu_s_a_step": taken,
        "s_a_step": best,
        "cpu_s_a_step": best_cpu,
        "cpu_over_ready": best_cpu["ours"] / best_cpu["ready"],  # what of `over_ready` is not waiting for others
        "data_cpu_s_a_step": {"ours": cpu, "loop": loop_cpu},
        "over_ready": best["ours"] / best["ready"],
        "over_loop": best["ours"] / min(best["loop"], best["loop, 2 workers"]),
        "data_cpu_over_loop": cpu / loop_cpu,
    }


def on_cuda(source: PixelSource, a: argparse.Namespace) -> dict[str, object]:
    """ResNet-50 in bf16: images a second of whole steps, and of the network alone."""
    device = torch.device("cuda")
    asked = ["backbone.name=resnet50", "backbone.args={}", "views.train_px=224", f"run.batch={a.batch}"]
    asked += ["precision=bf16", "run.steps=10000"]
    recipe = resolve_recipe(override(read_recipe("simclr"), asked), source.px, len(source), device)
    setting = Setting(recipe, device, source.px)
    contenders = {
        "ready": Ready(source, setting, itertools.cycle(ready_views(source, setting))),
        "ours": Ours(source, setting),
    }

    def finished(run: Callable[[int], None], n: int) -> None:
        run(n)
        torch.cuda.synchronize()

    for contender in contenders.values():
        finished(contender.run, 10)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(a.rounds):
        for name, contender in contenders.items():
            taken[name].append(seconds(lambda run=contender.run: finished(run, 40))[0] / 40)
    for contender in contenders.values():
        contender.close()
    images = {name: 2 * a.batch / min(each) for name, each in taken.items()}
    return {
        "device": torch.cuda.get_device_name(),
        "images_a_second": images,
        "share_of_ready": images["ours"] / images["ready"],
    }


def with_tiles(
    folder: Path, n: int, px: int, work: Callable[[PixelSource, list[Path]], dict[str, object]]
) -> dict[str, object]:
    """Do something with the packed tiles of a workspace and the files they come from."""
    paths = write_tiles(folder / "tiles", n, px)
    tiling = tile(folder / "tiles", folder / "work", mpp=1.0, kind="tiles")
    with training_pixels([(Workspace.open(folder / "work"), tiling)], read_recipe("simclr")) as tiles:
        return work(tiles.source, paths)


def missed(found: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The floors that were not met, in words."""
    floors = (
        ("over_ready", MOST_OVER_READY, "a step takes {:.3f} of one on ready views, at most {} allowed"),
        ("over_loop", MOST_OVER_LOOP, "a step takes {:.3f} of the best loop's, at most {} allowed"),
        ("data_cpu_over_loop", MOST_CPU_OVER_LOOP, "loading and views take {:.3f} of the loop's CPU time, {} allowed"),
    )
    complaints = []
    for where, each in found.items():
        for name, most, sentence in floors:
            value = each.get(name)
            if isinstance(value, float) and value > most:
                complaints.append(f"{where}: {sentence.format(value, most)}")
        share = each.get("share_of_ready")
        if isinstance(share, float) and share < LEAST_ON_CUDA:
            complaints.append(f"{where}: {share:.3f} of the images a second on ready views, {LEAST_ON_CUDA} asked")
    return complaints


def main() -> None:
    """Measure, print, write, and fail if a floor is not met."""
    parser = argparse.ArgumentParser()
    for name, value in (("tiles", 512), ("px", 160), ("batch", 64), ("steps", 8), ("rounds", 4), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    load, found = [os.getloadavg()[0]], {}
    precisions = dict.fromkeys(["fp32", choose_precision("auto", CPU)])
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            place = Path(folder) / precision
            found[precision] = with_tiles(
                place, a.tiles, a.px, lambda source, paths, p=precision: on_cpu(source, paths, p, a)
            )
            load.append(os.getloadavg()[0])
        if torch.cuda.is_available():
            found["cuda"] = with_tiles(Path(folder) / "cuda", a.tiles, 256, lambda source, _: on_cuda(source, a))
        else:
            found["cuda"] = {"skipped": "there is no CUDA device"}
    for where, each in found.items():
        print(where, {key: value for key, value in each.items() if not key.startswith("rounds")})
    complaints = missed(found)
    result = {
        "inputs": vars(a),
        "found": found,
        "floors": {
            "over_ready": MOST_OVER_READY,
            "over_loop": MOST_OVER_LOOP,
            "data_cpu_over_loop": MOST_CPU_OVER_LOOP,
            "share_of_ready": LEAST_ON_CUDA,
        },
        "missed": complaints,
        "load": load,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "waiting": os.environ.get("OMP_WAIT_POLICY", "default"),
        },
        "versions": versions(),
    }
    write_json(RESULTS / "training.json", result)
    if complaints:
        raise SystemExit("\n".join(complaints))


if __name__ == "__main__":
    main()
