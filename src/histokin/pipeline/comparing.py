"""`compare`: several encoders trained with one budget, judged on the same tiles, beside the floors and each other."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histokin.artefacts import Ledger, digest_file, digest_of, plain, read_lines, write_json
from histokin.cohort import file_name_of
from histokin.errors import EvaluationError
from histokin.evaluate import Items, LinearProbe, RidgeProbe, Split, compare_probes, compare_spatial, rank_items
from histokin.pipeline.comparison_page import write_comparison_page
from histokin.pipeline.comparison_plan import ComparisonPlan, EntrySpec, TaskSpec
from histokin.pipeline.comparison_tasks import HEADLINES, check_task, task_texts
from histokin.pipeline.gathering import Gathered, gather, tile_labels, tile_places
from histokin.pipeline.packing import Without, training_pixels
from histokin.pipeline.stages import embed, open_tiling, train, with_mpp
from histokin.progress import Reporter, silent
from histokin.tiles import Tiling
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.embeddings import TileEmbedder
    from histokin.learn import Recipe, TrainingResult

DOCUMENT = "comparison.json"
RANDOM = "random"
TABLE_VERSION = 1
"""Of what a task's table holds: another one is made anew."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        folder: its workspace: runs/, evaluation/, report/.
        document: the content of comparison.json.
        page: the report.
    """

    folder: Path
    document: dict[str, Any]
    page: Path

    def to_text(self) -> str:
        """The side-by-side tables."""
        return "\n\n".join(_table(task) for task in self.document["tasks"])


def compare(
    plan: ComparisonPlan, out: Path | str, report: Reporter = silent, *, command: str = "histokin compare"
) -> Comparison:
    """Train every entry, embed every task's tiles by each and by the floors, judge them all; resumes where it stopped.

    Args:
        plan: what is asked.
        out: the comparison's own workspace; nothing but embeddings is written into those of the plan.
        report: progress.
        command: shown on the page.

    Raises:
        HistokinError: says what, where and what to do.
    """
    for task in plan.tasks:
        check_task(task)  # before hours are spent on training
    work = Workspace.create(out)
    trained = {entry.name: _trained(work, plan, entry, report) for entry in plan.entries}
    judged = [table for task in plan.tasks for table in _judged(work, plan, task, trained, report)]
    document = {
        "title": plan.title or "Comparison of encoders",
        "command": command,
        "plan": plan,
        "entries": [_entry(work, entry, trained[entry.name]) for entry in plan.entries],
        "tasks": judged,
    }
    write_json(work.root / DOCUMENT, document)
    return Comparison(work.root, plain(document), write_comparison_page(work, plain(document)))


def recipe_of(plan: ComparisonPlan, entry: EntrySpec) -> "Recipe":
    """The recipe an entry trains by."""
    from histokin.learn import override, read_recipe

    return override(read_recipe(entry.recipe), [f"seed={plan.seed}", *plan.settings, *entry.settings])


def _trained(work: Workspace, plan: ComparisonPlan, entry: EntrySpec, report: Reporter) -> "_Trained":
    places = []
    for name in plan.train_of(entry):
        place = Workspace.open(name)
        places.append((place, with_mpp(place, open_tiling(place), entry.mpp, report)))
    recipe, without = recipe_of(plan, entry), Without.parse(entry.without)
    with training_pixels(places, recipe, report, without=without, at_most=entry.at_most) as (pixels, notes):
        folder = work.run(file_name_of(entry.name))
        result = train(pixels, recipe, folder, report, device=plan.device, replace=True, notes=notes)
        return _Trained(result, len(pixels))


@dataclass(frozen=True, slots=True)
class _Trained:
    """An entry's run, and how many tiles it was given."""

    result: "TrainingResult"
    n_tiles: int


def _entry(work: Workspace, entry: EntrySpec, trained: _Trained) -> dict[str, Any]:
    """What is to be known of a training: what it was asked for and how it went."""
    folder, result = work.run(file_name_of(entry.name)), trained.result
    lines = read_lines(folder / "metrics.jsonl")
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    every = max(1, len(losses) // 200)  # enough for a curve
    return {
        **plain(entry),
        "method": json.loads((result.encoder / "card.json").read_text(encoding="utf-8"))["method"],
        "fingerprint": result.fingerprint,
        "n_tiles": trained.n_tiles,
        "steps": result.steps,
        "views": result.views,
        "batch": result.batch,
        "loss": result.loss,
        "losses": losses[:-1:every] + losses[-1:],
        "looks": [line["monitor"] for line in lines if "monitor" in line],
        "alarms": result.alarms,
        "notes": result.notes,
        "recipe_file": str(folder / "recipe.yaml"),
    }


def _judged(
    work: Workspace,
    plan: ComparisonPlan,
    task: TaskSpec,
    trained: Mapping[str, _Trained],
    report: Reporter,
) -> list[dict[str, Any]]:
    """The tables of one task: one for each pixel size that entries are judged at."""
    place = Workspace.open(task.work)
    before = open_tiling(place)
    tilings = {mpp: with_mpp(place, before, mpp, report) for mpp in dict.fromkeys(e.mpp for e in plan.entries)}
    by_spec: dict[str, list[EntrySpec]] = {}
    for entry in plan.entries:
        by_spec.setdefault(tilings[entry.mpp].spec.spec_id, []).append(entry)
    tables = []
    for entries in by_spec.values():
        tiling = tilings[entries[0].mpp]
        title = task.title + (f", {tiling.spec.mpp:.3g} mpp" if len(by_spec) > 1 else "")
        tables.append(_Judge(work, plan, task, entries, title).table(place, tiling, trained, report))
    return tables


class _Judge:
    """One task at one pixel size."""

    def __init__(
        self, work: Workspace, plan: ComparisonPlan, task: TaskSpec, entries: Sequence[EntrySpec], title: str
    ) -> None:
        self._work, self._plan, self._task, self._entries, self._title = work, plan, task, entries, title

    def table(
        self, place: Workspace, tiling: Tiling, trained: Mapping[str, _Trained], report: Reporter
    ) -> dict[str, Any]:
        stores, floors, twins, tiling = self._embedded(place, tiling, trained, report)
        ledger = Ledger(
            self._work.evaluation(file_name_of(self._title)),
            "comparison",
            {
                "table": TABLE_VERSION,
                "task": self._task,
                "seed": self._plan.seed,
                "entries": [e.name for e in self._entries],
            },
        )
        paths = [*stores.values(), *(path for group in floors.values() for path in group)]
        inputs = {
            "stores": [digest_file(path / "manifest.json") for path in paths],
            "tables": digest_of([tiling.receipts[r.slide].digest for r in tiling.records]),
            "cohort": tiling.cohort.digest,
        }
        path = ledger.folder / "table.json"
        if ledger.find("table", inputs) is None:
            ledger.forget("table")
            first, *others = self._entries
            beside = {entry.name: [stores[entry.name]] for entry in others}
            gathered = gather(tiling, stores[first.name], {**beside, **floors})
            write_json(path, {**self._measured(tiling, gathered, list(floors), report), "twins": twins})
            ledger.commit("table", inputs, path)
        ledger.write_manifest(["table"])
        return json.loads(path.read_text(encoding="utf-8"))

    def _embedded(
        self, place: Workspace, tiling: Tiling, trained: Mapping[str, _Trained], report: Reporter
    ) -> tuple[dict[str, Path], dict[str, list[Path]], dict[str, str], Tiling]:
        """Stores by entry and by floor, and which random floor is whose: entries of one architecture share theirs."""
        from histokin.encoders import load_encoder
        from histokin.pipeline.floors import STATISTICS, random_floor

        encoders = {
            entry.name: load_encoder(
                trained[entry.name].result.encoder,
                tile_px=tiling.spec.tile_px,
                mpp=tiling.spec.mpp,
                device=self._plan.device,
                any_field=True,
            )
            for entry in self._entries
        }
        by_floor: dict[str, list[TileEmbedder]] = {floor.name: [floor] for floor in STATISTICS}
        kinds = list(dict.fromkeys(encoder.twin for encoder in encoders.values()))
        names = {kind: RANDOM if len(kinds) == 1 else f"{RANDOM} {number}" for number, kind in enumerate(kinds, 1)}
        twins = {name: names[encoder.twin] for name, encoder in encoders.items()}
        for name, encoder in encoders.items():
            if twins[name] not in by_floor:
                by_floor[twins[name]] = list(random_floor(encoder.card, self._plan.device))
        embedders = [*encoders.values(), *(e for group in by_floor.values() for e in group)]
        outcome, tiling = embed(place, tiling, embedders, report)
        stores = {name: outcome.folders[encoder.name] for name, encoder in encoders.items()}
        floors = {name: [outcome.folders[e.name] for e in group] for name, group in by_floor.items()}
        return stores, floors, twins, tiling

    def _measured(self, tiling: Tiling, gathered: Gathered, floors: list[str], report: Reporter) -> dict[str, Any]:
        task, seed = self._task, self._plan.seed
        names = [entry.name for entry in self._entries]
        features = {names[0]: [gathered.main.features], **gathered.floors}
        encoders = {name: features[name][0] for name in names}
        beside = {name: features[name] if len(features[name]) > 1 else features[name][0] for name in floors}
        texts = task_texts(tiling, gathered, task)
        groups = {"patient": gathered.patient, "slide": gathered.slide, "site": gathered.site}
        how = {"floors": beside, "seed": seed, "progress": report}
        clusters = tile_labels(tiling, gathered.main, task.cluster) if task.cluster else None
        probing = {
            "groups": groups[task.leave_out],
            "split": Split(unit=task.leave_out),
            "clusters": clusters,
            "cluster": task.cluster or task.leave_out,
            **how,
        }
        is_of_places = task.spatial and not any(texts)
        measures: list[dict[str, Any]] = []
        refusals: list[str] = []

        def judge(name: str, metrics: Sequence[str] | None, measured: Callable[[], Any]) -> None:
            try:
                measures.append(_measure(name, measured(), names, metrics))
            except EvaluationError as error:
                refusals.append(f"{name}: {error.what}. {error.remedy}")

        if task.value:
            values = np.array([float(text) if text else np.nan for text in texts])
            ridge = {"probe": RidgeProbe(), "within": gathered.slide, **probing}
            judge("ridge probe", None, lambda: compare_probes(encoders, values, **ridge))
        elif any(texts):
            items = Items.of(texts, gathered.patient, gathered.slide, gathered.site)
            ranking = {"leave_out": task.leave_out, "k": (1, 5), **how}
            judge("linear probe", None, lambda: compare_probes(encoders, texts, probe=LinearProbe(), **probing))
            judge("retrieval", HEADLINES["retrieval"], lambda: rank_items(encoders, items, **ranking))
        elif not task.spatial:
            refusals.append(f"no tile is left to be judged ({', '.join(task.only) or 'none has a label'}).")
        places = tile_places(tiling, gathered.main) if task.spatial else None
        if places is not None:
            at = {"pitch_um": tiling.pitch_um, **how}
            judge("distance ratio", None, lambda: compare_spatial(encoders, gathered.slide, places, **at))
        elif task.spatial:
            refusals.append("distance ratio: these tiles have no coordinates.")
        return {
            "title": self._title,
            "kind": "values" if task.value else "classes",
            "task": task,
            "entries": names,
            "floors": floors,
            "n_tiles": len(gathered.main),
            "n_judged": len(gathered.main) if is_of_places else int(np.count_nonzero(texts != "")),
            "measures": measures,
            "refusals": refusals,
        }


def _measure(name: str, found: Any, entries: list[str], metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """One way of judging: every row's figures, and each entry's differences to every other row."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for figure in found.against(entry):
            if metrics is not None and figure.metric not in metrics:
                continue
            row = rows.setdefault(figure.name, {"name": figure.name, "kind": figure.kind, "figures": {}})
            of = row["figures"].setdefault(figure.metric, {"minus": {}})
            of |= {"value": figure.value, "interval": figure.interval, "chance": figure.chance}
            if figure.delta is not None:
                main = rows.setdefault(entry, {"name": entry, "kind": "encoder", "figures": {}})
                main["figures"].setdefault(figure.metric, {"minus": {}})["minus"][figure.name] = figure.delta
    return {
        "name": name,
        "protocol": found.protocol,
        "warnings": found.warnings,
        "rows": list(rows.values()),
    }


def _table(task: dict[str, Any]) -> str:
    """One task for a terminal: value and interval, and what remains after random weights and the best floor."""
    lines = [f"{task['title']} ({task['n_judged']} tiles); 95 % intervals; * floor"]
    of_measures = [(measure["rows"], metric) for measure in task["measures"] for metric in HEADLINES[measure["name"]]]
    for rows, metric in of_measures:
        floors = [row for row in rows if row["kind"] == "floor"]
        best = max(floors, key=lambda row: row["figures"][metric]["value"])
        lines.append(f"  {metric:<38}{'value':<23}{'- random':<25}- best floor ({best['name']})")
        for row in sorted(rows, key=lambda row: row["kind"] == "floor"):
            figure = row["figures"][metric]
            cells = f"{_span(figure['value'], figure['interval']):<23}"
            if row["kind"] == "encoder":
                minus = [figure["minus"][name] for name in (task["twins"][row["name"]], best["name"])]
                cells += "".join(f"{_span(d['value'], d['interval'], '+'):<25}" for d in minus)
            lines.append(f"    {row['name'] + (' *' if row['kind'] == 'floor' else ''):<36}{cells}".rstrip())
    lines += [f"  {refusal}" for refusal in task["refusals"]]
    return "\n".join(lines)


def _span(value: float, interval: dict[str, Any], sign: str = "") -> str:
    if interval["low"] is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} [{interval['low']:{sign}.3f}, {interval['high']:{sign}.3f}]"
