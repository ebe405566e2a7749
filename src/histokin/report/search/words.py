"""What the page of a search says in sentences: what was searched, whether anything is alike, what it cannot know."""

import math

from histokin.report import wording
from histokin.report.search.document import Agreement, Answer, NoveltyTest, SearchDocument, Searched
from histokin.search.calibration import fewest_patients
from histokin.search.region import Box

SCORE_DIGITS = 4
_KINDS = {"tile": "Tile", "region": "Region", "picture": "Picture", "slide": "Slide"}


def score(value: float | None) -> str:
    """A similarity with the digits that tell neighbours apart."""
    return wording.number(value, SCORE_DIGITS)


def length(um: float) -> str:
    """A length in the unit that reads best: 96 µm, 1.3 mm."""
    return f"{um / 1000:.3g} mm" if um >= 1000 else f"{um:.3g} µm"


def place(box: Box | None) -> str:
    """A box in level-0 pixels; "" for a whole slide."""
    return "" if box is None else f"x {box.x:,.0f}, y {box.y:,.0f}, {wording.pixels(round(box.w), round(box.h))}"


def percentile(share: float | None) -> str:
    """A percentile with one decimal, cut and never rounded up: 99.97 % is not all; "" where it was not measured."""
    if share is None or not math.isfinite(share):
        return ""
    return f"{math.floor(share * 10 + 1e-9) / 10:g} %"


def more_alike_than(share: float | None) -> str:
    """How many random pairs are less alike, in words; "" where it was not measured."""
    text = percentile(share)
    return f"above {'all' if share == 100 else f'{text} of'} random pairs" if text else ""


def asked(document: SearchDocument) -> list[str]:
    """Facts on the query, one a line."""
    query = document.query
    facts = [f"slide {query.slide}"] if query.slide and query.slide != query.name else []
    facts += [f"patient {query.patient}"] if query.patient else []
    facts += [f"{column} {value}" for column, value in query.labels.items() if value]
    if query.box:
        facts.append(place(query.box))
    if query.box_um:
        facts.append(" × ".join(length(side) for side in query.box_um))
    if query.kind != "slide" and query.mpp is None:
        facts.append("scale unknown")
    if query.n_tiles > query.n_asked:
        facts.append(f"{query.n_tiles:,} tiles, {query.n_asked:,} of them asked, weighted for all they stand for")
    elif query.kind != "tile":
        facts.append(wording.counted(query.n_tiles, "tile"))
    return facts


def kind(document: SearchDocument) -> str:
    """What the query is, as a heading."""
    return f"{_KINDS[document.query.kind]} asked"


def summary(document: SearchDocument) -> str:
    """What was searched for what, in one sentence."""
    searched = document.searched
    said = [wording.counted(searched.n_tiles, "tile"), wording.counted(searched.n_slides, "slide")]
    said.append(wording.counted(searched.n_patients, "patient") if searched.n_patients else "unknown patients")
    said += [wording.counted(searched.n_sites, "site")] if searched.n_sites else []
    found = f"{wording.counted(len(document.answers), document.level)} most like the {document.query.kind} asked, from"
    if not document.answers:
        found = f"No {document.level} answered out of"
    return f"{found} {said[0]} of {wording.joined(said[1:])}, compared by {searched.encoder}."


def searched_facts(searched: Searched) -> list[tuple[str, str]]:
    """(name, text) of everything that decided what could be found."""
    how = "exact: every vector was compared"
    if searched.how == "index":
        how = "index" + (f", {wording.counted(searched.nprobe, 'list')} probed" if searched.nprobe else "")
        known = searched.recall is not None
        how += f"; finds {wording.percent(searched.recall)} of what an exact search does" if known else ""
    tiles = f"{searched.tile_px} px" if searched.tile_px else "of a size that is not known"
    if searched.tile_px and searched.mpp:
        tiles += f" at {wording.pixel_size(searched.mpp)}: {length(searched.tile_px * searched.mpp)} wide"
    rows = [("encoder", searched.encoder), ("tiles", tiles)]
    rows += [("search", how)]
    rows += [("score of many tiles", searched.strategy)] if searched.strategy else []
    rows += [(f"only {column}", wording.joined(list(values))) for column, values in searched.keep.items()]
    for left_out in searched.left_out:
        size = f"{wording.counted(left_out.n_slides, 'slide')}, {wording.counted(left_out.n_tiles, 'tile')}"
        rows.append(("left out", f"{left_out.what} ({size})"))
    return rows if searched.left_out else [*rows, ("left out", "nothing")]


def verdict_sentences(test: NoveltyTest) -> tuple[str, str]:
    """(headline, explanation) of the novelty test."""
    who = f"{wording.counted(test.n_patients, 'patient')}" + (f" of {test.within}" if test.within else "")
    rate = f"{test.alpha * 100:g} %"
    if test.verdict == "not calibrated":
        why = f"an error rate of {rate} takes {fewest_patients(test.alpha)} patients, and there are {who}"
        then = "The answers are the nearest there are, however far."
        return "A good match cannot be told from a poor one", f"The threshold cannot be calibrated: {why}. {then}"
    p = f"; {wording.p_value(test.p)}" if wording.p_value(test.p) else ""
    against = f"{score(test.threshold)} (error rate {rate}, calibrated on {who}{p})"
    best = f"The best score, {score(test.score)}," if test.score is not None else ""
    if test.verdict == "match":
        then = "That is no probability that a label is right."
        return "Tissue of a kind that the archive knows", f"{best} reaches {against}. {then}"
    if not best:
        return "No good match", f"Nothing answered; the threshold is {against}."
    then = "What is shown is the least unlike, and its labels say little about this tissue."
    return "No good match", f"{best} is below {against}. {then}"


def agreement(found: Agreement) -> str:
    """The label and how many bear it, as in "4 of 5 patients: tumour", or "no agreement" with what there is."""
    noun = "patient" if found.is_by_patient else "patient or slide"
    of = wording.counted(found.n, noun) if found.is_by_patient else f"{found.n:,} patients or slides"
    if found.agreed is not None:
        return f"{found.counts[0][1]:,} of {of}: {found.agreed}"
    if found.n == 1 and found.counts:
        return f"{of}: {found.counts[0][0]}"
    said = [f"{label} {k:,}" for label, k in found.counts]
    said += [f"{found.n_unlabelled:,} {wording.UNLABELLED}"] if found.n_unlabelled else []
    return f"no agreement among {of}" + (f": {', '.join(said)}" if said else "")


def answer_name(answer: Answer, label: str) -> str:
    """An answer where pictures cannot be seen."""
    return f"answer {answer.rank}, {label or wording.UNLABELLED}, slide {answer.slide}"


def unknown(document: SearchDocument) -> list[str]:
    """What no search can know, said with this one's own numbers."""
    searched, answers = document.searched, document.answers
    tiles = "its tiles"
    if searched.tile_px and searched.mpp:
        tiles = f"tiles {length(searched.tile_px * searched.mpp)} wide at {wording.pixel_size(searched.mpp)}"
    slides = wording.counted(searched.n_slides, "slide")
    n_answers = wording.counted(len(answers), "answer")
    beyond = "in a larger field, at a higher magnification, in other stains or in the history"
    said = [
        f"It finds what looks alike to {searched.encoder} in {tiles}. What shows only {beyond} is not in it.",
        f"Only tissue of the {slides} searched can be found. What none of them shows has no right answer here.",
        "A score is a likeness, not a probability. It is compared with other scores of this encoder only.",
    ]
    column = document.label_column
    if column:
        unlabelled = sum(not document.label_of(answer) for answer in answers)
        text = f"Labels ({column}) are the archive's, taken as they were given; nobody checked them for this search."
        said.append(f"{text} Without one: {unlabelled:,} of {n_answers}." if unlabelled else text)
    site, own = document.query.labels.get("site", ""), [answer.labels.get("site", "") for answer in answers]
    if site and any(own):
        alike = "Stain and scanner alone can make tissue look alike."
        said.append(f"From the query's own site: {own.count(site):,} of {n_answers}. {alike}")
    if searched.how == "index":
        said.append("An index does not compare everything: a better answer can be missed. An exact search would tell.")
    return said
