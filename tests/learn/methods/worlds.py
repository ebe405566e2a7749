"""Tiles with places and labels, and recipes whose state is so small that a handful of steps fills it."""

import numpy as np

from histokin.learn import ArrayPixels, override, read_recipe
from histokin.learn.pixels import Labels, Places

TINY = [
    "precision=fp32",
    "backbone.name=resnet10t",
    "backbone.args={channels: [8, 8, 16, 24], stem_width: 8, layers: [1, 1, 1, 1]}",
    "views.train_px=32",
    "projector.hidden=16",
    "projector.out=8",
    "run.batch=8",
    "run.steps=7",
    "run.monitor_every=3",
    "run.monitor_tiles=12",
    "run.checkpoint_every=1",
]
# A handful of steps wraps the queue, refits clusters and fills banks.
SMALL = {
    "mocov2": ["loss.queue=20"],
    "ccl": ["loss.queue=20", "loss.refit=2", "loss.clusters=4"],
    "npid": ["loss.negatives=16"],
    "sgcl": ["loss.refit=2", "loss.negatives=16", "loss.ramp=0.5", "views.local.px=16"],
    "similarity": ["backbone.head=[16, 8]", "loss.near_um=64", "loss.far_um=150"],
    "dino": ["loss.hidden=16", "loss.bottleneck=8", "loss.prototypes=12", "views.local.px=16"],
    "supervised": ["run.label=kind"],
}


def recipe_of(method, *settings):
    """A method's shipped recipe with a tiny network and small state."""
    return override(read_recipe(method), [*TINY, *SMALL.get(method, []), *settings])


def two_slides():
    """Two slides of 6 x 6 tiles of 32 um; two kinds of tissue, in halves, that differ in grain."""
    rng = np.random.default_rng(3)
    x, y = np.meshgrid(np.arange(6), np.arange(6), indexing="ij")
    cell = np.tile(np.stack([x, y], -1).reshape(-1, 2), (2, 1))
    slides = np.repeat([0, 1], 36)
    kind = (cell[:, 0] >= 3).astype(int)
    fine = rng.normal(0, 35, (72, 32, 32, 3))
    coarse = rng.normal(0, 35, (72, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    tiles = np.where(kind[:, None, None, None] == 0, fine, coarse) + np.array([190, 140, 180])
    return ArrayPixels(
        np.clip(tiles, 0, 255).astype(np.uint8),
        mpp=1.0,
        slides=slides,
        places=Places((cell + 0.5) * 32.0, np.full(len(cell), 32.0)),
        labels=Labels(kind, ("coarse", "fine"), slides),
    )
