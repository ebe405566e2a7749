"""Reading what the user has: a CSV of slides, a folder of slides, a CSV of tiles, class folders of tiles."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from histokin.cohort.kather2016 import read_kather2016
from histokin.cohort.records import SlideRecord, TileRow
from histokin.cohort.states import Kind
from histokin.errors import CohortError, SlideError
from histokin.slides import is_pyramid, picture_size

SLIDE_SUFFIXES = {
    ".svs", ".svslide", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".dcm", ".czi",
    ".jpg", ".jpeg", ".png",
}  # fmt: skip
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}
MAX_TILE_PX = 1024  # plain pictures up to this side are taken for ready tiles when nothing else tells

# The words other tools use for our columns (CLAM, STAMP, TRIDENT, and the data sets of this field).
ALIASES = {
    "slide": ("slide", "slide_id", "image", "section"),
    "path": ("path", "file", "filename", "wsi"),
    "patient": ("patient", "case_id", "patient_id", "case"),
    "site": ("site", "centre", "center", "hospital"),
    "mpp": ("mpp", "mpp_override"),
}
Origin = Literal["top-left", "centre"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source names, before any slide is opened."""

    root: Path
    kind: Kind
    records: tuple[SlideRecord, ...]
    tiles: tuple[TileRow, ...] = ()
    notes: tuple[str, ...] = ()


def list_source(
    source: Path, *, kind: Kind | None = None, mpp: float | None = None, origin: Origin | None = None
) -> Listing:
    """List the slides or tiles that a folder, a CSV or a single slide names.

    Args:
        source: folder, CSV or slide file.
        kind: "slides" or "tiles" where the user says; None: a CSV with x, y and size, or pictures of at most
            1024 px in class folders, are tiles.
        mpp: level-0 pixel size in um for slides that state none.
        origin: what x, y of a tile CSV mean; must be said where the numbers are not whole.

    Raises:
        CohortError: nothing there, no usable column.
    """
    if not source.exists():
        raise CohortError("there is no such file or folder", source, "Name a folder of slides, a CSV or a slide.")
    if source.is_dir():
        return _list_folder(source, kind, mpp)
    if source.suffix.lower() in (".csv", ".tsv"):
        return _list_csv(source, kind, mpp, origin)
    return Listing(source.parent, "slides", (SlideRecord(source.stem, source.name, given_mpp=mpp),))


def _list_folder(root: Path, kind: Kind | None, mpp: float | None) -> Listing:
    files = sorted(_slide_files(root, set()))
    if not files:
        raise CohortError("the folder holds no slide", root, f"Known endings: {', '.join(sorted(SLIDE_SUFFIXES))}.")
    relative = [path.relative_to(root) for path in files]
    if kind != "slides" and (named := read_kather2016(relative, mpp=mpp)):
        return Listing(root, "tiles", *named)
    in_class_folders = all(len(path.parts) == 2 and path.suffix.lower() in PICTURE_SUFFIXES for path in relative)
    if kind == "tiles" or (kind is None and in_class_folders and _are_tiles(files)):
        if not in_class_folders:
            raise CohortError(
                "tiles must lie in class folders", root, "Use ROOT/CLASS/FILE, or a CSV with path, label."
            )
        unit = root.resolve().name
        tiles = tuple(TileRow(unit, p.as_posix(), labels={"label": p.parts[0]}) for p in relative)
        note = f"{len(tiles)} tiles in {len({p.parts[0] for p in relative})} class folders; patients are not known"
        return Listing(root, "tiles", (SlideRecord(unit, ".", given_mpp=mpp),), tiles, (note,))
    records = tuple(_named(SlideRecord(p.stem, p.as_posix(), given_mpp=mpp)) for p in relative)
    return Listing(root, "slides", records, (), ("a folder names no patients: exclusion will be by slide",))


def _slide_files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Visible files with a slide's ending, through linked folders as well, each folder once; dead links included."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    if (folder / "histokin.json").exists():
        return  # a workspace inside the slides' folder: its thumbnails are no slides
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _slide_files(path, seen)
        elif path.suffix.lower() in SLIDE_SUFFIXES:
            yield path


def _named(record: SlideRecord) -> SlideRecord:
    """Names that are no text (bytes outside UTF-8) can be stored in no table: shown with ?, and not used."""
    shown = record.path.encode(errors="replace").decode()
    if shown == record.path:
        return record
    renamed = SlideRecord(Path(shown).stem, shown, given_mpp=record.given_mpp)
    return renamed.with_state("unsupported", "its name is not UTF-8. Rename the file.")


def _are_tiles(files: Sequence[Path]) -> bool:
    sizes = []
    for path in files[:16]:
        try:
            sizes.append(max(picture_size(path)))
        except SlideError:
            continue
        if path.suffix.lower() in (".tif", ".tiff") and is_pyramid(path):
            return False
    return bool(sizes) and max(sizes) <= MAX_TILE_PX


Rows = list[tuple[int, dict[str, str]]]  # line number, cells by column


def _list_csv(path: Path, kind: Kind | None, mpp: float | None, origin: Origin | None) -> Listing:
    rows, names = read_rows(path)
    column = {ours: next((n for n in aliases if n in names), "") for ours, aliases in ALIASES.items()}
    if not column["path"]:
        raise CohortError(
            f"there is no path column among {', '.join(names)}", path, "Add a column `path`, relative to the CSV."
        )
    is_cut = {"x", "y", "size"} <= names.keys()
    if kind is None:
        pictures = [path.parent / row[column["path"]] for _, row in rows[:16]]
        all_pictures = all(p.suffix.lower() in PICTURE_SUFFIXES and p.exists() for p in pictures)
        kind = "tiles" if is_cut or (all_pictures and "label" in names and _are_tiles(pictures)) else "slides"
    if kind == "tiles":
        return _tile_listing(path, rows, column, mpp, origin, is_cut=is_cut)
    return _slide_listing(path, rows, column, mpp)


def read_rows(path: Path) -> tuple[Rows, dict[str, None]]:
    """The rows of a table with their line numbers, and the names of its columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CohortError(f"the table is not UTF-8 ({error.reason})", path, "Save it as UTF-8.") from error
    header = text.partition("\n")[0]
    # where the comma is the decimal sign, spreadsheets save CSV with semicolons
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in header and "," not in header else ","
    known = {alias for aliases in ALIASES.values() for alias in aliases}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: Rows = []
    try:
        fields = [name.strip() for name in next(reader, [])]
        # PATIENT and Patient mean patient; the user's own columns keep their spelling
        names = [name.lower() if name.lower() in known else name for name in fields]
        for cells in reader:
            if len(cells) > len(names) and any(cells[len(names) :]):
                raise CohortError(
                    f"line {reader.line_num} has {len(cells)} cells, the header {len(names)}",
                    path,
                    "Put text with commas in quotes.",
                )
            filled = [*(cell.strip() for cell in cells), *[""] * (len(names) - len(cells))]
            if any(filled):
                rows.append((reader.line_num, {k: v for k, v in zip(names, filled, strict=False) if k}))
    except csv.Error as error:
        raise CohortError(f"line {reader.line_num}: this is no table ({error})", path, "Save it as CSV.") from error
    if not rows:
        raise CohortError("the table has no rows", path, "Give one row a slide (or tile).")
    return rows, dict.fromkeys(names)


def _number(text: str, what: str, line: int, path: Path) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise CohortError(f"line {line}: {what} is {text!r}, not a number", path, "Correct it.")
    return number


def _slide_listing(path: Path, rows: Rows, column: dict[str, str], mpp: float | None) -> Listing:
    used = {*column.values(), "class_map"}
    records = []
    for line, row in rows:
        file = row[column["path"]]
        own_mpp = _number(row.get(column["mpp"], ""), "mpp", line, path)
        records.append(
            SlideRecord(
                slide=row.get(column["slide"], "") or Path(file).stem,
                path=file,
                patient=row.get(column["patient"], ""),
                site=row.get(column["site"], ""),
                labels={k: v for k, v in row.items() if k not in used and v},
                given_mpp=own_mpp if own_mpp is not None else mpp,
                class_map=row.get("class_map", ""),
            )
        )
    notes = () if column["patient"] else ("the table names no patients: exclusion will be by slide",)
    return Listing(path.parent, "slides", tuple(records), (), notes)


def _tile_listing(
    path: Path,
    rows: Rows,
    column: dict[str, str],
    mpp: float | None,
    origin: Origin | None,
    *,
    is_cut: bool,
) -> Listing:
    used = {column["slide"], column["path"], column["patient"], "x", "y", "size", "mpp", "region", "split"}
    whole_set = path.parent.resolve().name
    tiles: list[TileRow] = []
    sizes: dict[str, float | None] = {}
    for line, row in rows:
        file = row[column["path"]]
        slide = row.get(column["slide"], "") or (Path(file).stem if is_cut else whole_set)
        x, y, size = _square(row, line, path, origin) if is_cut else (-1, -1, 0)
        own_mpp = _number(row.get(column["mpp"], ""), "mpp", line, path)
        own_mpp = own_mpp if own_mpp is not None else mpp
        if sizes.setdefault(slide, own_mpp) != own_mpp:
            raise CohortError(
                f"line {line}: {slide} has tiles of {sizes[slide]} and of {own_mpp} um a pixel",
                path,
                "Give all tiles of a slide the same mpp.",
            )
        tiles.append(
            TileRow(
                slide=slide,
                path=file,
                x=x,
                y=y,
                size=size,
                patient=row.get(column["patient"], ""),
                region=row.get("region", ""),
                split=row.get("split", ""),
                labels={k: v for k, v in row.items() if k not in used and v},
            )
        )
    notes = [f"{len(tiles)} ready tiles of {len(sizes)} {'pictures' if is_cut else 'slides'}"]
    if not column["patient"]:
        notes.append("the table names no patients: tile-level split, patients may overlap")
    return Listing(path.parent, "tiles", _tile_records(tiles, sizes, column), tuple(tiles), tuple(notes))


def _tile_records(
    tiles: list[TileRow], sizes: dict[str, float | None], column: dict[str, str]
) -> tuple[SlideRecord, ...]:
    """One record a slide of the tile set; a label that all its tiles share is the slide's label too."""
    of_slide: dict[str, list[TileRow]] = {}
    for tile in tiles:
        of_slide.setdefault(tile.slide, []).append(tile)
    records = []
    for slide, own in of_slide.items():
        first = own[0]
        shared = {k: v for k, v in first.labels.items() if all(t.labels.get(k) == v for t in own)}
        records.append(
            SlideRecord(
                slide=slide,
                path=first.path if len({t.path for t in own}) == 1 else ".",
                patient=first.patient if len({t.patient for t in own}) == 1 else "",
                site=shared.pop(column["site"], "") if column["site"] else "",
                labels=shared,
                given_mpp=sizes[slide],
            )
        )
    return tuple(records)


def _square(row: dict[str, str], line: int, path: Path, origin: Origin | None) -> tuple[int, int, int]:
    x, y, size = (_number(row[name], name, line, path) for name in ("x", "y", "size"))
    if x is None or y is None or size is None or size < 1:
        raise CohortError(f"line {line}: x, y and size must all be given", path, "Fill them in.")
    if origin is None and (x % 1 or y % 1):
        raise CohortError(
            f"line {line}: x, y are not whole pixels, so they may be centres",
            path,
            "Say which with --tile-origin top-left or --tile-origin centre.",
        )
    shift = size / 2 if origin == "centre" else 0.0
    return math.floor(x - shift + 0.5), math.floor(y - shift + 0.5), math.floor(size + 0.5)
