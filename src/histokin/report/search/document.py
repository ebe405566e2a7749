"""What the page of a search says, as plain data: the contract between `pipeline`, which fills it, and this room.

Rules as in `report.document`: texts are shown as they are (escaped), pictures are JPEG or PNG bytes, numbers are not
rounded. Places are level-0 pixels of the slide they lie in; those of a picture from outside are its own pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from histokin import artefacts
from histokin.report import wording
from histokin.report.document import SlideCard
from histokin.report.write import without_pictures
from histokin.search.region import Box

FORMAT_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Cutout:
    """A place and, where it was drawn, the picture of exactly this place."""

    box: Box
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked.

    Attributes:
        kind: what it is; a `picture` comes from outside and has no slide.
        name: in headings, such as a file's name or "tile 17 of S1".
        n_tiles: tiles that it is made of.
        n_asked: tiles that asked; fewer where many were drawn down to a few that stand for them by their weight.
        slide, patient: "" where there is none.
        box: its place; None for a whole slide.
        mpp: um a pixel of the box's pixels; None where unknown.
        labels: of its slide by column, e.g. {"site": "B"}.
        image: shows the box, or the whole slide.
        context: a wider field round it, of the same shape; what lies beyond the slide's edge is blank.
    """

    kind: Literal["tile", "region", "picture", "slide"]
    name: str
    n_tiles: int = 1
    n_asked: int = 1
    slide: str = ""
    patient: str = ""
    box: Box | None = None
    mpp: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    image: bytes | None = None
    context: Cutout | None = None

    def __post_init__(self) -> None:
        _check("Query", self.kind, ("tile", "region", "picture", "slide"))

    @property
    def box_um(self) -> tuple[float, float] | None:
        """(width, height) in um; None without a place or a pixel size."""
        return None if self.box is None or self.mpp is None else (self.box.w * self.mpp, self.box.h * self.mpp)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What could not answer, in words, e.g. "patient P7, whose the query is", and how much that was."""

    what: str
    n_slides: int
    n_tiles: int


@dataclass(frozen=True, slots=True)
class Searched:
    """What could answer, and how it was searched.

    Attributes:
        n_tiles, n_slides, n_patients, n_sites: that could answer, after all filters; 0 patients or sites: unknown.
        encoder, fingerprint: whose vectors were compared.
        mpp, tile_px: of its tiles; 0 where unknown.
        how: every vector compared, or the nearest lists of an index.
        strategy: how one score comes of many tiles, such as maxsim; "" where a tile met a tile.
        nprobe: lists probed a query; None for exact.
        recall: of the index against exact search, as it was measured; None where it was not.
        keep: filters, the values allowed by column.
        left_out: what was not allowed to answer.
        version: of the archive's state, e.g. its digest; no clock.
    """

    n_tiles: int
    n_slides: int
    n_patients: int
    n_sites: int
    encoder: str
    fingerprint: str
    mpp: float
    tile_px: int
    how: Literal["exact", "index"] = "exact"
    strategy: str = ""
    nprobe: int | None = None
    recall: float | None = None
    keep: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    version: str = ""

    def __post_init__(self) -> None:
        _check("Searched", self.how, ("exact", "index"))


@dataclass(frozen=True, slots=True)
class Pair:
    """A tile of the query, the tile of the answer that it met, and its share of the answer's score (0 to 1)."""

    query: Cutout
    answer: Cutout
    score: float
    share: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        rank: from 1.
        score: larger is more alike.
        slide: its id; patient "" where unknown.
        labels: by column; "" or absent where unknown.
        box: its place; None for a whole slide, and where the size of tiles is not known.
        percentile: share, in percent, of random pairs across patients that score lower; None where not measured.
        p: of the novelty test for this score; None where it cannot be calibrated.
        image: shows the box at the query's scale; a whole slide is shown by its thumbnail.
        context: as of the query.
        evidence: which tiles met, best first; those without pictures still count in the heat on the query.
        tile: its number on the slide, by which it is pinned or rejected; None where no single tile answers.
    """

    rank: int
    score: float
    slide: str
    patient: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    box: Box | None = None
    percentile: float | None = None
    p: float | None = None
    image: bytes | None = None
    context: Cutout | None = None
    evidence: list[Pair] = field(default_factory=list)
    tile: int | None = None

    @property
    def witness(self) -> str:
        """Whose answer it is: several of one patient are one witness, and without patients several of one slide."""
        return f"patient {self.patient}" if self.patient else f"slide {self.slide}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the answering patients' tissue is labelled; each patient counts once, by the best answer.

    Attributes:
        column: of the labels.
        n: patients that answered (slides where the patient is not known).
        counts: (label, patients), the most frequent first, equal counts by label.
        n_unlabelled: patients without a label; they count in `n`.
        is_by_patient: whether every patient is known.
    """

    column: str
    n: int
    counts: list[tuple[str, int]]
    n_unlabelled: int = 0
    is_by_patient: bool = True

    @classmethod
    def of(cls, answers: Sequence[Answer], column: str) -> "Agreement":
        """Count the labels of ranked answers."""
        found: dict[str, str] = {}
        for answer in answers:
            found.setdefault(answer.witness, answer.labels.get(column, ""))
        counts = Counter(label for label in found.values() if label)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        n_unlabelled = len(found) - sum(counts.values())
        return cls(column, len(found), ordered, n_unlabelled, all(answer.patient for answer in answers))

    @property
    def agreed(self) -> str | None:
        """The label of more than half of all that answered, from two on; None where there is no agreement."""
        label, k = self.counts[0] if self.counts else ("", 0)
        return label if k >= 2 and 2 * k > self.n else None


@dataclass(frozen=True, slots=True)
class NoveltyTest:
    """Whether the archive holds anything like the query at all; one number a patient of the archive calibrates it.

    Attributes:
        alpha: error rate: at most this share of queries from the archive's own kind are called foreign.
        n_patients: that calibrate.
        score: the query's best; None where nothing answered.
        threshold: below it nothing is a good match; None where it cannot be calibrated.
        p: of the score, (1 + number of patients whose best is no higher) / (n + 1); None likewise.
        within: the class or organ that calibrates, "" for all together.
    """

    alpha: float
    n_patients: int
    score: float | None = None
    threshold: float | None = None
    p: float | None = None
    within: str = ""

    @property
    def verdict(self) -> Literal["match", "no match", "not calibrated"]:
        """Whether the best score reaches the threshold; nothing found is no match wherever there is a threshold."""
        if self.threshold is None:
            return "not calibrated"
        return "match" if self.score is not None and self.score >= self.threshold else "no match"


@dataclass(frozen=True, slots=True)
class SearchDocument:
    """A whole search.

    Attributes:
        title, command: of the page; the command is shown so that it can be repeated.
        level: what an answer is.
        answers: by rank.
        slides: thumbnail, size and pixel size by slide id; those not in it are named without a picture.
        by_patient: the labels of the answering patients, a column each; the first one names and colours the answers.
        test: None where none was asked for.
        warnings: what makes the answers doubtful: the query's patient allowed, a site outside the calibration.
        notes: what else a reader should know.
        created_with: versions by package.
    """

    title: str
    command: str
    query: Query
    searched: Searched
    level: Literal["tile", "region", "slide"]
    answers: list[Answer]
    slides: dict[str, SlideCard] = field(default_factory=dict)
    by_patient: list[Agreement] = field(default_factory=list)
    test: NoveltyTest | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    created_with: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("SearchDocument", self.level, ("tile", "region", "slide"))
        if any(first.rank >= second.rank for first, second in pairwise(self.answers)):
            raise ValueError(f"SearchDocument: answers are not in rank order: {[a.rank for a in self.answers]}")

    @property
    def label_column(self) -> str:
        """The column whose labels name and colour the answers; "" where there is none."""
        return self.by_patient[0].column if self.by_patient else ""

    @property
    def digests(self) -> dict[str, str]:
        """Fingerprints of what was searched."""
        known = {"encoder": self.searched.fingerprint, "archive": self.searched.version}
        return {name: digest for name, digest in known.items() if digest}

    def label_of(self, answer: Answer) -> str:
        """The answer's label in that column; "" where it has none."""
        return answer.labels.get(self.label_column, "")

    def to_json(self) -> dict[str, Any]:
        """The whole document as plain data, nothing rounded; pictures stand as size and SHA-256."""
        told = wording.clean(without_pictures(artefacts.plain(self)))
        told["query"]["box_um"] = self.query.box_um and list(self.query.box_um)
        return {"format": "search", "format_version": FORMAT_VERSION, **told}


def _check(owner: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"{owner}: unknown kind {given!r}, known are {', '.join(known)}")
