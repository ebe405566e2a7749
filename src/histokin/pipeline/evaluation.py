"""The evaluate stage: every protocol the labels allow, the floors beside them, a sentence for what they don't allow."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histokin.artefacts import Ledger, digest_file, digest_of, write_json, write_text
from histokin.cohort import file_name_of
from histokin.errors import EvaluationError
from histokin.evaluate import (
    Evaluation,
    evaluate_retrieval,
    evaluate_slides,
    shuffled_labels_control,
)
from histokin.evaluate.items import LeaveOut
from histokin.evaluate.label_free import label_free
from histokin.pipeline.gathering import Gathered, gather, slide_items, tile_items, tile_labels
from histokin.progress import Reporter, silent
from histokin.tiles import Tiling
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHOSEN_COLUMNS = ("label", "diagnosis")  # taken without asking, in this order
K = (1, 3, 5)
HEADLINES = ("acc@1", "acc@3", "acc@5", "mmv@5")
MAX_CLASSES = 50


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """What is evaluated and how.

    Attributes:
        label: column of the tile tables and of the cohort; None takes `label`, then `diagnosis`.
        leave_out: whose tiles cannot answer.
        k: lengths of the answer lists.
        seed: of sampling, bootstrap and permutations.
    """

    label: str | None = None
    leave_out: LeaveOut = "patient"
    k: tuple[int, ...] = K
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the stage wrote.

    Attributes:
        folder: where evaluation.json and the per-query tables lie.
        document: the content of evaluation.json.
    """

    folder: Path
    document: dict[str, Any]

    def to_text(self) -> str:
        """The headline figures for a terminal; all of them are in evaluation.json."""
        parts = [brief_table(self.document[level]) for level in ("tile", "slide") if self.document[level]]
        parts += self.document["controls"]
        parts += [self.document["why_not"]] if self.document["why_not"] else []
        free = self.document["label_free"]
        parts.append(
            "label-free: " + ", ".join(f"{m['name']} {m['value']:.3g}" for m in free if m["value"] is not None)
        )
        return "\n\n".join(parts)


def evaluate(
    work: Workspace,
    tiling: Tiling,
    store: Path,
    floors: Mapping[str, Sequence[Path]],
    spec: EvaluationSpec,
    report: Reporter = silent,
) -> Assessment:
    """Evaluate a store on what labels there are; skipped where nothing changed since the last time.

    Raises:
        EvaluationError: the label that was asked for does not exist.
        StoreError: a store cannot be read.
    """
    label = file_name_of(spec.label or "auto")
    name = f"{label}-leave-{spec.leave_out}-{store.name}" + (f"-seed{spec.seed}" if spec.seed else "")
    ledger = Ledger(work.evaluation(name), "evaluation", spec)
    inputs = {
        "stores": [digest_file(path / "manifest.json") for path in (store, *(p for ps in floors.values() for p in ps))],
        "tables": digest_of([tiling.receipts[r.slide].digest for r in tiling.records]),
        "cohort": tiling.cohort.digest,
    }
    path = ledger.folder / "evaluation.json"
    found = ledger.find("evaluation", inputs)
    if found is None or not all((ledger.folder / name).exists() for name in found.facts["tables"]):
        ledger.forget("evaluation")
        gathered = gather(tiling, store, floors)
        document = _Judge(tiling, gathered, spec, ledger.folder, report).document()
        write_json(path, document)
        tables = [f"queries-{level}.csv" for level in ("tile", "slide") if document[level]]
        ledger.commit("evaluation", inputs, path, tables=tables)
    ledger.write_manifest(["evaluation"])
    return Assessment(ledger.folder, json.loads(path.read_text(encoding="utf-8")))


def brief_table(found: dict[str, Any]) -> str:
    """Headline metrics of one level as text: value, interval, and the encoder minus each floor."""
    some = found["results"][0]
    shares = ", ".join(f"{name} {share:.2f}" for name, share in some["prevalence"].items())
    note = f" ({some['interval']['note']})" if some["interval"]["note"] else ""
    asked = f"{some['level'].capitalize()}s: {some['n_queries']} queries of {some['n_patients']} patients"
    lines = [
        f"{asked}, leaving out the {some['leave_out']}; votes by `{found['protocol']['vote']}`; 95 % intervals{note}",
        f"prevalence: {shares}",
        f"{'':<30}" + "".join(f"{metric:<23}" for metric in HEADLINES) + "encoder - row, Acc@1",
    ]
    rows = dict.fromkeys((r["name"], r["strategy"]) for r in found["results"])
    for name, strategy in rows:
        own = {r["metric"]: r for r in found["results"] if (r["name"], r["strategy"]) == (name, strategy)}
        first = own[HEADLINES[0]]
        label = name + (f" ({strategy})" if strategy else "") + (" *" if first["kind"] == "floor" else "")
        cells = "".join(f"{_with_interval(own[m]['value'], own[m]['interval']):<23}" for m in HEADLINES)
        delta = first["delta"]
        lines.append(f"{label:<30}{cells}" + (_with_interval(delta["value"], delta["interval"], "+") if delta else ""))
    chance = {r["metric"]: r["chance"] for r in found["results"] if r["name"] == some["name"]}
    lines.append(f"{'chance':<30}" + "".join(f"{chance[m]:<23.3f}" for m in HEADLINES))
    return "\n".join(line.rstrip() for line in lines)


def _with_interval(value: float, interval: dict[str, Any], sign: str = "") -> str:
    if interval["low"] is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


class _Judge:
    def __init__(
        self, tiling: Tiling, gathered: Gathered, spec: EvaluationSpec, folder: Path, report: Reporter
    ) -> None:
        self._tiling, self._gathered, self._spec = tiling, gathered, spec
        self._folder, self._report = folder, report
        self._refusals: list[str] = []
        self._controls: list[str] = []

    def document(self) -> dict[str, Any]:
        tile_column, labels = self._tile_labels()
        slide_column = self._slide_column()
        if self._spec.label and not any(labels) and not slide_column:
            known = self._known_columns()
            what = f"no tile and no slide has a label {self._spec.label!r}"
            if self._spec.label in known:
                what = f"label {self._spec.label!r} has one value only, or more than {MAX_CLASSES}"
            raise EvaluationError(what, "evaluate", f"There are: {', '.join(known) or 'none'}.")
        tile = self._tiles(labels) if any(labels) else None
        slide = self._slides(slide_column) if slide_column else None
        if not any(labels) and not slide_column:
            self._refusals.append(self._no_label_sentence())
        return {
            "encoder": self._gathered.encoder,
            "tile_column": tile_column if tile else "",
            "slide_column": slide_column if slide else "",
            "tile": tile,
            "slide": slide,
            "label_free": self._label_free(),
            "controls": self._controls,
            "why_not": " ".join(self._refusals),
        }

    def _known_columns(self) -> list[str]:
        of_tiles = [c for r in self._tiling.records[:1] for c in self._tiling.table(r).label_columns]
        return sorted({*of_tiles, *self._tiling.cohort.label_columns})

    def _no_label_sentence(self) -> str:
        known = self._known_columns()
        if known:
            return (
                "Figures with labels were not computed: no column is called label or diagnosis. "
                f"Name one with --label; there are {', '.join(known)}."
            )
        return (
            "Figures with labels were not computed: neither the slides nor their tiles carry any. Accuracy of a search "
            "can only be measured where it is known what a tile or slide shows; give a table with a label column."
        )

    def _tile_labels(self) -> tuple[str, "NDArray[np.object_]"]:
        for column in [self._spec.label] if self._spec.label else CHOSEN_COLUMNS:
            labels = tile_labels(self._tiling, self._gathered.main, column)
            if any(labels) and len(set(labels)) <= MAX_CLASSES:
                return column, labels
        return "", np.full(len(self._gathered.main), "", object)

    def _slide_column(self) -> str:
        for column in [self._spec.label] if self._spec.label else CHOSEN_COLUMNS:
            values = [r.labels.get(column, "") for r in self._tiling.records]
            if 2 <= len({v for v in values if v}) <= MAX_CLASSES:
                return column
        return ""

    def _tiles(self, labels: "NDArray[np.object_]") -> dict[str, Any] | None:
        gathered, spec = self._gathered, self._spec
        items = tile_items(gathered, labels)
        floors = {n: f[0] if len(f) == 1 else f for n, f in gathered.floors.items()}
        try:
            found = evaluate_retrieval(
                {gathered.encoder: gathered.main.features},
                items,
                floors=floors,
                leave_out=spec.leave_out,
                k=spec.k,
                seed=spec.seed,
                progress=self._report,
            )
            control = shuffled_labels_control(gathered.main.features, items, leave_out=spec.leave_out, seed=spec.seed)
        except EvaluationError as error:
            self._refusals.append(f"Tiles: {error.what}. {error.remedy}")
            return None
        self._controls.append(
            f"Shuffled labels (tiles): Acc@1 {control.value:.3f} [{control.low:.3f}, {control.high:.3f}] over "
            f"{control.n_shuffles} shuffles between {control.unit}s, chance {control.chance:.3f}: "
            + ("at chance, as it must be." if control.is_at_chance else "NOT at chance: labels leak into the ranking.")
        )
        return self._kept(found, "tile")

    def _slides(self, column: str) -> dict[str, Any] | None:
        gathered, spec = self._gathered, self._spec
        try:
            found = evaluate_slides(
                {gathered.encoder: gathered.bags(gathered.main.features)},
                slide_items(self._tiling, gathered, column),
                floors={
                    name: gathered.bags(f[0]) if len(f) == 1 else [gathered.bags(one) for one in f]
                    for name, f in gathered.floors.items()
                },
                leave_out=spec.leave_out,
                k=spec.k,
                seed=spec.seed,
                progress=self._report,
            )
        except EvaluationError as error:
            self._refusals.append(f"Slides: {error.what}. {error.remedy}")
            return None
        return self._kept(found, "slide")

    def _kept(self, found: Evaluation, level: str) -> dict[str, Any]:
        """The figures as JSON; the encoder's per-query table goes beside them as CSV."""
        rows = found.query_rows(next(name for name in found.frames if name.startswith(self._gathered.encoder)))
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._folder / f"queries-{level}.csv", text.getvalue())
        document = found.to_json()
        if self._gathered.n_unnamed and self._spec.leave_out == "patient":
            document["warnings"].append(
                f"The patient of {self._gathered.n_unnamed} tiles is not known: only their slide is left out, and "
                "neighbours may share the patient. Not about new patients."
            )
        return document

    def _label_free(self) -> list[dict[str, Any]]:
        gathered = self._gathered
        groups = {"slide": gathered.picture}
        if len(set(gathered.patient)) < len(set(gathered.picture)):
            groups["patient"] = gathered.patient
        if any(gathered.site):
            groups["site"] = gathered.site
        coded = {name: np.unique(column.astype(str), return_inverse=True)[1] for name, column in groups.items()}
        found = label_free(gathered.main.features, groups=coded, max_rows=5000, seed=self._spec.seed)
        measures = [
            ("effective rank", found.rankme_centred, "dimensions in use (RankMe, centred); near 1 when collapsed"),
            ("RankMe", found.rankme, "the same before the mean is taken away"),
            ("participation ratio", found.participation_ratio, "dimensions that carry the variance"),
            ("alpha-ReQ", found.alpha_req, "decay of the spectrum; 1 is good, far above collapsed, far below noise"),
            ("uniformity", found.uniformity, "lower is more even; about -4 on a full sphere, 0 when collapsed"),
            ("mean cosine", found.mean_cosine, "of all pairs; near 1 when all vectors are alike"),
            ("spread", found.spread, "1 when unit vectors fill all dimensions evenly, 0 when collapsed"),
            ("dead dimensions", found.dead_share, "share of dimensions that hardly vary"),
        ]
        for name, value in found.purity.items():
            chance = found.purity_chance[name]
            measures.append(
                (
                    f"neighbours of the same {name}",
                    value,
                    f"share of the {found.k} nearest, {chance:.3f} by chance; high: the encoder knows the {name}",
                )
            )
        measures.append(("tiles", found.n, f"measured: vectors of {found.d} dimensions; ranks depend on both"))
        return [{"name": n, "value": v, "meaning": m} for n, v, m in measures]
