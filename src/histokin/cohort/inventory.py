"""The inventory: open every slide once, read its size and pixel size, and give it a state with a reason."""

import unicodedata
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from histokin.artefacts import digest_file, digest_of
from histokin.cohort.records import Cohort, SlideRecord, TileRow
from histokin.cohort.sources import Origin, list_source
from histokin.cohort.states import Kind, State
from histokin.errors import NoResolution, SlideError, SlideMissing, SlideUnsupported
from histokin.progress import Reporter, silent
from histokin.slides import content_key, open_slide, picture_size
from histokin.slides.info import plausible_mpp
from histokin.slides.slide import impossible_mpp


def take_inventory(
    source: Path | str,
    *,
    mpp: float | None = None,
    kind: Kind | None = None,
    origin: Origin | None = None,
    report: Reporter = silent,
) -> Cohort:
    """List a folder, CSV or slide and find each slide's state.

    Args:
        source: folder of slides, CSV (slide, path, patient, labels, mpp), class folders or CSV of ready tiles, or
            one slide.
        mpp: level-0 pixel size in um for slides without one in the table; overrides what the files state.
        kind: "slides" or "tiles" if the user says, None to tell from the input.
        origin: what x, y of a tile table mean.
        report: progress.

    Raises:
        CohortError: the source itself cannot be read. A slide that cannot be used is a state, not an error.
    """
    listing = list_source(Path(source), kind=kind, mpp=mpp, origin=origin)
    looked_at, given = [], defaultdict(list)
    for tile in listing.tiles:
        given[tile.slide].append(tile)
    with report("inventory", len(listing.records), "slides") as task:
        for record in _mark_duplicates(listing.records):
            looked_at.append(_look(listing.root, record, given[record.slide]) if record.is_usable else record)
            task.advance()
    records = tuple(sorted(looked_at, key=lambda r: (r.slide, r.path)))
    records, twins = _mark_twins(records)
    notes = [*listing.notes, *twins]
    if listing.kind == "slides" and any(r.is_usable and not r.patient for r in records):
        notes.append("slides without a patient are treated as a patient of their own")
    return Cohort(listing.root, listing.kind, records, listing.tiles, tuple(dict.fromkeys(notes)))


def _mark_duplicates(records: tuple[SlideRecord, ...]) -> list[SlideRecord]:
    """Two ids equal after Unicode NFC and case folding are one id on some file systems: none of them is used."""
    by_id: dict[str, list[SlideRecord]] = defaultdict(list)
    for record in records:
        by_id[unicodedata.normalize("NFC", record.slide).casefold()].append(record)
    marked = []
    for record in records:
        same = by_id[unicodedata.normalize("NFC", record.slide).casefold()]
        if len(same) > 1:
            others = ", ".join(r.path for r in same if r is not record)
            record = record.with_state("duplicate", f"the id {record.slide} is also that of {others}")  # noqa: PLW2901
        marked.append(record)
    return marked


def _mark_twins(records: tuple[SlideRecord, ...]) -> tuple[tuple[SlideRecord, ...], list[str]]:
    """Slides with the same content under different ids stay usable, but always share a split group."""
    first: dict[str, SlideRecord] = {}
    notes, marked = [], []
    for record in records:
        if record.is_usable and record.content_key:
            original = first.setdefault(record.content_key, record)
            if original is not record:
                record = replace(record, twin_of=original.slide)  # noqa: PLW2901
                notes.append(f"{record.slide} has the same content as {original.slide}: they share a split group")
        marked.append(record)
    return tuple(marked), notes


def _look(root: Path, record: SlideRecord, given: list[TileRow]) -> SlideRecord:
    try:
        return _look_at_tiles(root, record, given) if given else _look_at_slide(root / record.path, record)
    except SlideError as error:
        return record.with_state(state_of(error), f"{error.what}. {error.remedy}")


def state_of(error: SlideError) -> State:
    """The state of a slide that could not be used for this reason."""
    match error:
        case SlideMissing():
            return "missing"
        case NoResolution():
            return "no_mpp"
        case SlideUnsupported():
            return "unsupported"
        case _:
            return "unreadable"


def _look_at_slide(path: Path, record: SlideRecord) -> SlideRecord:
    with open_slide(path, record.given_mpp) as slide:
        info = slide.info
        seen = replace(
            record,
            mpp=info.mpp[0] if info.mpp else None,
            mpp_source=info.mpp_source,
            width=info.width,
            height=info.height,
            n_levels=len(info.levels),
            vendor=info.vendor,
            reader=info.reader,
            content_key=content_key(path, info),
        )
        # What lies last goes first when a copy was cut short: decode the last block of each level before promising.
        for number, level in enumerate(info.levels):
            w, h = min(64, level.width), min(64, level.height)
            x, y = (level.width - w) * level.downsample_x, (level.height - h) * level.downsample_y
            slide.read(int(x), int(y), w, h, number)
    return seen if seen.mpp else seen.with_state("no_mpp", _no_mpp(info.vendor))


def _no_mpp(vendor: str) -> str:
    return f"the file ({vendor}) states no believable pixel size. Pass --mpp or fill the cohort's mpp column."


def _look_at_tiles(root: Path, record: SlideRecord, own: list[TileRow]) -> SlideRecord:
    files = sorted({tile.path for tile in own})
    present = [path for path in files if (root / path).is_file()]
    if not present:
        raise SlideMissing(f"none of its {len(files)} files is there", root / files[0], "Correct the path column.")
    if record.given_mpp is not None and plausible_mpp(record.given_mpp, record.given_mpp) is None:
        raise impossible_mpp(record.given_mpp, root)
    width, height = _first_size([root / path for path in present])
    digests = {path: digest_file(root / path) for path in present}
    seen = replace(
        record,
        width=width,
        height=height,
        n_levels=1,
        vendor="picture",
        reader="picture",
        content_key=digest_of([[digests.get(tile.path, ""), tile.x, tile.y, tile.size] for tile in own]),
    )
    if record.given_mpp is None:
        return seen.with_state("no_mpp", _no_mpp("plain picture"))
    return replace(seen, mpp=record.given_mpp, mpp_source="user")


def _first_size(paths: list[Path]) -> tuple[int, int]:
    """The size of the first picture that has one: a damaged tile is left out later, alone."""
    for path in paths[:-1]:
        try:
            return picture_size(path)
        except SlideError:
            continue
    return picture_size(paths[-1])
