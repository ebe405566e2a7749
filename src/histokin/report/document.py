"""What a report says, as plain data: the contract between `pipeline`, which fills it, and this room, which shows it.

Texts are shown as they are (escaped). Pictures are JPEG or PNG bytes, already small. A section that is None is left out
of the page. Numbers are given as they were computed: rounding is the page's business.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class SlideCard:
    """One slide of the cohort, usable or not; no slide is ever left out of the document.

    `state` is a state of `cohort` (`ok`, `no_mpp`, ...), `reason` its explanation in words ("" where there is nothing
    to explain). Unknown sizes are None, or 0 for width and height.
    """

    slide: str
    patient: str
    state: str
    reason: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    mpp: float | None = None
    width: int = 0
    height: int = 0
    tissue_mm2: float | None = None
    n_tiles: int = 0
    thumbnail: bytes | None = None

    @property
    def is_usable(self) -> bool:
        """A slide counts as used if nothing is wrong with it, or if tiles came of it in spite of a remark."""
        return self.state == "ok" or self.n_tiles > 0


@dataclass(frozen=True, slots=True)
class CohortSection:
    """The slides the run began with; `n_patients` is 0 where patients are not known.

    `tile` describes the tiles in words, e.g. "256 px at 1.0 µm/px".
    """

    kind: Literal["slides", "tiles"]
    n_slides: int
    n_usable: int
    n_patients: int
    n_tiles: int
    tile: str
    slides: list[SlideCard] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_kind("CohortSection", self.kind, ("slides", "tiles"))


@dataclass(frozen=True, slots=True)
class TrainingSection:
    """How the encoder was trained.

    `curve` has a dict per logged step with `step`, `loss` and `lr`; `monitors` one with `step` and any of
    `feature_std`, `rank`, `alignment`, `uniformity`. `verdict` is a sentence; `is_collapsed` makes the page warn.
    """

    method: str
    backbone: str
    seed: int
    steps: int
    batch: int
    seconds: float | None
    recipe: dict[str, Any]
    curve: list[dict[str, float]]
    monitors: list[dict[str, float]]
    embed_dim: int
    verdict: str
    is_collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """A number with its interval; `value` None where it could not be computed, `note` then says why.

    `p` is that of a difference, adjusted for the table's comparisons; None where there is none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    p: float | None = None


@dataclass(frozen=True, slots=True)
class MetricRow:
    """What one encoder, floor or (in `per_class`) class reached.

    `delta` is the trained encoder minus this row for the table's headline metric, paired by query, `p` its p value.
    """

    name: str
    kind: Literal["encoder", "floor", "chance", "class"]
    values: dict[str, Value]
    delta: Value | None = None
    p: float | None = None

    def __post_init__(self) -> None:
        _check_kind("MetricRow", self.kind, ("encoder", "floor", "chance", "class"))


@dataclass(frozen=True, slots=True)
class MetricTable:
    """One protocol's results.

    The first row of kind `encoder` is the trained encoder, all others are what it is held against. `protocol` is a
    sentence (what was excluded, how votes were counted). `headline` names the metric that is drawn and quoted; "" takes
    the trained row's first. `chance` gives each metric's chance level, `prevalence` each class's share of the queries.
    """

    title: str
    protocol: str
    level: str
    n_queries: int
    n_patients: int
    prevalence: dict[str, float]
    chance: dict[str, float]
    rows: list[MetricRow]
    per_class: list[MetricRow] = field(default_factory=list)
    headline: str = ""

    @property
    def trained(self) -> MetricRow | None:
        """The trained encoder's row."""
        return next((row for row in self.rows if row.kind == "encoder"), None)

    @property
    def metrics(self) -> list[str]:
        """Every metric of any row, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.values))

    @property
    def headline_metric(self) -> str:
        """The metric that is drawn and quoted; "" for a table without values."""
        own = list(self.trained.values) if self.trained else []
        return self.headline or next(iter(own + self.metrics), "")


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that needs no labels, and what it means."""

    name: str
    value: float | None
    meaning: str


@dataclass(frozen=True, slots=True)
class EvaluationSection:
    """How good the embeddings are.

    `controls` are sentences on the negative controls; `why_not` says why there is no table where there is none.
    """

    tables: list[MetricTable] = field(default_factory=list)
    label_free: list[Measure] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a search: the query, or one of its hits (`is_right` None: not judged, e.g. without labels)."""

    image: bytes
    slide: str
    patient: str
    label: str = ""
    score: float | None = None
    is_right: bool | None = None
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A query and its hits, best first."""

    kind: Literal["tile", "slide"]
    query: Picture
    hits: list[Picture]

    def __post_init__(self) -> None:
        _check_kind("Example", self.kind, ("tile", "slide"))


@dataclass(frozen=True, slots=True)
class SearchSection:
    """Examples of retrieval, right ones and wrong ones; `note` says how they were chosen."""

    examples: list[Example]
    note: str = ""


@dataclass(frozen=True, slots=True)
class MapSection:
    """Tiles (or slides) in two dimensions; all lists have one entry a point, "" where a class is not known.

    `thumbs` are small pictures shown at the pointer. `note` says what was drawn, e.g. how many tiles were sampled or
    how much of the variance the two axes hold.
    """

    method: Literal["PCA", "UMAP"]
    x: list[float]
    y: list[float]
    class_: list[str]
    slide: list[str]
    patient: list[str]
    thumbs: list[bytes] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        _check_kind("MapSection", self.method, ("PCA", "UMAP"))
        columns = (self.x, self.y, self.class_, self.slide, self.patient, *([self.thumbs] if self.thumbs else []))
        lengths = [len(column) for column in columns]
        if len(set(lengths)) > 1:
            raise ValueError(f"MapSection: x, y, class_, slide, patient(, thumbs) differ in length: {lengths}")


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """A whole report. `created_with` are versions by package, `digests` are fingerprints of what was made."""

    title: str
    subtitle: str
    command: str
    created_with: dict[str, str]
    cohort: CohortSection
    training: TrainingSection | None = None
    evaluation: EvaluationSection | None = None
    search: SearchSection | None = None
    embedding_map: MapSection | None = None
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


def _check_kind(owner: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"{owner}: unknown kind {given!r}, known are {', '.join(known)}")
