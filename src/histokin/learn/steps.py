"""One step of training, and what it needs: a fresh state, pixels read ahead, a look at the embeddings."""

import dataclasses
import math
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from histokin.encoders.folder import WEIGHTS
from histokin.encoders.networks import build_network, embedding_dim, seeded_torch
from histokin.encoders.weights import fit_weights
from histokin.errors import TrainingError
from histokin.learn.checkpoint import TrainState
from histokin.learn.methods import METHODS, Batch
from histokin.learn.monitors import Look, look_at
from histokin.learn.pixels import PixelSource
from histokin.learn.precision import Precision, computing_in
from histokin.learn.recipe import BackboneSpec, OptimiserSpec, Recipe, settled
from histokin.learn.resolve import RANDOM_INIT
from histokin.learn.schedule import learning_rate
from histokin.learn.views import central_plan, make_views, plan_views
from histokin.streams import seed64

LOOK_BATCH = 64
# Two views of this many tiles are enough for alignment, a mean over pairs.
ALIGNMENT_TILES = 64


class LossNotFinite(TrainingError):
    """The loss became NaN or infinite."""

    code = "training-loss-not-finite"


@dataclasses.dataclass(frozen=True, slots=True)
class StepResult:
    """What one step gave: its rate, its loss and the method's other terms."""

    lr: float
    loss: float
    terms: dict[str, float]


def new_state(recipe: Recipe, device: torch.device) -> TrainState:
    """Networks and optimiser as they are before the first step; the same for the same recipe."""
    encoder = starting_network(recipe.backbone, recipe.seed)
    with seeded_torch(seed64(recipe.seed, "method")):
        method = METHODS[recipe.method](encoder, embedding_dim(encoder), recipe)
    method = method.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub lacks the pair
    return TrainState(method.train(), build_optimiser(method, recipe.optimiser))


def starting_network(backbone: BackboneSpec, seed: int) -> nn.Module:
    """The encoder's network with the weights the recipe begins from."""
    name, args = backbone.name, settled(backbone.args, "backbone.args")
    init = Path(backbone.init)
    weights = init / WEIGHTS if init.is_dir() else init if init.is_file() else None
    network = build_network(name, args, seed=seed64(seed, "weights"), weights=weights)
    if backbone.init != RANDOM_INIT and weights is None:
        published = build_network(backbone.init, args, seed=0, pretrained=True)
        network.load_state_dict(fit_weights(published.state_dict(), network.state_dict(), where=backbone.init).state)
    return network


def build_optimiser(module: nn.Module, spec: OptimiserSpec) -> torch.optim.Optimizer:
    """AdamW over all that learns; weight decay on matrices and kernels only."""
    learning = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), fused=True)


def train_step(
    state: TrainState, rows: np.ndarray, tiles: np.ndarray, recipe: Recipe, device: torch.device
) -> StepResult:
    """Views, loss, gradient, update; `state.step` is one more afterwards.

    Args:
        state: changed in place.
        rows: (B,) int64, which tiles these are.
        tiles: (B, px, px, 3) uint8.
        recipe: resolved, its length fixed.
        device: where the state is.

    Raises:
        LossNotFinite: the state is left as it was before the step.
    """
    step, steps = state.step, settled(recipe.run.steps, "run.steps")
    lr = learning_rate(step, steps, peak=recipe.optimiser.lr, warmup=recipe.optimiser.warmup)
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    n_views = state.method.n_views
    plan = plan_views(
        recipe.views, tiles.shape[1], seed=recipe.seed, step=step, samples=np.arange(len(rows)), n_views=n_views
    )
    views = make_views(torch.from_numpy(tiles).to(device), plan, recipe.views)
    batch = Batch(views, torch.from_numpy(rows), n_views)
    # Dropout knows only the global generator: seeded by step, so that a resumed run drops the same.
    with seeded_torch(seed64(recipe.seed, "dropout", step), device):
        with computing_in(_precision(recipe), device):
            terms = state.method.loss(batch)
        values = {name: value.detach().item() for name, value in terms.items()}
        if not math.isfinite(values["loss"]):
            raise LossNotFinite(
                f"the loss became {values['loss']} at step {step} with learning rate {lr:.3g}",
                f"step {step}",
                "Lower optimiser.lr or set precision: fp32.",
            )
        terms["loss"].backward()
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    state.step += 1
    return StepResult(lr, values.pop("loss"), values)


def _precision(recipe: Recipe) -> Precision:
    return "bf16" if settled(recipe.precision, "precision") == "bf16" else "fp32"


@torch.no_grad()
def take_look(state: TrainState, source: PixelSource, probe: np.ndarray, recipe: Recipe, device: torch.device) -> Look:
    """Measure the encoder on fixed tiles: their undisturbed middles, and two fixed views of some of them.

    Args:
        state: left as it was.
        source: of the tiles, read a small batch at a time.
        probe: (N,) int64 rows of it, the same at every look.
        recipe, device: of the run.
    """
    px, spec = source.px, recipe.views
    encoder = state.method.encoder
    encoder.eval()
    embeddings = []
    for start in range(0, len(probe), LOOK_BATCH):
        tiles = torch.from_numpy(source.read(probe[start : start + LOOK_BATCH])).to(device)
        embeddings.append(_embed(encoder, make_views(tiles, central_plan(len(tiles), spec, px), spec), recipe))
    some = torch.from_numpy(source.read(probe[:: max(1, len(probe) // ALIGNMENT_TILES)][:ALIGNMENT_TILES])).to(device)
    plan = plan_views(spec, px, seed=recipe.seed, step=0, samples=np.arange(len(some)), purpose="probe views")
    views = make_views(some, plan, spec)
    first, second = (_embed(encoder, part, recipe) for part in views.chunk(2))
    state.method.train()
    return look_at(state.step, torch.cat(embeddings), first, second)


def _embed(encoder: nn.Module, views: Tensor, recipe: Recipe) -> Tensor:
    with computing_in(_precision(recipe), views.device):
        return encoder(views).float().cpu()


def read_ahead(
    source: PixelSource, batches: Iterable[np.ndarray]
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Each batch's rows and tiles; the next batch is read in one background thread meanwhile.

    Results do not depend on the thread: rows are given in their order. Close the iterator to end the thread.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels") as pool:
        waiting: tuple[np.ndarray, Future[np.ndarray]] | None = None
        for rows in batches:
            following = rows, pool.submit(source.read, rows)
            if waiting is not None:
                yield waiting[0], _checked(waiting[1].result(), waiting[0], source)
            waiting = following
        if waiting is not None:
            yield waiting[0], _checked(waiting[1].result(), waiting[0], source)


def _checked(tiles: np.ndarray, rows: np.ndarray, source: PixelSource) -> np.ndarray:
    if tiles.shape != (len(rows), source.px, source.px, 3) or tiles.dtype != np.uint8:
        raise ValueError(
            f"the pixel source gave {tiles.shape} {tiles.dtype} for {len(rows)} tiles of {source.px} px; "
            "it must give (B, px, px, 3) uint8"
        )
    return tiles
