"""The table of slides: one record a slide, its patient, labels and state. A cohort never loses a row."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, get_args

from histokin.artefacts import FORMAT_VERSION, digest_of, plain, writing
from histokin.cohort.states import Kind, State
from histokin.errors import CohortError, NoUsableSlide

_MAX_NAME_BYTES = 180  # suffixes and the temporary name need the rest


@dataclass(frozen=True, slots=True)
class SlideRecord:
    """One row of the cohort.

    Attributes:
        slide: its id, as the user wrote it; `file_name` is the form used for files.
        path: relative to the cohort's root where it lies inside, else absolute.
        patient: whose it is ("" if unknown: then exclusion is by slide).
        site: where scanned ("" if unknown).
        labels: further columns of the user's table, as text.
        mpp: level-0 pixel size in um that holds (given or read), None if unknown.
        given_mpp: what the user gave, None if nothing.
        state, reason: whether it can be used, and why not, in words.
    """

    slide: str
    path: str
    patient: str = ""
    site: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    given_mpp: float | None = None
    class_map: str = ""
    state: State = "ok"
    reason: str = ""
    mpp: float | None = None
    mpp_source: str = "none"
    width: int = 0
    height: int = 0
    n_levels: int = 0
    vendor: str = ""
    reader: str = ""
    content_key: str = ""
    twin_of: str = ""

    @property
    def is_usable(self) -> bool:
        return self.state == "ok"

    @property
    def file_name(self) -> str:
        """The id with everything quoted that a file system or a URL may stumble over."""
        return file_name_of(self.slide)

    def with_state(self, state: State, reason: str) -> Self:
        """The same slide in another state."""
        return replace(self, state=state, reason=reason)


def file_name_of(slide: str) -> str:
    """A safe file name for a slide id; letters of any script stay, separators and dots at the start do not.

    File systems take 255 bytes: a longer id keeps its beginning and gets a digest.
    """
    safe = "".join(c if c.isalnum() or c in "._- +()" else "".join(f"%{b:02X}" for b in c.encode()) for c in slide)
    safe = "%2E" + safe[1:] if safe.startswith(".") else safe
    if len(safe.encode()) <= _MAX_NAME_BYTES:
        return safe
    return safe.encode()[: _MAX_NAME_BYTES - 17].decode(errors="ignore") + "~" + digest_of(slide)[:16]


@dataclass(frozen=True, slots=True)
class TileRow:
    """One ready tile of a tile cohort: a file, or a square cut out of a larger picture (px of that file)."""

    slide: str
    path: str
    x: int = -1
    y: int = -1
    size: int = 0
    patient: str = ""
    region: str = ""
    split: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cohort:
    """All slides of a study with their states.

    Attributes:
        root: folder that relative paths start from.
        kind: "slides" (tiles are to be found) or "tiles" (they are given).
        records: one a slide, in order of id.
        tiles: the given tiles where kind is "tiles".
        notes: what the user should know: how the input was read, what was assumed.
    """

    root: Path
    kind: Kind
    records: tuple[SlideRecord, ...]
    tiles: tuple[TileRow, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @property
    def usable(self) -> tuple[SlideRecord, ...]:
        return tuple(r for r in self.records if r.is_usable)

    @property
    def n_patients(self) -> int:
        """Patients that are known by name among the usable slides and their given tiles; 0 where none is named."""
        usable = {r.slide for r in self.usable}
        named = {r.patient for r in self.usable} | {t.patient for t in self.tiles if t.slide in usable}
        return len(named - {""})

    @property
    def label_columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for r in self.records for name in r.labels))

    @property
    def states(self) -> dict[str, int]:
        """How many slides are in each state."""
        counts = Counter(r.state for r in self.records)
        return {state: counts[state] for state in get_args(State) if counts[state]}

    def path_of(self, record: SlideRecord | TileRow) -> Path:
        """Where the file lies."""
        return self.root / record.path

    @property
    def by_slide(self) -> dict[str, SlideRecord]:
        """Every slide's record by its id; of duplicates, none of which is usable, the last."""
        return {r.slide: r for r in self.records}

    def record(self, slide: str) -> SlideRecord:
        """The record of one slide id.

        Raises:
            CohortError: there is none; names the nearest.
        """
        import difflib

        for candidate in self.records:
            if candidate.slide == slide:
                return candidate
        near = difflib.get_close_matches(slide, [r.slide for r in self.records], 3)
        raise CohortError(
            f"no slide is called {slide!r}", self.root, f"Did you mean {', '.join(near)}?" if near else "See `info`."
        )

    def require_usable(self) -> Self:
        """The cohort itself, if there is anything to work on.

        Raises:
            NoUsableSlide: with the states of all slides.
        """
        if self.usable:
            return self
        if not self.records:
            raise NoUsableSlide("no slide was found", self.root, "Name a folder of slides or a CSV with a path column.")
        states = ", ".join(f"{n} {state}" for state, n in self.states.items())
        first = self.records[0]
        raise NoUsableSlide(
            f"none of {len(self)} slides can be used ({states}); the first: {first.slide}: {first.reason}",
            self.root,
            "Mend what the reasons name.",
        )

    def updated(self, changed: Iterable[SlideRecord]) -> Self:
        """The cohort with some records replaced (same ids and paths)."""
        new = {(r.slide, r.path): r for r in changed}
        return replace(self, records=tuple(new.get((r.slide, r.path), r) for r in self.records))

    @property
    def digest(self) -> str:
        """Identity of the cohort's content."""
        return digest_of([self.kind, [plain(r) for r in self.records], [plain(t) for t in self.tiles]])

    def save(self, path: Path) -> None:
        """Write as Parquet: a row a slide; labels as columns `label:NAME`; given tiles beside, as NAME.tiles."""
        import pyarrow.parquet as pq

        meta = {
            "format": "cohort",
            "format_version": FORMAT_VERSION,
            "root": self.root.resolve().as_posix(),
            "kind": self.kind,
            "notes": list(self.notes),
        }
        tables = [(given_tiles_path(path), _to_table(self.tiles, TileRow))] if self.kind == "tiles" else []
        for target, table in (*tables, (path, _to_table(self.records, SlideRecord))):
            table = table.replace_schema_metadata({"histokin": json.dumps(meta, sort_keys=True)})  # noqa: PLW2901
            with writing(target) as temporary:
                pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> "Cohort":
        """Read what `save` wrote.

        Raises:
            CohortError: no such file, not a cohort, damaged, or of another format.
        """
        if not path.exists():
            raise CohortError("the workspace has no cohort yet", path, "Run `histokin tile SLIDES --out WORK` first.")
        rows, meta = _read_table(path)
        records = tuple(SlideRecord(**_nested(row)) for row in rows)
        tiles: tuple[TileRow, ...] = ()
        if meta["kind"] == "tiles":
            tiles = tuple(TileRow(**_nested(row)) for row in _read_table(given_tiles_path(path))[0])
        return cls(Path(meta["root"]), meta["kind"], records, tiles, tuple(meta["notes"]))


def given_tiles_path(path: Path) -> Path:
    """The file beside a cohort that holds its given tiles."""
    return path.with_suffix(".tiles.parquet")


def _to_table(rows: Sequence[Any], kind: type) -> Any:
    """Columns by the types of the dataclass, then one a label: not by the first row, which may lack a label."""
    import pyarrow as pa

    types = {int: pa.int64(), float | None: pa.float64()}
    columns = {
        f.name: pa.array([getattr(row, f.name) for row in rows], types.get(f.type, pa.string()))
        for f in fields(kind)
        if f.name != "labels"
    }
    for name in dict.fromkeys(name for row in rows for name in row.labels):
        columns[f"label:{name}"] = pa.array([row.labels.get(name) for row in rows], pa.string())
    return pa.table(columns)


def _read_table(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    again = "Make it with `histokin tile SLIDES --out WORK`."
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise CohortError(f"the cohort cannot be read ({error})", path, again) from error
    meta = json.loads((table.schema.metadata or {}).get(b"histokin", b"{}"))
    if meta.get("format") != "cohort":
        raise CohortError("this is no cohort file", path, again)
    if meta["format_version"].split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise CohortError(f"the cohort has format {meta['format_version']}", path, again)
    return table.to_pylist(), meta


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    labels = {k.removeprefix("label:"): row.pop(k) for k in list(row) if k.startswith("label:")}
    return {**row, "labels": {k: v for k, v in labels.items() if v is not None}}
