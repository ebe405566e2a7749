"""Protocols without classification: distance in tissue, quality without labels, robustness to centres, leaks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.errors import EvaluationError
from histokin.evaluate import compare_robustness, compare_spatial, label_free
from histokin.evaluate.label_free import LabelFree, alignment
from histokin.evaluate.robustness import clustering_score
from histokin.evaluate.spectrum import lidar
from histokin.pipeline.evaluation.case import Case, counts_of, encoders_and_floors
from histokin.pipeline.evaluation.columns import neighbours
from histokin.pipeline.evaluation.table import Vectors
from histokin.pipeline.measures import measure_of
from histokin.report import Quantity

MOST_ROWS = 5_000
LEAST_VIEWS = 10
"""Tiles a slide from which LiDAR takes slides for objects."""


def distance_ratio(case: Case) -> dict[str, Any]:
    """Average descriptor distance ratio, global and by slide (Gildenblat & Klaiman)."""
    if case.table.places is None:
        raise EvaluationError(
            "it is not known where on their slides the tiles lie, in micrometres",
            "evaluation",
            "Take a workspace; or coords in level-0 px and a column mpp in --labels.",
        )
    found = compare_spatial(
        case.encoders,
        case.columns.slide,
        case.table.places,
        pitch_um=case.table.pitch_um,
        **case.comparing(),
    )
    slides = next(iter(found.slides.values()))
    notes = [f"{slide} takes no part: {reason}." for slide, reason in list(found.dropped.items())[:5]]
    if len(found.dropped) > len(notes):
        notes.append(f"{len(found.dropped) - len(notes)} more slides take no part.")
    return {
        "measures": [measure_of("distance ratio", found, list(case.encoders), ("addr", "addr_median"))],
        "counts": {**counts_of(case), "slides with pairs": len(slides)},
        "notes": notes,
    }


def quality(case: Case) -> dict[str, Any]:
    """Label-free measures, side by side."""
    columns = case.columns
    groups = {"slide": columns.picture}
    if len(set(columns.patient)) < len(set(columns.picture)):
        groups["patient"] = columns.patient
    if any(columns.site):
        groups["site"] = columns.site
    coded = {name: np.unique(column.astype(str), return_inverse=True)[1] for name, column in groups.items()}
    rows = encoders_and_floors(case)
    found = {name: label_free(x, groups=coded, max_rows=MOST_ROWS, seed=case.spec.seed) for name, x in rows.items()}
    quantities = [
        Quantity(name, meaning, {row: float(getattr(one, attribute)) for row, one in found.items()})
        for attribute, name, meaning in _MEASURES
    ]
    some = next(iter(found.values()))
    quantities += [
        Quantity(
            f"same {group} nearby",
            f"share of the {some.k} nearest, {chance:.3f} by chance; high: the encoder knows the {group}",
            {row: one.purity[group] for row, one in found.items()},
        )
        for group, chance in some.purity_chance.items()
    ]
    quantities += [*_near_alignment(case, rows), *_lidar(rows, coded["slide"])]
    quantities.append(Quantity("vectors", "measured; ranks depend on how many", {r: one.n for r, one in found.items()}))
    quantities.append(
        Quantity("dimensions", "their length; ranks depend on it", {r: one.d for r, one in found.items()})
    )
    return {"quantities": quantities, "notes": _collapsed(found, case)}


_MEASURES = (
    ("rankme_centred", "effective rank", "dimensions in use (RankMe, centred); near 1 when collapsed"),
    ("rankme", "RankMe", "the same before the mean is taken away"),
    ("participation_ratio", "participation ratio", "dimensions that carry the variance"),
    ("alpha_req", "alpha-ReQ", "decay of the spectrum; 1 is good, far above collapsed, far below noise"),
    ("uniformity", "uniformity", "lower is more even; about -4 on a full sphere, 0 when collapsed"),
    ("mean_cosine", "mean cosine", "of all pairs; near 1 when all vectors are alike"),
    ("spread", "spread", "1 when unit vectors fill all dimensions evenly, 0 when collapsed"),
    ("dead_share", "dead dimensions", "share of dimensions that hardly vary"),
)


def _collapsed(found: dict[str, LabelFree], case: Case) -> list[str]:
    return [
        f"{name} has collapsed: all its vectors are nearly alike." for name in case.encoders if found[name].is_collapsed
    ]


def _near_alignment(case: Case, rows: Mapping[str, Vectors]) -> list[Quantity]:
    """Mean squared distance of each tile's unit vector to its nearest tile's in tissue."""
    places = case.table.places
    if places is None:
        return []
    first, second = neighbours(case.table.rows.slide, places)
    if not len(first):
        return []
    values = {name: alignment(x[first], x[second]) for name, x in rows.items()}
    meaning = (
        "mean squared distance of unit vectors of tiles that lie next to each other; 0 when alike, 2 when unrelated"
    )
    return [Quantity("alignment of neighbouring tiles", meaning, values)]


def _lidar(rows: Mapping[str, Vectors], slide: NDArray[np.int64]) -> list[Quantity]:
    """LiDAR with slides as objects and their tiles as views."""
    sizes = np.bincount(slide)
    if (sizes >= LEAST_VIEWS).sum() < 2:
        return []
    kept = np.flatnonzero(sizes[slide] >= LEAST_VIEWS)[: 4 * MOST_ROWS]
    values: dict[str, float | None] = {name: lidar(x[kept], slide[kept]) for name, x in rows.items()}
    meaning = "directions in which slides differ more than tiles within; a rank, no strength: noise scores high too"
    return [Quantity("LiDAR of slides", meaning, values)]


def robustness(case: Case) -> dict[str, Any]:
    """Whether neighbours follow the class or the centre (PathoROB)."""
    columns = case.columns
    if len(set(columns.site) - {""}) < 2:
        raise EvaluationError(
            "fewer than two sites are known", "evaluation", "Fill a column `site` of the cohort or of --labels."
        )
    found = compare_robustness(
        case.encoders,
        case.texts,
        columns.site,
        columns.patient,
        columns.picture,
        floors=case.floors,
        leave_out="slide" if case.spec.leave_out == "slide" else "patient",
        seed=case.spec.seed,
        progress=case.report,
    )
    unit = case.spec.leave_out
    scores = {
        name: clustering_score(x, case.texts, columns.site, seed=case.spec.seed)
        for name, x in encoders_and_floors(case).items()
    }
    meaning = "agreement of k-means clusters with the class minus with the site; above 0: clusters follow the class"
    return {
        "measures": [measure_of("robustness", found, list(case.encoders), ("robustness_index",))],
        "quantities": [Quantity("clustering score", meaning, {name: one.value for name, one in scores.items()})],
        "notes": [] if unit in ("patient", "slide") else [f"The patient is left out here, not the {unit}."],
    }
