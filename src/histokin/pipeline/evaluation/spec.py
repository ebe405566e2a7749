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
        queries: COLUMN=VALUE of the tiles or slides that ask in a search; "" lets all ask.
        database: COLUMN=VALUE of those that may answer; "" lets all answer. `leave_out` holds as well.
    """

    label: str | None = None
    leave_out: LeaveOut = "patient"
    protocols: tuple[str, ...] = QUICK
    k: tuple[int, ...] = (1, 3, 5)
    vote: VoteRule = "rank"
    seed: int = 0
    queries: str = ""
    database: str = ""

    def __post_init__(self) -> None:
        for condition in self.conditions:
            if not all(condition.partition("=")):
                raise ValueError(f"queries and database are COLUMN=VALUE, not {condition!r}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that may be asked for."""
        return (self.label,) if self.label else CHOSEN_COLUMNS

    @property
    def conditions(self) -> tuple[str, ...]:
        """What divides queries and database, as far as it is given."""
        return tuple(condition for condition in (self.queries, self.database) if condition)

    @property
    def beside(self) -> tuple[str, ...]:
        """Columns needed beside the label."""
        sides = [condition.partition("=")[0] for condition in self.conditions]
        return tuple(dict.fromkeys([*sides, *(["region"] if self.leave_out == "region" else [])]))
