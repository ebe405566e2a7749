"""Judging: one task's tiles embedded by every entry and every floor, and what each is worth."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import Ledger, digest_file, digest_of, write_json
from histokin.cohort import file_name_of
from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import (
    LinearProbe,
    RidgeProbe,
    Spatial,
    Split,
    compare_probes,
    compare_spatial,
    evaluate_retrieval,
)
from histokin.pipeline.comparison.plan import RANDOM, ComparisonPlan, EntrySpec, TaskSpec
from histokin.pipeline.comparison.tasks import clusters_of, conditions_met, task_texts
from histokin.pipeline.gathering import Gathered, gather, tile_items, tile_places
from histokin.pipeline.measures import HEADLINES, side_by_side
from histokin.pipeline.stages import embed
from histokin.progress import Reporter
from histokin.tiles import Tiling
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.embeddings import TileEmbedder

TABLE_VERSION = 3
"""Of what a task's table holds: another one is made anew."""


class Judge:
    """One task at one pixel size."""

    def __init__(
        self, work: Workspace, plan: ComparisonPlan, task: TaskSpec, entries: Sequence[EntrySpec], title: str
    ) -> None:
        self._work, self._plan, self._task, self._entries, self._title = work, plan, task, entries, title

    def table(self, place: Workspace, tiling: Tiling, folders: Mapping[str, Path], report: Reporter) -> dict[str, Any]:
        """Every row's figures, and each entry's differences to every other row.

        Args:
            place, tiling: of the task.
            folders: the encoder's of each entry.
            report: progress.
        """
        stores, floors, twins, tiling = self._embedded(place, tiling, folders, report)
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
        self, place: Workspace, tiling: Tiling, folders: Mapping[str, Path], report: Reporter
    ) -> tuple[dict[str, Path], dict[str, list[Path]], dict[str, str], Tiling]:
        """Stores by entry and by floor, and which random floor is whose: entries of one architecture share theirs."""
        from histokin.encoders import load_encoder
        from histokin.pipeline.floors import STATISTICS, random_floor

        encoders = {
            entry.name: load_encoder(
                folders[entry.name],
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
        # Entries that came to the same encoder share its vectors.
        embedders = {e.name: e for e in [*encoders.values(), *(e for group in by_floor.values() for e in group)]}
        outcome, tiling = embed(place, tiling, list(embedders.values()), report)
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
        clusters, cluster = clusters_of(tiling, gathered, task)
        how = {"floors": beside, "seed": seed, "progress": report, "clusters": clusters, "cluster": cluster}
        probing = {"groups": gathered.units[task.leave_out], "split": Split(unit=task.leave_out), **how}
        is_of_places = task.spatial and not any(texts)
        measures: list[dict[str, Any]] = []
        refusals: list[str] = []

        def judge(name: str, metrics: Sequence[str] | None, measured: Callable[[], Any]) -> None:
            try:
                measures.append(side_by_side(name, measured(), names, metrics))
            except (EvaluationError, StoreError) as error:
                refusals.append(f"{name}: {error.what}. {error.remedy}")

        if task.value:
            values = np.array([float(text) if text else np.nan for text in texts])
            ridge = {"probe": RidgeProbe(), "within": gathered.slide, **probing}
            judge("ridge probe", None, lambda: compare_probes(encoders, values, **ridge))
        elif any(texts):
            items = tile_items(gathered, texts)
            ranking = {"leave_out": task.leave_out, "k": (1, 5), **how}
            judge("linear probe", None, lambda: compare_probes(encoders, texts, probe=LinearProbe(), **probing))
            judge("retrieval", HEADLINES["retrieval"], lambda: evaluate_retrieval(encoders, items, **ranking))
        elif not task.spatial:
            refusals.append(f"no tile is left to be judged ({', '.join(task.only) or 'none has a label'}).")
        asked = conditions_met(tiling, gathered, task)
        places = tile_places(tiling, gathered.main) if task.spatial else None
        if places is not None:
            measure = partial(_distance_ratio, encoders, gathered.slide, places, asked, pitch_um=tiling.pitch_um, **how)
            judge("distance ratio", None, measure)
        elif task.spatial:
            refusals.append("distance ratio: these tiles have no coordinates.")
        return {
            "title": self._title,
            "kind": "values" if task.value else "classes",
            "task": task,
            "entries": names,
            "floors": floors,
            "n_tiles": len(gathered.main),
            "n_judged": int(np.count_nonzero(asked if is_of_places else texts != "")),
            "measures": measures,
            "refusals": refusals,
        }


def _distance_ratio(
    encoders: Mapping[str, NDArray[np.float32]],
    slides: NDArray[np.object_],
    places: NDArray[np.float64],
    asked: NDArray[np.bool_],
    *,
    floors: Mapping[str, Any],
    clusters: NDArray[np.object_],
    **how: Any,
) -> Spatial:
    """ADDR of the tiles that are asked about."""

    def kept(features: Any) -> Any:
        return features[asked] if isinstance(features, np.ndarray) else [one[asked] for one in features]

    return compare_spatial(
        {name: kept(x) for name, x in encoders.items()},
        slides[asked],
        places[asked],
        floors={name: kept(x) for name, x in floors.items()},
        clusters=clusters[asked],
        **how,
    )
