"""One step of training, and what it needs: a fresh state, pixels read ahead, a look at the embeddings."""

import dataclasses
import math
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from histokin.encoders.folder import HEAD, WEIGHTS, read_card
from histokin.encoders.networks import HeadedEncoder, build_network, embedding_dim, seeded_torch, with_head
from histokin.encoders.weights import fit_weights, read_weights
from histokin.errors import RecipeError, TrainingError
from histokin.learn.checkpoint import TrainState
from histokin.learn.distributed import World, any_rank, average_gradients, broadcast_state, synchronise_batch_norm
from histokin.learn.methods import METHODS, Batch
from histokin.learn.monitors import Look, look_at
from histokin.learn.optimisers import build_optimiser, clip_gradients, scaled_lr, set_rates
from histokin.learn.pixels import PixelSource, SomePixels
from histokin.learn.precision import Precision, computing_in
from histokin.learn.recipe import BackboneSpec, Recipe, settled
from histokin.learn.resolve import RANDOM_INIT, input_rule
from histokin.learn.sampling import Draw
from histokin.learn.schedule import cosine, learning_rate
from histokin.learn.stains import StainTemplates
from histokin.learn.views import central_plan, local_spec, make_views, plan_views
from histokin.streams import seed64

LOOK_BATCH = 64
# Two views of this many tiles are enough for alignment, a mean over pairs.
ALIGNMENT_TILES = 64


class LossNotFinite(TrainingError):
    """The loss became NaN or infinite."""

    code = "training-loss-not-finite"


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same from step to step.

    Attributes:
        recipe: resolved, its length fixed.
        device: where the state is.
        px: side of a tile.
        templates: stainings that views are drawn from, if the recipe asks for them.
    """

    recipe: Recipe
    device: torch.device
    px: int
    templates: StainTemplates | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What this process has of one step's draw, and of how many samples the whole draw is."""

    draw: Draw
    batch: int

    @property
    def rows(self) -> np.ndarray:
        """Tiles to be read: the samples', then those of their partners."""
        return self.draw.rows if self.draw.partners is None else np.concatenate([self.draw.rows, self.draw.partners])

    @property
    def places(self) -> np.ndarray:
        """Each read tile's number among all of the step: what its views are drawn by, whichever process does it."""
        own = np.arange(self.draw.first, self.draw.first + len(self.draw))
        return own if self.draw.partners is None else np.concatenate([own, own + self.batch])


@dataclasses.dataclass(frozen=True, slots=True)
class StepResult:
    """What one step gave: its rate, its loss and the method's other terms."""

    lr: float
    loss: float
    terms: dict[str, float]


def new_state(setting: Setting, source: PixelSource) -> TrainState:
    """Networks and optimiser as they are before the first step; the same for the same recipe."""
    recipe = setting.recipe
    encoder = starting_network(recipe.backbone, recipe.seed)
    with seeded_torch(seed64(recipe.seed, "method")):
        method = METHODS[recipe.method](encoder, embedding_dim(encoder), recipe, source)
    method.parts = recipe.run.parts
    method = method.to(setting.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub lacks the pair
    if World.current().size > 1:
        synchronise_batch_norm(method)
        broadcast_state(method)
    if recipe.run.compile:
        method.encoder.compile()
    return TrainState(method.train(), build_optimiser(method, recipe.optimiser))


def starting_network(backbone: BackboneSpec, seed: int) -> nn.Module:
    """The encoder's network with the weights the recipe begins from.

    A head of the same widths as that of the encoder folder it begins from goes on from there; others are drawn anew.
    """
    name, args = backbone.name, settled(backbone.args, "backbone.args")
    init = Path(backbone.init)
    weights = init / WEIGHTS if init.is_dir() else init if init.is_file() else None
    network = build_network(name, args, seed=seed64(seed, "weights"), weights=weights)
    if backbone.init != RANDOM_INIT and weights is None:
        published = build_network(backbone.init, args, seed=0, pretrained=True)
        network.load_state_dict(fit_weights(published.state_dict(), network.state_dict(), where=backbone.init).state)
    with seeded_torch(seed64(seed, "head")):
        network = with_head(network, backbone.head)
    if isinstance(network, HeadedEncoder) and (init / HEAD).is_file() and read_card(init).head == network.widths:
        head = fit_weights(read_weights(init / HEAD), network.head.state_dict(), where=init / HEAD)
        network.head.load_state_dict(head.state)
    return network


@torch.no_grad()
def try_sizes(recipe: Recipe, device: torch.device) -> None:
    """Send a picture of each size through the recipe's network: what it cannot take fails before any work is done.

    Raises:
        RecipeError: names the key and what the network takes.
    """
    backbone, views = recipe.backbone, recipe.views
    sizes = {
        "views.train_px": settled(views.train_px, "views.train_px"),
        "views.embed_px": settled(views.embed_px, "views.embed_px"),
    }
    if views.local.count:
        sizes["views.local.px"] = settled(views.local.px, "views.local.px")
    network = starting_network(backbone, recipe.seed).eval().to(device)
    for key, px in sizes.items():
        try:
            network(torch.zeros(2, 3, px, px, device=device))
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:  # timm and torch raise these
            raise RecipeError(
                f"{backbone.name} cannot take pictures of {px} px ({(str(error).splitlines() or [''])[0]})",
                f"recipe key {key}",
                _sizes_taken(backbone, px),
            ) from error


def _sizes_taken(backbone: BackboneSpec, px: int) -> str:
    rule = input_rule(backbone.name, settled(backbone.args, "backbone.args"))
    if rule.side:
        several = "a vision transformer takes several sizes with backbone.args={dynamic_img_size: true}"
        return f"Set it to {rule.side} or auto; {several}."
    return f"Set it to auto or to {rule.nearest(px)}." if rule.multiple > 1 else "Set it to auto or to a larger size."


def used(source: PixelSource, recipe: Recipe) -> PixelSource:
    """The tiles that the recipe's method can learn from: those that rows and state of a run are about."""
    rows = METHODS[recipe.method].usable(source)
    return source if rows is None else SomePixels(source, rows)


def train_step(state: TrainState, share: Share, tiles: np.ndarray, setting: Setting) -> StepResult:
    """Views, loss, gradient, update; `state.step` is one more afterwards.

    Args:
        state: changed in place.
        share: this process's samples.
        tiles: (len(share.rows), field, field, 3) uint8.
        setting: of the run.

    Raises:
        LossNotFinite: loss or gradient; no weight has moved, only running statistics of the forward pass.
    """
    recipe, device, method = setting.recipe, setting.device, state.method
    step, steps = state.step, settled(recipe.run.steps, "run.steps")
    spec = recipe.optimiser
    lr = learning_rate(step, steps, peak=scaled_lr(spec, share.batch), warmup=spec.warmup, end=spec.end)
    decay = cosine(
        step, steps, start=spec.weight_decay, end=settled(spec.weight_decay_end, "optimiser.weight_decay_end")
    )
    set_rates(state.optimiser, lr=lr, weight_decay=decay)
    batch = make_batch(share, tiles, setting, n_views=method.n_views, step=step)
    world = World.current()
    # Dropout knows only the global generator: seeded by step, so that a resumed run drops the same.
    with seeded_torch(seed64(recipe.seed, "dropout", step, world.rank), device):
        with computing_in(_precision(recipe), device):
            terms = method.loss(batch)
        values = {name: value.detach().item() for name, value in terms.items()}
        if any_rank(not math.isfinite(values["loss"])):
            raise _not_finite(state, f"the loss became {values['loss']}", step, lr)
        terms["loss"].backward()
    average_gradients(method.parameters())
    norm = clip_gradients(method.parameters(), spec.clip or math.inf)
    if any_rank(not math.isfinite(norm)):  # one such update would poison the weights and the next checkpoint
        raise _not_finite(state, f"the gradient's length became {norm}", step, lr)
    if spec.clip:
        values["gradient"] = norm
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    with torch.no_grad():
        method.after_step(batch)
    state.step += 1
    return StepResult(lr, values.pop("loss"), values)


def _not_finite(state: TrainState, what: str, step: int, lr: float) -> LossNotFinite:
    state.optimiser.zero_grad(set_to_none=True)
    return LossNotFinite(
        f"{what} at step {step} with learning rate {lr:.3g}",
        f"step {step}",
        "Lower optimiser.lr or set precision: fp32, under another --name (from Python: in another folder).",
    )


def make_batch(share: Share, tiles: np.ndarray, setting: Setting, *, n_views: int, step: int) -> Batch:
    """Turn read tiles into the views of a step."""
    recipe, device = setting.recipe, setting.device
    on_device = torch.from_numpy(tiles).to(device)
    drawn = {
        "seed": recipe.seed,
        "step": step,
        "samples": share.places,
        "templates": setting.templates,
        "field_px": tiles.shape[1],
    }
    plan = plan_views(recipe.views, setting.px, **drawn, n_views=n_views)
    views, local = make_views(on_device, plan, recipe.views), None
    if recipe.views.local.count:
        spec = local_spec(recipe.views, n_views)
        plan = plan_views(
            spec,
            setting.px,
            **drawn,
            n_views=recipe.views.local.count,
            purpose="local views",
            quadrants=recipe.views.local.quadrants,
        )
        local = make_views(on_device, plan, spec)
    near = share.draw.near
    return Batch(
        views=views,
        local=local,
        rows=torch.from_numpy(share.draw.rows).to(device),
        near=None if near is None else torch.from_numpy(near).to(device),
        step=step,
        steps=settled(recipe.run.steps, "run.steps"),
    )


def _precision(recipe: Recipe) -> Precision:
    return "bf16" if settled(recipe.precision, "precision") == "bf16" else "fp32"


@torch.no_grad()
def take_look(state: TrainState, source: PixelSource, probe: np.ndarray, setting: Setting) -> Look:
    """Measure the encoder on fixed tiles: their undisturbed middles, and two fixed views of some of them.

    Args:
        state: left as it was.
        source: of the tiles, read a small batch at a time.
        probe: (N,) int64 rows of it, the same at every look.
        setting: of the run.
    """
    recipe, device, px = setting.recipe, setting.device, setting.px
    spec = recipe.views
    encoder = state.method.exported()
    encoder.eval()
    embeddings = []
    for start in range(0, len(probe), LOOK_BATCH):
        tiles = torch.from_numpy(source.read(probe[start : start + LOOK_BATCH])).to(device)
        plan = central_plan(len(tiles), spec, px, source.field_px)
        embeddings.append(_embed(encoder, make_views(tiles, plan, spec), recipe))
    some = torch.from_numpy(source.read(probe[:: max(1, len(probe) // ALIGNMENT_TILES)][:ALIGNMENT_TILES])).to(device)
    plan = plan_views(
        spec,
        px,
        seed=recipe.seed,
        step=0,
        samples=np.arange(len(some)),
        purpose="probe views",
        templates=setting.templates,
        field_px=source.field_px,
    )
    views = make_views(some, plan, spec)
    first, second = (_embed(encoder, part, recipe) for part in views.chunk(2))
    state.method.train()
    labels = source.labels
    known = None if labels is None else (labels.codes[probe], labels.groups[probe])
    return look_at(state.step, torch.cat(embeddings), first, second, labels=known)


def _embed(encoder: nn.Module, views: Tensor, recipe: Recipe) -> Tensor:
    with computing_in(_precision(recipe), views.device):
        return encoder(views).float().cpu()


def read_ahead(source: PixelSource, shares: Iterable[Share]) -> Generator[tuple[Share, np.ndarray], None, None]:
    """Each step's share and tiles; the next step's tiles are read in one background thread meanwhile.

    Results do not depend on the thread: shares are given in their order. Close the iterator to end the thread.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels") as pool:
        waiting: tuple[Share, Future[np.ndarray]] | None = None
        for share in shares:
            following = share, pool.submit(source.read, share.rows)
            if waiting is not None:
                yield waiting[0], _checked(waiting[1].result(), waiting[0].rows, source)
            waiting = following
        if waiting is not None:
            yield waiting[0], _checked(waiting[1].result(), waiting[0].rows, source)


def _checked(tiles: np.ndarray, rows: np.ndarray, source: PixelSource) -> np.ndarray:
    side = source.field_px
    if tiles.shape != (len(rows), side, side, 3) or tiles.dtype != np.uint8:
        raise ValueError(
            f"the pixel source gave {tiles.shape} {tiles.dtype} for {len(rows)} tiles of {side} px; "
            "it must give (B, field_px, field_px, 3) uint8"
        )
    return tiles
