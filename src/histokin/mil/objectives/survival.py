"""Time to an event, some of them censored: Cox's partial likelihood and discrete hazards."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from histokin.errors import TrainingError
from histokin.mil.objectives.objective import exact, refuse_target

# Patho-Bench's clamp of hazards and survival before the logarithm.
_LEAST = 1e-7


@dataclass(frozen=True, slots=True)
class Cox:
    """One risk a slide: Cox's partial likelihood within the batch, divided by its events.

    With r the risks, t the times, e the events, D_i the events at t_i and R_i = {j: t_j >= t_i}:

        Breslow:  loss = -1/n_e sum_{i: e_i} ( r_i - log sum_{j in R_i} exp r_j )
        Efron:    the l-th (from 0) of the d events tied at t_i has
                  log( sum_{j in R_i} exp r_j - l/d sum_{j in D_i} exp r_j ) instead

    The batch is the risk set: at least 16 slides of it are advised. A batch without events has loss 0.

    Attributes:
        ties: what to do with events at the same time; Efron is the closer approximation. A target is floating (B, 2):
            time, and 1 for an event or 0 for censored.
    """

    ties: Literal["breslow", "efron"] = "efron"

    def __post_init__(self) -> None:
        if self.ties not in ("breslow", "efron"):
            raise ValueError(f"ties must be breslow or efron, got {self.ties}")

    @property
    def n_outputs(self) -> int:
        return 1

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        refuse_target(logits, target, (len(logits), 2), "(time, event) pairs")
        if len(logits) < 2:
            raise TrainingError(
                "the Cox loss compares the slides of a batch: of one slide it is 0 whatever the model says",
                "a batch of 1 slide",
                "Train with 16 or more slides a batch, or with discrete hazards.",
            )
        risk, time = exact(logits)[:, 0], target[:, 0]
        is_event = target[:, 1] > 0
        later = time[None, :] >= time[:, None]
        log_sum = _masked_logsumexp(risk, later)  # (B,)
        if self.ties == "efron":
            tied = (time[None, :] == time[:, None]) & is_event[None, :] & is_event[:, None]
            share = tied.tril(-1).sum(1).to(risk.dtype) / tied.sum(1).clamp_min(1)  # l/d
            # The tied events are part of the risk set, so the ratio is at most 1 and share below it.
            itself = torch.eye(len(risk), dtype=torch.bool, device=risk.device)  # so that no row is empty
            log_ratio = _masked_logsumexp(risk, tied | itself) - log_sum
            log_sum = log_sum + torch.log1p(-share * log_ratio.exp())
        return ((log_sum - risk) * is_event).sum() / is_event.sum().clamp_min(1)

    def predict(self, logits: Tensor) -> Tensor:
        """(B,) log relative hazard; higher means sooner."""
        return exact(logits)[:, 0]

    def risk(self, logits: Tensor) -> Tensor:
        """(B,) what to rank slides by; higher means sooner."""
        return self.predict(logits)

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        return (exact(first) + exact(second)) / 2


@dataclass(frozen=True, slots=True)
class Hazards:
    """The hazard in each of n bins of time (Zadeh & Schmid 2021): works with one slide a batch.

    With h_k = sigmoid(logit_k), S_k = prod_{j <= k} (1 - h_j), S_-1 = 1, bin k and event e:

        loss = mean_b( -e (log S_{k-1} + log h_k) - (1 - alpha) (1 - e) log S_k )

    Attributes:
        n_bins: number of bins, see `hazard_edges`. A target is floating (B, 2): the 0-based bin, and 1 for an event or
            0 for censored.
        alpha: in [0, 1]; how much less a censored slide counts.
    """

    n_bins: int = 4
    alpha: float = 0.0

    def __post_init__(self) -> None:
        if self.n_bins < 2 or not 0 <= self.alpha <= 1:
            raise ValueError(f"need n_bins >= 2 and alpha in [0, 1], got {self.n_bins}, {self.alpha}")

    @property
    def n_outputs(self) -> int:
        return self.n_bins

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        refuse_target(logits, target, (len(logits), 2), "(bin, event) pairs")
        logits = exact(logits)
        bins, event = target[:, :1].long(), target[:, 1].to(logits.dtype)
        log_survival = self._log_survival(logits)
        before = F.pad(log_survival, (1, 0))  # S_-1 = 1
        least = torch.tensor(_LEAST, dtype=logits.dtype, device=logits.device).log()
        log_hazard = F.logsigmoid(logits).gather(1, bins)[:, 0].clamp_min(least)
        happened = before.gather(1, bins)[:, 0].clamp_min(least) + log_hazard
        lived = log_survival.gather(1, bins)[:, 0].clamp_min(least)
        return -(event * happened + (1 - self.alpha) * (1 - event) * lived).mean()

    def predict(self, logits: Tensor) -> Tensor:
        """(B, n_bins) probability of having had no event by the end of each bin."""
        return self._log_survival(exact(logits)).exp()

    def risk(self, logits: Tensor) -> Tensor:
        """(B,) what to rank slides by: minus the sum of the survival curve."""
        return -self.predict(logits).sum(1)

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        log_mean = torch.logaddexp(self._log_survival(exact(first)), self._log_survival(exact(second)))
        # With a = -log(1 - h) >= 0: logit h = log(exp(a) - 1) = a + log(1 - exp(-a)), which does not overflow.
        a = -F.pad(log_mean - np.log(2.0), (1, 0)).diff(dim=1).clamp_max(-_LEAST)
        return a + torch.log(-torch.expm1(-a))

    @staticmethod
    def _log_survival(logits: Tensor) -> Tensor:
        return F.logsigmoid(-logits).cumsum(1)


def hazard_edges(time: np.ndarray, event: np.ndarray, n_bins: int) -> np.ndarray:
    """Inner edges of bins that hold equally many events; bin of t is np.searchsorted(edges, t, side="right").

    Args:
        time: (N,) of the training fold only, or the test fold would set the bins.
        event: (N,) true for an event.
        n_bins: >= 2.

    Returns:
        (n_bins - 1,) ascending.

    Raises:
        TrainingError: a bin would hold no event.
    """
    times = np.asarray(time, dtype=np.float64)[np.asarray(event, dtype=bool)]
    edges = np.quantile(times, np.arange(1, n_bins) / n_bins) if len(times) else times
    if len(np.unique(np.searchsorted(edges, times, side="right"))) != n_bins:
        raise TrainingError(
            f"{len(np.unique(times))} distinct event times do not fill {n_bins} bins",
            "the training fold",
            "Ask for fewer bins or use the Cox objective.",
        )
    return edges


def harrell_c(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Of all pairs whose order in time is known, the share that the risk puts in that order (Harrell et al. 1982).

    Known is that i comes before j if i has an event and t_j > t_i, or t_j = t_i and j is censored. Equal risks count
    half.

    Args:
        risk: (N,), higher means sooner.
        time: (N,).
        event: (N,) true for an event, false for censored.

    Returns:
        In [0, 1], 0.5 by chance; NaN where no pair has a known order.
    """
    risk, time, event = np.asarray(risk), np.asarray(time), np.asarray(event, dtype=bool)
    is_known = event[:, None] & ((time[None] > time[:, None]) | ((time[None] == time[:, None]) & ~event[None]))
    score = (risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None])
    return float(score[is_known].mean()) if is_known.any() else float("nan")


def _masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """Of (N,) values in each row of an (N, N) mask, none of them empty."""
    return values[None, :].expand_as(mask).masked_fill(~mask, -torch.inf).logsumexp(1)
