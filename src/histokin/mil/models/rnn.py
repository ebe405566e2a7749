"""The most suspicious tiles in a row: MIL-RNN."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from histokin.errors import RecipeError
from histokin.mil.bags import PackedBags
from histokin.mil.models.model import MilModel, embedding
from histokin.mil.objectives import Classes, MultiLabel, Objective, log_odds
from histokin.mil.objectives.objective import exact
from histokin.mil.output import MilOutput


class MilRnn(MilModel):
    """Two stages (Campanella et al., Nature Medicine 2019; code MIL-nature-medicine-2019 of MSKCC).

    Stage 1, `tile_head`, classifies tiles and learns from the k most suspicious tiles of each slide, which take the
    slide's label (`tile_loss`). Stage 2, `aggregator`, reads the s most suspicious tiles in descending order:

        state_t = relu(W2 state_{t-1} + b2 + W1 x_t + b1),   state_0 = 0,   logits = W3 state_last + b3

    Suspicion is 1 - P(negative class), or max_c P where no class is negative. A call gives the loss of stage 2, which
    does not reach the tile head; stage 2 should be trained with the suspicion that a tile head gives which has not seen
    these slides.

    Deviations: frozen embeddings in place of a network trained end to end; a bag of fewer than s tiles ends with its
    last tile (the published code cannot batch it); more than two classes.

    Args:
        dim: D.
        objective: `Classes` or `MultiLabel`.
        hidden: widths of the layers before the tile head's last.
        steps: s.
        state: R, width of the state.
        negative: the class that means "nothing found"; of two classes it is class 0 unless said otherwise.
        dropout: after each hidden layer of the tile head.
    """

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        hidden: Sequence[int] = (),
        steps: int = 10,
        state: int = 128,
        negative: int | None = None,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(dim, objective)
        if not isinstance(objective, Classes | MultiLabel):
            raise RecipeError("tiles are ranked by a probability", "model mil_rnn", "Use it with classes or labels.")
        if steps < 1 or not (negative is None or (isinstance(objective, Classes) and 0 <= negative < objective.n)):
            raise RecipeError(
                f"steps={steps}, negative={negative} cannot be",
                "model mil_rnn",
                f"Use steps >= 1 and one of {objective.n} classes.",
            )
        is_binary = isinstance(objective, Classes) and objective.n == 2
        self.negative = 0 if negative is None and is_binary else negative
        self.steps = steps
        C = objective.n_outputs
        self.tile_head = nn.Sequential(embedding(dim, hidden, dropout), nn.Linear([dim, *hidden][-1], C))
        self.aggregator = Aggregator(dim, C, state=state)

    def forward(self, bags: PackedBags, target: Tensor | None = None, *, suspicion: Tensor | None = None) -> MilOutput:
        """Classify bags by stage 2.

        Args:
            bags: of D-wide tiles.
            target: as the objective describes it.
            suspicion: (T,) to rank tiles by; that of this model's own tile head by default.
        """
        x = self.tiles_of(bags)
        tile_logits = self.tile_head(x)
        rows, counts = most_suspicious(
            self.suspicion(tile_logits) if suspicion is None else suspicion, bags, self.steps
        )
        logits, state = self.aggregator(x[rows], counts.to(x.device))
        return MilOutput(
            logits=logits,
            slide_embedding=state,
            tile_logits=tile_logits,
            losses=self.losses_of(logits, target),
        )

    def suspicion(self, tile_logits: Tensor) -> Tensor:
        """(T,), what tiles are ranked by: the probability's log-odds, which do not round to a tie; no gradient."""
        scores = exact(tile_logits.detach())
        if isinstance(self.objective, MultiLabel):
            return scores.amax(1)
        odds = log_odds(scores)
        return odds.amax(1) if self.negative is None else -odds[:, self.negative]

    def tile_loss(self, bags: PackedBags, target: Tensor, *, k: int = 1) -> Tensor:
        """Stage 1: the objective's loss of the k most suspicious tiles of each bag with the bag's target, 0-d."""
        tile_logits = self.tile_head(self.tiles_of(bags))
        rows, counts = most_suspicious(self.suspicion(tile_logits), bags, k)
        is_real = torch.arange(rows.shape[1]) < counts[:, None]
        bag = is_real.nonzero()[:, 0].to(target.device)
        return self.objective.loss(tile_logits[rows[is_real.to(rows.device)]], target[bag])


class Aggregator(nn.Module):
    """Stage 2: a plain recurrent network with ReLU over tiles in descending suspicion.

    Args:
        dim: D.
        n_outputs: C.
        state: R.
    """

    def __init__(self, dim: int, n_outputs: int, *, state: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, state)
        self.fc2 = nn.Linear(state, state)
        self.fc3 = nn.Linear(state, n_outputs)

    def forward(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """(B, s, D) tiles, of which the first counts (B,) >= 1 are read: (B, C) logits, (B, R) last state."""
        inputs = self.fc1(x)
        state = torch.zeros_like(inputs[:, 0])
        for t in range(x.shape[1]):
            state = torch.where((t < counts)[:, None], (self.fc2(state) + inputs[:, t]).relu(), state)
        return self.fc3(state), state


def most_suspicious(suspicion: Tensor, bags: PackedBags, k: int) -> tuple[Tensor, Tensor]:
    """The rows of each bag's k highest values, highest first, of equal ones the first.

    Args:
        suspicion: (T,).
        bags: the bags of the tiles.
        k: >= 1.

    Returns:
        (B, min(k, largest bag)) rows of the batch, in shorter bags filled up with the bag's first; and how many of them
        count, (B,) on the CPU.
    """
    counts = bags.lengths.clamp_max(k)
    rows = torch.empty(len(bags), int(counts.max()), dtype=torch.int64, device=suspicion.device)
    for row, values, start in zip(rows, suspicion.split(bags.sizes), bags.starts, strict=True):
        best = values.argsort(descending=True, stable=True)[:k] + start
        row[:] = start
        row[: len(best)] = best
    return rows, counts
