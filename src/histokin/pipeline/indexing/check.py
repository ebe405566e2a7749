"""What an index is worth, measured on itself: its loss against exact search, what it finds, and what is foreign."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import plain, write_json
from histokin.embeddings import EmbeddingStore
from histokin.errors import EvaluationError, SearchError
from histokin.evaluate import (
    Evaluation,
    Interval,
    Items,
    LeaveOut,
    Result,
    Task,
    evaluate_found,
    make_task,
    nearest_bags,
)
from histokin.pipeline.indexing.archive import PICTURE, SOURCE
from histokin.progress import Reporter, silent
from histokin.search import Neighbours
from histokin.search.calibration import Kind as Calibrated
from histokin.search.calibration import NoMatch, draw_queries, is_stale, search_elsewhere
from histokin.search.index import Index, NprobeCheck, Version, measure_nprobe, set_calibration, set_nprobe
from histokin.search.searcher import Searcher
from histokin.search.slide_search import QueryBag, archive_sample, search_slides
from histokin.search.strategies import STRATEGIES, Fish, RetCCL
from histokin.search.strategies.bags import cross_patient_quantiles
from histokin.search.tables import TILE_LABEL, TileHits, Where
from histokin.streams import stream

KS = (1, 3, 5)
MAX_TILE_QUERIES, MAX_SLIDE_QUERIES = 1000, 300
"""Asked for figures; equally many of each patient."""
MAX_FLOOR_TILES = 500_000
N_TIMED = 50
ALPHA = 0.05
_PERCENTILES = 101
DEFAULT_STRATEGIES = ("maxsim", "mean", "median_min")


@dataclass(frozen=True, slots=True)
class Checked:
    """What the last check left in an index, as searches use it.

    Attributes:
        kept: of the manifest; empty if the index was never checked, or there is none.
    """

    kept: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, version: Version | None) -> "Checked":
        """That of a version; of no index, nothing."""
        return cls(version.manifest.calibration if version is not None else {})

    @property
    def is_missing(self) -> bool:
        return not self.kept

    @property
    def recall(self) -> float | None:
        """Of the 10 best tiles, at the nprobe that was chosen."""
        return self.kept.get("recall")

    def percentile(self, score: float) -> float | None:
        """Share, in percent, of random pairs of tiles of different patients that are less alike."""
        pairs = self.kept.get("pairs")
        return None if not pairs else float(np.searchsorted(pairs, score) * 100 / len(pairs))

    def no_match(self, kind: str) -> NoMatch | None:
        """The novelty test of a kind of search; None where it was not calibrated."""
        found = self.kept.get("no_match", {}).get(kind)
        return NoMatch.of_json(found) if found else None

    def p_value(self, kind: str, score: float) -> float | None:
        """Of the novelty test; None without one, or with too few patients for any threshold."""
        test = self.no_match(kind)
        if test is None:
            return None
        verdict = test.judge(score)
        return verdict.p_value if verdict.threshold is not None else None

    def is_stale(self, patients: NDArray[np.object_]) -> bool:
        """Whether more than a tenth of the patients came or went since."""
        known = set(self.kept.get("patients", ()))
        return bool(known) and is_stale(len(known ^ set(patients.tolist())), len(known))


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a check found.

    Attributes:
        folder: of the index.
        size: tiles, slides, patients, bytes a tile and as a multiple of float16 vectors, segments, lists.
        search: recall and time by nprobe; None where the archive is searched exactly anyway.
        latency: milliseconds (p50, p95) of single queries, by kind.
        figures: classification through search, by level and rule of exclusion.
        no_match: thresholds by kind of query.
        notes: what could not be measured, and why.
    """

    folder: Path
    size: dict[str, float]
    search: NprobeCheck | None
    latency: dict[str, tuple[float, float]]
    figures: tuple[Evaluation, ...]
    no_match: dict[Calibrated, NoMatch]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """For a terminal: size, recall by nprobe, latency, figures and thresholds."""
        return check_text(self)

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        return {
            "format": "index-check",
            "index": self.folder.name,
            "size": plain(self.size),
            "search": plain(self.search),
            "latency_ms": plain(self.latency),
            "figures": [figure.to_json() for figure in self.figures],
            "no_match": {kind: _told(test) for kind, test in self.no_match.items()},
            "notes": list(self.notes),
        }


def check_index(
    folder: Path,
    *,
    floors: Mapping[str, Sequence[Path]] | None = None,
    label: str | None = None,
    strategies: Sequence[str] = DEFAULT_STRATEGIES,
    seed: int = 0,
    report: Reporter = silent,
) -> IndexReport:
    """Measure an index, keep what searches need in its manifest, and write `check.json` beside it.

    Args:
        folder: of the index.
        floors: stores of the same slides' floors: their mean embeddings stand beside the strategies.
        label: column of slides to classify by; by default `diagnosis`, `label`, or the only one.
        strategies: of slide search, names of `search.strategies`.
        seed: of all draws.
        report: progress.

    Raises:
        SearchError: an unknown strategy or column.
    """
    unknown = [name for name in strategies if name not in STRATEGIES]
    if unknown:
        raise SearchError(f"there is no strategy {unknown[0]!r}", "index check", f"Known: {', '.join(STRATEGIES)}.")
    index = Index(folder)
    if label is not None:
        index.slides.column(label)
    notes: list[str] = []
    with report("check", 5, "steps") as line:
        search = _search_cost(index, folder, seed, notes)
        line.advance(1, "recall")
        version = index.pinned()
        tests = _novelty(version, seed, notes)
        line.advance(1, "novelty")
        pairs = cross_patient_quantiles(*archive_sample(version), np.linspace(0, 1, _PERCENTILES), seed=seed)
        latency = _latencies(version, seed)
        line.advance(1, "latency")
        figures = _tile_figures(version, seed, notes)
        line.advance(1, "tiles")
        figures += slide_figures(version, strategies, floors=floors, label=label, seed=seed, notes=notes)
        line.advance(1, "slides")
    chosen = None if search is None else next(row for row in search.rows if row.nprobe == search.chosen)
    kept = {
        "recall": 1.0 if chosen is None else chosen.recall,
        "pairs": [] if np.isnan(pairs).any() else pairs.tolist(),
        "no_match": {kind: test.to_json() for kind, test in tests.items()},
        "patients": sorted(set(version.slides.patient.tolist())),
    }
    set_calibration(folder, kept)
    size = _size(version, folder)
    found = IndexReport(folder, size, search, latency, tuple(figures), tests, tuple(notes))
    write_json(folder / "check.json", found.to_json())
    return found


def _search_cost(index: Index, folder: Path, seed: int, notes: list[str]) -> NprobeCheck | None:
    version = index.pinned()
    if len(version.list_sizes()) == 1:
        notes.append("The archive is small: it has one list, and every search compares all of it.")
        return None
    try:
        found = measure_nprobe(index, seed=seed)
    except SearchError as error:
        notes.append(f"Recall: {error.what}.")
        return None
    set_nprobe(folder, found.chosen)
    if not found.is_reached:
        notes.append(f"No nprobe reached recall .97; {found.chosen} is used. Search with --exact where it matters.")
    return found


def _novelty(version: Version, seed: int, notes: list[str]) -> dict[Calibrated, NoMatch]:
    """One tile a patient, and each patient's slides, against all other patients."""
    table = version.slides
    patients = table.patient
    if len(set(patients.tolist())) < 2:
        notes.append("With one patient nothing can be said of foreign queries.")
        return {}
    first = _starts(version)
    owner = np.repeat(patients, np.diff(first))
    rows = draw_queries(owner, each=1, seed=seed)
    slide = np.searchsorted(first, rows, side="right") - 1
    vectors = _vectors(version, rows, slide, first)
    seen = {"site": table.columns["site"]} if "site" in table.columns else {}

    def nearest_tile(of: np.ndarray, patient: str) -> np.ndarray:
        where = Where.of(leave_out={"patient": [patient]})
        return version.search(vectors[of], 1, where=where, exact=True).score[:, 0]

    best = search_elsewhere(nearest_tile, owner[rows])
    fingerprint = version.made.fingerprint
    told = {name: column[slide] for name, column in seen.items()}
    tile = NoMatch.of(best, owner[rows], kind="tile", fingerprint=fingerprint, alpha=ALPHA, seen=told)
    drawn = draw_queries(patients, each=1, seed=seed)

    def nearest_slide(of: np.ndarray, patient: str) -> np.ndarray:
        where = Where.of(leave_out={"patient": [patient]})
        found = [search_slides(version, _query(version, int(s)), 1, where=where) for s in drawn[of]]
        return np.array([hits.score[0] if len(hits) else np.nan for hits in found])

    best = search_elsewhere(nearest_slide, patients[drawn])
    told = {name: column[drawn] for name, column in seen.items()}
    slides = NoMatch.of(best, patients[drawn], kind="slide", fingerprint=fingerprint, alpha=ALPHA, seen=told)
    return {"tile": tile, "slide": slides}


def _latencies(version: Version, seed: int) -> dict[str, tuple[float, float]]:
    """Single queries, everything of the machine's own; the first of each kind is not counted."""
    first = _starts(version)
    n = min(N_TIMED + 1, int(first[-1]))
    rows = np.sort(stream(seed, "timed tiles").choice(int(first[-1]), n, replace=False))
    slide = np.searchsorted(first, rows, side="right") - 1
    vectors = _vectors(version, rows, slide, first)
    slides = stream(seed, "timed slides").choice(len(version.slides), min(N_TIMED + 1, len(version.slides)), False)
    queries = [_query(version, int(s)) for s in np.sort(slides)]
    found = {
        "tile": [_timed(lambda v=vector: version.search(v[None], 10)) for vector in vectors],
        "tile, exact": [_timed(lambda v=vector: version.search(v[None], 10, exact=True)) for vector in vectors[:11]],
        "slide, maxsim": [_timed(lambda q=query: search_slides(version, q, 10)) for query in queries],
    }
    return {
        kind: (float(np.median(times[1:] or times)), float(np.quantile(times[1:] or times, 0.95)))
        for kind, times in found.items()
    }


def _timed(ask: Any) -> float:
    start = time.perf_counter()
    ask()
    return 1000 * (time.perf_counter() - start)


def _tile_figures(version: Version, seed: int, notes: list[str]) -> list[Evaluation]:
    """Whether the nearest tiles of other patients have a tile's label, through the index as it is."""
    first = _starts(version)
    ids, labels = _tiles(version)
    if not any(labels):
        notes.append("No tile carries a label: classification of tiles was not measured.")
        return []
    table = version.slides
    slide = np.repeat(np.arange(len(table)), np.diff(first))
    items = _items(version, labels, slide)
    classes = sorted({str(label) for label in labels if label})
    figures = []
    for leave_out in _rules(version):
        try:
            task = make_task(items, leave_out=leave_out, max_queries=MAX_TILE_QUERIES, seed=seed)
        except EvaluationError as error:
            notes.append(f"Tiles, leaving out the {leave_out}: {error.what}.")
            continue
        asked = task.rows[task.queries]
        vectors = _vectors(version, asked, slide[asked], first)
        unit = getattr(items, leave_out)[asked]
        rows = np.full((len(asked), max(KS)), -1, dtype=np.int64)
        scores = np.full(rows.shape, np.nan)
        for value in sorted(set(unit.tolist())):
            own = np.flatnonzero(unit == value)
            where = Where.of(keep={TILE_LABEL: classes}, leave_out=_group(version, leave_out, value))
            hits = version.search(vectors[own], max(KS), where=where)
            rows[own], scores[own] = _rows_of(hits, first, ids), hits.score
        places = np.full(len(items), -1, dtype=np.int64)
        places[task.rows] = np.arange(len(task.rows))
        found = Neighbours(np.where(rows >= 0, places[rows], -1), scores)
        name = version.made.encoder
        figures.append(evaluate_found({name: found}, items, task, level="tile", k=KS, seed=seed))
    return figures


def slide_figures(
    searcher: Searcher,
    strategies: Sequence[str],
    *,
    floors: Mapping[str, Sequence[Path]] | None = None,
    label: str | None = None,
    seed: int = 0,
    notes: list[str] | None = None,
) -> list[Evaluation]:
    """Whether the slides most like a slide have its label, by each strategy and beside the floors' mean embeddings.

    Args:
        searcher: the archive.
        strategies: names of `search.strategies`.
        floors: as in `check_index`; left out where the archive is large.
        label: column of slides; see `check_index`.
        seed: of the draw of queries, bootstrap and permutations.
        notes: what could not be measured is added here.

    Returns:
        One evaluation a rule of exclusion: the patient, and where sites are known the site.
    """
    notes = [] if notes is None else notes
    column = label or label_column(searcher)
    if column is None:
        notes.append("No column labels the slides: classification of slides was not measured.")
        return []
    items = _items(searcher, searcher.slides.column(column), np.arange(len(searcher.slides)))
    bags = _floor_bags(searcher, floors or {}, notes)
    asked_with = cache(lambda number: _query(searcher, number))
    figures: list[Evaluation] = []
    for leave_out in _rules(searcher):
        try:
            task = make_task(items, leave_out=leave_out, max_queries=MAX_SLIDE_QUERIES, seed=seed)
        except EvaluationError as error:
            notes.append(f"Slides, leaving out the {leave_out}: {error.what}.")
            continue
        joined: Evaluation | None = None
        for strategy in strategies:
            try:
                found = _ranked_slides(searcher, items, task, strategy, column, asked_with)
            except SearchError as error:
                notes.append(f"{strategy}: {error.what}.")
                continue
            beside = {
                name: [nearest_bags(part, task, k=max(KS), strategy="mean", name=name, seed=seed) for part in parts]
                for name, parts in (bags.items() if strategy == "mean" else ())
            }
            one = evaluate_found(
                {searcher.made.encoder: found},
                items,
                task,
                level="slide",
                floors=beside,
                strategy=strategy,
                k=KS,
                seed=seed,
            )
            joined = one if joined is None else joined.joined(one)
        if joined is not None:
            figures.append(joined)
    return figures


def _ranked_slides(
    searcher: Searcher, items: Items, task: Task, strategy: str, column: str, asked_with: Callable[[int], QueryBag]
) -> Neighbours:
    """The slides found for each query of a task, as places among its rows."""
    chosen = STRATEGIES[strategy]
    if isinstance(chosen, (Fish, RetCCL)):
        chosen = replace(chosen, label=column)
    places = np.full(len(items), -1, dtype=np.int64)
    places[task.rows] = np.arange(len(task.rows))
    ids = np.full((len(task.queries), max(KS)), -1, dtype=np.int64)
    scores = np.full(ids.shape, np.nan)
    for n, number in enumerate(task.rows[task.queries].tolist()):
        own = str(getattr(items, task.leave_out)[number])
        where = Where.of(keep={column: task.classes}, leave_out=_group(searcher, task.leave_out, own))
        hits = search_slides(searcher, asked_with(number), max(KS), strategy=chosen, where=where)
        ids[n, : len(hits)], scores[n, : len(hits)] = places[hits.slide], hits.score
    return Neighbours(ids, scores)


def _floor_bags(
    searcher: Searcher, floors: Mapping[str, Sequence[Path]], notes: list[str]
) -> dict[str, list[list[np.ndarray]]]:
    """By floor and member, the tiles of every slide of the archive."""
    if floors and len(searcher) > MAX_FLOOR_TILES:
        notes.append(f"With {len(searcher):,} tiles the floors were not read.")
        return {}
    found: dict[str, list[list[np.ndarray]]] = {}
    for name, paths in floors.items():
        for path in paths:
            rows = EmbeddingStore(path).load()
            by_slide = {slide: rows.bag(number) for number, slide in enumerate(rows.slides)}
            if not by_slide.keys() >= set(searcher.slides.slide.tolist()):
                notes.append(f"The floor {name} lacks some of the slides and was left out.")
                break
            found.setdefault(name, []).append([by_slide[slide] for slide in searcher.slides.slide.tolist()])
    return found


def label_column(searcher: Searcher) -> str | None:
    """The column that names what slides are: `diagnosis`, `label`, or the only one."""
    columns = {
        name: column
        for name, column in searcher.slides.columns.items()
        if name not in (SOURCE, PICTURE, "site") and len(set(column.tolist()) - {""}) > 1
    }
    for name in ("diagnosis", "label"):
        if name in columns:
            return name
    return next(iter(columns)) if len(columns) == 1 else None


def _rules(searcher: Searcher) -> list[LeaveOut]:
    """Patient, or slide where there is one; and site where sites are known."""
    table = searcher.slides
    rules: list[LeaveOut] = ["patient" if len(set(table.patient.tolist())) > 1 else "slide"]
    sites = table.columns.get("site")
    if sites is not None and all(sites) and len(set(sites.tolist())) > 1:
        rules.append("site")
    return rules


def _items(searcher: Searcher, labels: np.ndarray, slide: np.ndarray) -> Items:
    picture, site = _units(searcher)
    return Items.of(labels, searcher.slides.patient[slide], picture[slide], site[slide])


def _units(searcher: Searcher) -> tuple[np.ndarray, np.ndarray]:
    """(S,) what each slide counts as, and the site of that: slides of one content are one slide of one site."""
    table = searcher.slides
    picture = table.columns.get(PICTURE, table.slide)
    site = table.columns.get("site", np.full(len(table), "", object))
    own = dict(zip(table.slide.tolist(), site.tolist(), strict=True))
    return picture, np.array([own.get(p, s) for p, s in zip(picture, site, strict=True)], object)


def _group(searcher: Searcher, leave_out: LeaveOut, value: str) -> dict[str, list[str]]:
    """What a filter leaves out for a patient, a slide or a site."""
    if leave_out == "patient":
        return {"patient": [value]}
    picture, site = _units(searcher)
    own = (site if leave_out == "site" else picture) == value
    return {"slide": searcher.slides.slide[own].tolist()}


def _starts(version: Version) -> np.ndarray:
    """(S + 1,) where each slide's tiles begin, in order of slide and tile."""
    return np.cumsum([0, *version.tile_counts()])


def _tiles(version: Version) -> tuple[np.ndarray, np.ndarray]:
    """(N,) ids and labels of all tiles, in order of slide and tile; one slide's vectors are in memory at a time."""
    ids, labels = [np.zeros(0, np.int64)], [np.zeros(0, object)]
    for number in range(len(version.slides)):
        tiles = version.bag(number)
        ids.append(tiles.tile)
        labels.append(tiles.label)
    return np.concatenate(ids), np.concatenate(labels)


def _vectors(version: Version, rows: np.ndarray, slide: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(n, d) vectors of rows in order of slide and tile."""
    out = np.empty((len(rows), version.made.dim), np.float32)
    for number in np.unique(slide):
        own = slide == number
        out[own] = version.bag(int(number)).vectors[rows[own] - first[number]]
    return out


def _rows_of(hits: TileHits, first: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(Q, k) rows in order of slide and tile, -1 where there is no hit."""
    rows = np.full(hits.slide.shape, -1, dtype=np.int64)
    for place in zip(*np.nonzero(hits.slide >= 0), strict=True):
        slide = hits.slide[place]
        own = slice(first[slide], first[slide + 1])
        rows[place] = first[slide] + np.searchsorted(ids[own], hits.tile[place])
    return rows


def _query(searcher: Searcher, number: int) -> QueryBag:
    """A slide's own mosaic as it asks."""
    return QueryBag.of(searcher.bag(number))


def _size(version: Version, folder: Path) -> dict[str, float]:
    manifest = version.manifest
    n_bytes = sum(facts.n_bytes for facts in manifest.files().values())
    n_tiles = max(1, len(version))
    built = folder / "build.json"
    seconds = json.loads(built.read_text(encoding="utf-8"))["seconds"] if built.exists() else float("nan")
    return {
        "tiles": len(version),
        "slides": len(version.slides),
        "patients": len(set(version.slides.patient.tolist())),
        "bytes": n_bytes,
        "bytes_a_tile": n_bytes / n_tiles,
        "of_float16": n_bytes / n_tiles / (2 * manifest.made.dim),
        "segments": len(manifest.segments),
        "lists": len(version.list_sizes()),
        "nprobe": manifest.nprobe["tiles"],
        "build_seconds": seconds,
    }


def _told(test: NoMatch) -> dict[str, Any]:
    return {"alpha": test.alpha, "patients": len(test.pooled), "threshold": test.pooled.threshold(test.alpha)}


def check_text(found: IndexReport) -> str:
    """A check for a terminal."""
    size = found.size
    lines = [
        f"{found.folder}: {size['tiles']:,.0f} tiles of {size['slides']:,.0f} slides, {size['patients']:,.0f} patients",
        f"  {size['bytes_a_tile']:.0f} bytes a tile, {size['of_float16']:.3f} x the float16 vectors",
        f"  {size['segments']:.0f} segments, {size['lists']:.0f} lists; built in {size['build_seconds']:.1f} s",
    ]
    if found.search is not None:
        lines.append(f"  recall of the 10 best, the query's {found.search.left_out} left out:")
        lines += [
            f"    nprobe {row.nprobe:>4}  {row.recall:.3f} [{row.low:.3f}, {row.high:.3f}]  {row.ms:6.2f} ms"
            + ("  <- used" if row.nprobe == found.search.chosen else "")
            for row in found.search.rows
        ]
        lines.append(f"    exact        1.000                  {found.search.exact_ms:6.2f} ms")
    lines += [f"  {kind}: {p50:.2f} ms, p95 {p95:.2f} ms" for kind, (p50, p95) in found.latency.items()]
    for figure in found.figures:
        lines += _figure_lines(figure)
    for kind, test in found.no_match.items():
        threshold = test.pooled.threshold(test.alpha)
        said = f"no good match below {threshold:.4f}" if threshold is not None else "cannot be calibrated"
        lines.append(f"  {kind} queries: {said} ({len(test.pooled)} patients, alpha {test.alpha:g})")
    return "\n".join([*lines, *(f"  note: {note}" for note in found.notes)])


def _figure_lines(figure: Evaluation) -> list[str]:
    """The metrics that count, a line a strategy, below them chance; the others are in the file."""
    some = figure.results[0]
    prevalence = ", ".join(f"{name} {share:.2f}" for name, share in sorted(some.prevalence.items()))
    asked = f"{some.n_queries} queries of {some.n_patients} patients ({prevalence})"
    shown = [f"{kind}@{k}" for kind, k in (("acc", KS[0]), ("mmv", KS[-1]), ("map", KS[-1]), ("macro_f1", KS[-1]))]
    rows: dict[str, dict[str, Result]] = {}
    for row in figure.results:
        name = f"{row.name}, mean" if row.kind == "floor" else row.strategy or "tiles"
        rows.setdefault(name, {})[row.metric] = row
    head = "".join(f"{metric:<22}" for metric in shown)
    lines = [f"  {some.level}s, leaving out the query's {some.leave_out}: {asked}", f"    {'':<19}{head}".rstrip()]
    for name, found in rows.items():
        cells = "".join(f"{f'{found[m].value:.3f} {_span(found[m].interval)}':<22}" for m in shown)
        lines.append(f"    {name:<19}{cells}".rstrip())
    blind = next(iter(rows.values()))
    lines.append(f"    {'chance':<19}{''.join(f'{blind[m].chance:<22.3f}' for m in shown)}".rstrip())
    note = some.interval.note
    return [*lines, f"    intervals: {note}"] if note else lines


def _span(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]" if np.isfinite(interval.low) else "[n/a]"
