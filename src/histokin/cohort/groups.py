"""Who must never stand on both sides of a comparison: patients, and slides that are the same picture twice."""

from histokin.cohort.records import Cohort

UNNAMED = "slide:"  # begins the leave-out unit of a slide whose patient is not known


def patient_of(cohort: Cohort) -> dict[str, str]:
    """The leave-out unit of every slide: its patient, or the slide itself where no patient is known.

    Two slides with the same content under different ids join their patients to one unit, named after the first.
    """
    own = {r.slide: r.patient or UNNAMED + r.slide for r in cohort.records}
    joined: dict[str, str] = {}

    def root(unit: str) -> str:
        while unit in joined:
            unit = joined[unit]
        return unit

    for record in cohort.records:
        if record.twin_of:
            first, second = sorted((root(own[record.slide]), root(own[record.twin_of])))
            if first != second:
                joined[second] = first
    return {slide: root(unit) for slide, unit in own.items()}
