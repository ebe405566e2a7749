"""From a search's document to what its template lays out: the query, answers by patient, and the evidence of each."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import palette, wording
from histokin.report.document import SlideCard
from histokin.report.figures import share_bar
from histokin.report.search import figures, words
from histokin.report.search.document import Answer, Cutout, Pair, SearchDocument
from histokin.search.region import Box

_SAME_FIELD = 0.02  # widths that differ by no more show tissue at one scale


def label_slots(document: SearchDocument) -> dict[str, palette.Slot]:
    """One palette slot a label of the column that names the answers."""
    counted = {label for label, _ in document.by_patient[0].counts} if document.by_patient else set[str]()
    return palette.assign(counted | {document.label_of(answer) for answer in document.answers})


def label_columns(document: SearchDocument) -> list[str]:
    """Every column in which an answer has a label, the one that names them first."""
    found = dict.fromkeys(column for answer in document.answers for column, text in answer.labels.items() if text)
    return sorted(found, key=lambda column: column != document.label_column)


def shared_pictures(document: SearchDocument) -> dict[bytes, str]:
    """Pictures that stand in several places, with the name by which they are shown."""
    query, answers, slides = document.query, document.answers, document.slides
    named = [query.slide, *(answer.slide for answer in answers)]
    images = [query.image, *(slides[slide].thumbnail for slide in named if slide in slides)]
    images += [pair.query.image for answer in answers for _, pair in _numbered(answer)]
    return {image: f"picture-{number}" for number, image in enumerate(dict.fromkeys(filter(None, images)), start=1)}


# ---- the query


@dataclass(frozen=True, slots=True)
class QueryView:
    """The query's picture with a scale bar, its wider field and its place on its slide."""

    picture: Markup
    scale_bar: Markup
    context: Cutout | None
    outline: Markup
    context_bar: Markup
    on_slide: Markup
    facts: list[str]
    heat: Markup
    most: float


def query_view(document: SearchDocument, shared: Mapping[bytes, str]) -> QueryView:
    """Lay out the query; `heat` is each tile's mean share over all answers with evidence, `most` the largest."""
    query = document.query
    area, name = _query_area(document, shared)
    mean = _mean_shares(document)
    heat = Markup("")
    if mean and area and name:
        heat = figures.heat(area, name, mean, f"Mean share of {len(mean)} tiles of the query in the scores", {})
    picture = Markup("")
    if area and name:
        label = f"{query.kind} asked: {query.name}"
        picture = figures.drawing(area, name, Markup(""), label, "asked-picture")
    width_um = area.w * query.mpp if area and query.mpp else None
    card = document.slides.get(query.slide)
    context_um = query.context.box.w * query.mpp if query.context and query.mpp else None
    return QueryView(
        picture,
        figures.scale_bar(width_um) if picture else Markup(""),
        query.context,
        figures.field_outline(query.context.box, query.box) if query.context and query.box else Markup(""),
        figures.scale_bar(context_um),
        _on_slide(card, shared, [query.box], f"place of the query on slide {query.slide}") if query.box else Markup(""),
        words.asked(document),
        heat,
        max(mean.values(), default=0.0),
    )


def _query_area(document: SearchDocument, shared: Mapping[bytes, str]) -> tuple[Box | None, str]:
    """What the query's picture shows, and the picture's name; a whole slide is shown by its thumbnail."""
    query, card = document.query, document.slides.get(document.query.slide)
    is_whole = query.box is None and card is not None and card.width > 0 and card.height > 0
    area = Box(0, 0, card.width, card.height) if is_whole and card else query.box
    image = query.image or (card.thumbnail if is_whole and card else None)
    return area, shared[image] if image else ""


def _mean_shares(document: SearchDocument) -> dict[Box, float]:
    """How much each of the query's tiles carried over all answers that have evidence; {} for a single one."""
    carried = [_shares(answer.evidence) for answer in document.answers if answer.evidence]
    mean: dict[Box, float] = defaultdict(float)
    for shares in carried if len(carried) > 1 else ():
        for box, share in shares.items():
            mean[box] += share / len(carried)
    return mean


def _shares(pairs: list[Pair]) -> dict[Box, float]:
    shares: dict[Box, float] = defaultdict(float)
    for pair in pairs:
        shares[pair.query.box] += pair.share
    return shares


# ---- answers


@dataclass(frozen=True, slots=True)
class AnswerView:
    """One answer as a card; `field` names its width where it is not the query's."""

    answer: Answer
    label: str
    slot: palette.Slot
    name: str
    percentile: str
    more_labels: list[tuple[str, str]]
    scale_bar: Markup
    outline: Markup
    context_bar: Markup
    on_slide: Markup
    field: str
    has_evidence: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The answers of one patient, best first."""

    witness: str
    answers: list[AnswerView]


def groups(document: SearchDocument, shared: Mapping[bytes, str], slots: Mapping[str, palette.Slot]) -> list[Group]:
    """Answers by patient, patients by their best answer: five tiles of one patient are one witness."""
    found: dict[str, list[AnswerView]] = defaultdict(list)
    for answer in document.answers:
        found[answer.witness].append(_answer_view(document, answer, shared, slots))
    return [Group(witness, views) for witness, views in found.items()]


def _answer_view(
    document: SearchDocument, answer: Answer, shared: Mapping[bytes, str], slots: Mapping[str, palette.Slot]
) -> AnswerView:
    label, card = document.label_of(answer), document.slides.get(answer.slide)
    mpp = card.mpp if card else None
    width_um = answer.box.w * mpp if answer.box and mpp else None
    context = answer.context
    boxes = [answer.box] if answer.box else [pair.answer.box for _, pair in _numbered(answer)]
    return AnswerView(
        answer,
        label,
        slots[label],
        words.answer_name(answer, label),
        words.more_alike_than(answer.percentile),
        [(column, text) for column, text in answer.labels.items() if text and column != document.label_column],
        figures.scale_bar(width_um) if answer.image else Markup(""),
        figures.field_outline(context.box, answer.box) if context and answer.box else Markup(""),
        figures.scale_bar(context.box.w * mpp) if context and mpp else Markup(""),
        _on_slide(card, shared, boxes, f"place of answer {answer.rank} on slide {answer.slide}"),
        _field_words(document, width_um),
        bool(_numbered(answer)),
    )


def _field_words(document: SearchDocument, width_um: float | None) -> str:
    asked = document.query.box_um
    if width_um is None or asked is None or abs(width_um - asked[0]) <= _SAME_FIELD * asked[0]:
        return ""
    return f"{words.length(width_um)} wide"


def _on_slide(card: SlideCard | None, shared: Mapping[bytes, str], boxes: list[Box], label: str) -> Markup:
    if card is None or card.thumbnail is None or card.width < 1 or card.height < 1:
        return Markup("")
    return figures.place_on_slide(card, shared[card.thumbnail], boxes, label)


# ---- evidence


@dataclass(frozen=True, slots=True)
class PairView:
    """Two tiles that met, side by side."""

    pair: Pair
    number: int
    anchor: str
    asked: Markup
    name: str


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """What carried one answer's score; `rest` is the share of the pairs that are not shown."""

    answer: Answer
    label: str
    slot: palette.Slot
    heat: Markup
    strip: Markup
    pairs: list[PairView]
    rest: float


def evidence(
    document: SearchDocument, shared: Mapping[bytes, str], slots: Mapping[str, palette.Slot]
) -> list[EvidenceView]:
    """The pairs of every answer that has pictures of them."""
    return [_evidence_view(document, answer, shared, slots) for answer in document.answers if _numbered(answer)]


def _numbered(answer: Answer) -> list[tuple[int, Pair]]:
    """The pairs that can be shown side by side, numbered from 1."""
    shown = [pair for pair in answer.evidence if pair.query.image and pair.answer.image]
    return list(enumerate(shown, start=1))


def _evidence_view(
    document: SearchDocument, answer: Answer, shared: Mapping[bytes, str], slots: Mapping[str, palette.Slot]
) -> EvidenceView:
    label, numbered = document.label_of(answer), _numbered(answer)
    pairs = []
    for number, pair in numbered:
        name = f"pair {number} of answer {answer.rank}"
        asked = figures.shown(shared[pair.query.image or b""], f"{name}: tile of the query")
        pairs.append(PairView(pair, number, f"pair-{answer.rank}-{number}", asked, name))
    area, picture = _query_area(document, shared)
    heat = Markup("")
    if area and picture:
        links = {view.pair.query.box: (view.anchor, str(view.number)) for view in pairs}
        heat = figures.heat(
            area, picture, _shares(answer.evidence), f"What of the query carried answer {answer.rank}", links
        )
    numbers = {id(pair): number for number, pair in numbered}
    return EvidenceView(
        answer,
        label,
        slots[label],
        heat,
        figures.share_row([(pair, numbers.get(id(pair), 0)) for pair in answer.evidence]),
        pairs,
        max(0.0, 1 - sum(pair.share for _, pair in numbered)),
    )


# ---- labels by patient


@dataclass(frozen=True, slots=True)
class AgreementView:
    """What the patients that answered are labelled, in words and as a bar of patients."""

    column: str
    sentence: str
    bar: Markup
    legend: list[tuple[str, int, palette.Slot]]


def agreement_views(document: SearchDocument, slots: Mapping[str, palette.Slot]) -> list[AgreementView]:
    """Each column's count; the one that colours the answers is drawn as well."""
    views = []
    for found in document.by_patient:
        counts = [*found.counts, *([("", found.n_unlabelled)] if found.n_unlabelled else [])]
        sentence, bar, legend = words.agreement(found), Markup(""), []
        if found.column == document.label_column:
            legend = [(label or wording.UNLABELLED, k, slots[label]) for label, k in counts]
            bar = share_bar([(label, k / found.n, slot) for label, k, slot in legend], label=sentence)
        views.append(AgreementView(found.column, sentence, bar, legend))
    return views
