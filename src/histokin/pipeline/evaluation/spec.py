"""What is asked of an evaluation."""

from dataclasses import dataclass

from histokin.evaluate.items import LeaveOut
from histokin.evaluate.votes import VoteRule

CHOSEN_COLUMNS = ("label", "diagnosis")
"""Columns taken without asking, in this order."""
QUICK = ("retrieval", "slides", "label-free")
"""Protocols of `histokin run` and of an `evaluate` that names none."""


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """What is evaluated and how.

    Attributes:
        label: column of tiles or slides; None takes `label`, then `diagnosis`.
        leave_out: whose tiles neither answer nor are fitted on.
        protocols: names of the registry.
        k: lengths of the answer lists.
        vote: rule of the votes.
        seed: of sampling, bootstrap and permutations.
    """

    label: str | None = None
    leave_out: LeaveOut = "patient"
    protocols: tuple[str, ...] = QUICK
    k: tuple[int, ...] = (1, 3, 5)
    vote: VoteRule = "rank"
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that may be asked for."""
        return (self.label,) if self.label else CHOSEN_COLUMNS
