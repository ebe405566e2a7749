"""Who must never stand on both sides of a comparison: patients, and slides that are the same picture twice."""

from collections import defaultdict
from dataclasses import dataclass

from histokin.cohort.records import Cohort

UNNAMED = "slide:"  # begins the leave-out unit of a slide whose patient is not known


@dataclass(frozen=True, slots=True)
class LeaveOutUnits:
    """What is left out together with a query.

    Attributes:
        of_slide: the unit of every slide: its patient, or the slide itself where none is known.
        joined: units that share a picture, each to the one it counts as.
        picture: of every slide the id that its content counts as: its own, or that of the slide it repeats.
    """

    of_slide: dict[str, str]
    joined: dict[str, str]
    picture: dict[str, str]

    def of_tile(self, slide: str, patient: str) -> str:
        """The unit of a tile: its own patient's where it has one, else its slide's."""
        return self.joined.get(patient, patient) if patient else self.of_slide[slide]


def leave_out_units(cohort: Cohort) -> LeaveOutUnits:
    """Patients, with those joined who own slides of the same content under different ids."""
    own = {r.slide: r.patient or UNNAMED + r.slide for r in cohort.records}
    on_slide: dict[str, set[str]] = defaultdict(set)
    for slide, unit in own.items():
        on_slide[slide].add(unit)
    for tile in cohort.tiles:
        if tile.patient:
            on_slide[tile.slide].add(tile.patient)
    counts_as: dict[str, str] = {}

    def root(unit: str) -> str:
        while unit in counts_as:
            unit = counts_as[unit]
        return unit

    for record in cohort.records:
        if record.twin_of:
            first, *others = sorted({root(u) for u in on_slide[record.slide] | on_slide[record.twin_of]})
            counts_as.update(dict.fromkeys(others, first))
    joined = {unit: root(unit) for unit in counts_as}
    picture: dict[str, str] = {}
    for record in cohort.records:
        picture[record.slide] = picture.get(record.twin_of, record.twin_of or record.slide)
    return LeaveOutUnits({slide: root(unit) for slide, unit in own.items()}, joined, picture)
