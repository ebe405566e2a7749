"""Networks by timm's names, with random, published or given weights."""

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from histokin.encoders.weights import fit_weights, read_weights
from histokin.errors import EncoderError

# The net of docs/training.md: its deep tiered stem is what makes it learn within two minutes.
SMALL_ARCHITECTURE = "resnet10t"
SMALL_ARGS: Mapping[str, Any] = {"channels": (32, 64, 128, 256), "stem_width": 16, "layers": (1, 1, 1, 1)}

_POOLING = {"token": "cls", "avg": "mean", "map": "attention"}
_log = logging.getLogger(__name__)


@contextmanager
def seeded_torch(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators for the block and restore them after it.

    The one place where the global generator is touched: weight initialisation and dropout know no other.
    """
    device = torch.device(device)
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        # torch.manual_seed would also seed the generators of devices that are not restored here.
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def build_network(
    architecture: str,
    model_args: Mapping[str, Any] | None = None,
    *,
    seed: int,
    pretrained: bool = False,
    weights: Path | None = None,
) -> nn.Module:
    """A timm network without classifier: (B, 3, H, W) to (B, D).

    Args:
        architecture: timm's name, with or without its tag (`resnet50`, `resnet50.a1_in1k`).
        model_args: timm's keyword arguments.
        seed: of the random weights; the same seed gives the same weights.
        pretrained: take the weights timm's hub has for the name.
        weights: a safetensors file or torch checkpoint whose keys must match; wins over `pretrained`.

    Raises:
        EncoderError: unknown name, arguments the network does not take, weights that cannot be had or do not fit.
    """
    known_name(architecture)
    arguments = {"num_classes": 0, **(model_args or {})}
    try:
        with seeded_torch(seed):
            network = timm.create_model(architecture, pretrained=False, **arguments)
        if pretrained and weights is None:
            network.load_state_dict(_published_weights(architecture, arguments))
    except TypeError as error:
        raise EncoderError(
            f"the network does not take these arguments ({error})", architecture, "Correct backbone.args."
        ) from error
    if weights is not None:
        report = fit_weights(read_weights(weights), network.state_dict(), where=weights)
        network.load_state_dict(report.state)
        _log.info("%s: %s", weights, report.sentence)
    return network


class HeadedEncoder(nn.Module):
    """A timm network with an MLP after it: (B, 3, H, W) to (B, widths[-1]).

    Args:
        backbone: (B, 3, H, W) to (B, D).
        widths: of the head's layers, at least one. Linear, BatchNorm and ReLU up to the last, which is a plain Linear:
            (512, 128) after a ResNet-50 is Linear(2048, 512) + BN + ReLU + Linear(512, 128), the descriptor of
            Gildenblat & Klaiman (arXiv 1905.08139) as read here.
    """

    def __init__(self, backbone: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.widths = tuple(int(width) for width in widths)
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"a head needs widths >= 1, got {self.widths}")
        layers: list[nn.Module] = []
        before = embedding_dim(backbone)
        for width in self.widths[:-1]:
            layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU()]
            before = width
        self.head = nn.Sequential(*layers, nn.Linear(before, self.widths[-1]))
        self.num_features = self.widths[-1]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.backbone(pixels))


def with_head(network: nn.Module, widths: Sequence[int]) -> nn.Module:
    """The network with a head of these widths after it; the network itself where there are none.

    The head's weights are drawn from torch's global generator: call it within `seeded_torch`.

    Args:
        network: of `build_network`; it is used, not copied.
        widths: of the head's layers, see `HeadedEncoder`.
    """
    return HeadedEncoder(network, widths) if widths else network


def backbone_of(network: nn.Module) -> nn.Module:
    """The timm network without its head."""
    return network.backbone if isinstance(network, HeadedEncoder) else network


def head_of(network: nn.Module) -> tuple[int, ...]:
    """The widths of the network's head, for the card; empty if there is none."""
    return network.widths if isinstance(network, HeadedEncoder) else ()


def known_name(architecture: str, also: Iterable[str] = ()) -> None:
    """Refuse a name that timm does not have, with the nearest ones it has and those of `also`."""
    name, _, tag = architecture.partition(".")
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, [*also, *timm.list_models()], n=4, cutoff=0.5)
        hint = f"Nearest names: {', '.join(nearest)}" if nearest else "See timm.list_models()"
        raise EncoderError(f"timm {timm.__version__} has no network of this name", architecture, f"{hint}.")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise EncoderError(
            f"there are no weights '{tag}' for {name}", architecture, f"Known: {', '.join(tags) or 'none'}."
        )


def _published_weights(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state timm's hub has for a name. Any failure to fetch it becomes an error with a way out."""
    try:
        # The seed does not matter: every weight is replaced.
        with seeded_torch(0):
            return timm.create_model(architecture, pretrained=True, **arguments).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise EncoderError(
            f"its published weights could not be had ({first_line})",
            architecture,
            "Connect to the internet, pass a weights file, or ask for random weights with 'random:<name>'.",
        ) from error


def embedding_dim(network: nn.Module) -> int:
    """Length of the vector the network gives without its classifier; of a headed one, its head's last width."""
    known = getattr(network, "head_hidden_size", None) or getattr(network, "num_features", None)
    if not isinstance(known, int):
        raise EncoderError("it does not say how long its vectors are", type(network).__name__, "Use a timm network.")
    return known


def pooling_of(network: nn.Module) -> str:
    """The name of the network's pooling rule: `pooled` for convolutional nets, `cls`, `mean`, ... for token nets."""
    network = backbone_of(network)
    if not hasattr(network, "num_prefix_tokens"):
        return "pooled"
    rule = getattr(network, "global_pool", "")
    return _POOLING.get(rule, str(rule) or "none")


def default_config(network: nn.Module) -> Mapping[str, Any]:
    """The preparation timm states for the network: input_size, mean, std, fixed_input_size, ..."""
    return getattr(backbone_of(network), "pretrained_cfg", {})
