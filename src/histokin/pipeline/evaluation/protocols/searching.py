"""Protocols of search: do the nearest tiles, or slides, of other patients carry the query's label?"""

from typing import Any

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate import Evaluation, evaluate_retrieval, evaluate_slides, retrieve_classes, shuffled_labels_control
from histokin.evaluate.items import LeaveOut, text_codes
from histokin.evaluate.retrieval import acc_at_k
from histokin.evaluate.votes import votes
from histokin.pipeline.evaluation.case import Case, counts_of
from histokin.pipeline.measures import measure_of, value_with
from histokin.report import Confusion, PartLine, Quantity
from histokin.search import Strategy

STRATEGIES: dict[Strategy, str] = {"mean": "mean embedding", "median_min": "median of minima"}


def retrieval(case: Case) -> dict[str, Any]:
    """Classification of tiles through search."""
    spec = case.spec
    encoders, floors = case.encoders, case.floors
    how = {"floors": floors, "k": spec.k, "rule": spec.vote, "seed": spec.seed, **case.sides}
    found = evaluate_retrieval(encoders, case.items, leave_out=spec.leave_out, progress=case.report, **how)
    return {
        "measures": [measure_of("retrieval", found, list(encoders), _metrics(found))],
        "counts": _counts(case, found),
        "prevalence": found.task.prevalence,
        "per_class": _per_class(found),
        "per_group": _per_site(found),
        "confusions": [_confusion(found, name, name) for name in encoders],
        "quantities": [*_means(found), *_other_exclusions(case, found)],
        "controls": [_control(case, encoders[case.reference])],
        "tables": {"queries-tile.csv": [row for name in encoders for row in found.query_rows(name)]},
    }


def slide_retrieval(case: Case) -> dict[str, Any]:
    """Classification of slides through search, by each way of comparing bags."""
    spec = case.spec
    chapter: dict[str, Any] = {"measures": [], "quantities": []}
    rows: list[dict[str, Any]] = []
    for strategy, words in STRATEGIES.items():
        found = evaluate_slides(
            case.bags,
            case.items,
            floors=case.floor_bags,
            strategies=(strategy,),
            leave_out=spec.leave_out,
            k=spec.k,
            rule=spec.vote,
            seed=spec.seed,
            progress=case.report,
            **case.sides,
        )
        chapter["measures"].append(measure_of(f"retrieval by {words}", found, list(case.bags), _metrics(found)))
        chapter["quantities"] += _means(found, f", {words}")
        rows += [row for name in case.bags for row in found.query_rows(f"{name} ({strategy})")]
        if strategy == "mean":
            chapter["counts"], chapter["prevalence"] = _counts(case, found), found.task.prevalence
            chapter["per_class"] = _per_class(found)
            chapter["per_group"] = _per_site(found)
            chapter["confusions"] = [_confusion(found, name, f"{name} ({strategy})") for name in case.bags]
    chapter["controls"] = [_control(case, case.encoders[case.reference])]
    chapter["tables"] = {"queries-slide.csv": rows}
    return chapter


def class_retrieval(case: Case) -> dict[str, Any]:
    """One class across slides, with its prevalence (Gildenblat & Klaiman's tumour retrieval)."""
    spec = case.spec
    found = retrieve_classes(
        case.encoders,
        case.items,
        floors=case.floors,
        leave_out=spec.leave_out,
        seed=spec.seed,
        progress=case.report,
        **case.sides,
    )
    classes = sorted({figure.metric for figure in found.figures}, key=lambda name: (found.prevalence[name], name))
    return {"measures": [measure_of("class retrieval", found, list(case.encoders), classes)]}  # the rarest first


def _metrics(found: Evaluation) -> list[str]:
    """Those that count first: the nearest, and the vote of the longest list."""
    metrics = list(dict.fromkeys(result.metric for result in found.results))
    first = [name for name in ("acc@1", f"mmv@{max(found.protocol['k'])}") if name in metrics]
    return first + [name for name in metrics if name not in first]


def _counts(case: Case, found: Evaluation) -> dict[str, int]:
    some = found.results[0]
    more = {} if found.task.database is None else {"candidates": len(found.task.database)}
    return {**counts_of(case), "queries": some.n_queries, **more, "unanswerable": some.n_unanswerable}


def _per_class(found: Evaluation) -> list[PartLine]:
    return [
        PartLine(
            row=line.name,
            part=line.label,
            metric=line.metric,
            value=value_with(line.value, line.interval),
            n=line.n_queries,
            n_patients=line.n_patients,
            chance=line.chance,
        )
        for line in found.per_class
    ]


def _per_site(found: Evaluation) -> list[PartLine]:
    """Acc@1 over the queries of each site, where sites are known."""
    asked = found.task.rows[found.task.queries]
    sites, code = text_codes(found.items.site[asked])
    if len(sites) < 2:
        return []
    lines = []
    for row, frames in found.frames.items():
        right = np.mean([acc_at_k(frame, 1) for frame in frames], axis=0)
        patients = found.items.patient[asked]
        for number, site in enumerate(sites):
            own = code == number
            value = value_with(float(right[own].mean()), _plain_interval(right[own], patients[own]))
            lines.append(PartLine(row, site, "acc@1", value, int(own.sum()), len(set(patients[own]))))
    return lines


def _plain_interval(right: np.ndarray, patients: np.ndarray) -> Any:
    from histokin.evaluate.intervals import wilson_interval

    codes = text_codes(patients)[1]
    return wilson_interval(np.bincount(codes, weights=right), np.bincount(codes).astype(np.float64))


def _confusion(found: Evaluation, row: str, frame_name: str) -> Confusion:
    """What the vote of the longest list says of each class."""
    frame = found.frames[frame_name][0]
    k = max(found.protocol["k"])
    rule = found.protocol["vote"] if found.protocol["vote"] != "anytie" else "rank"
    said = votes(frame.first(k), rule=rule)
    n = len(frame.classes)
    counts = np.zeros((n, n + 1), np.int64)
    np.add.at(counts, (frame.truth, np.where(said < 0, n, said)), 1)
    shown = counts if counts[:, n].any() else counts[:, :n]
    return Confusion(row, f"vote of the {k} nearest", list(frame.classes), shown.tolist())


def _means(found: Evaluation, suffix: str = "") -> list[Quantity]:
    """The headline metrics as means over classes and over patients: large patients and classes outweigh small ones."""
    quantities = []
    for metric in ("acc@1", f"mmv@{max(found.protocol['k'])}"):
        own = [result for result in found.results if result.metric == metric]
        if not own:
            continue
        for word, attribute in (("classes", "macro_classes"), ("patients", "macro_patients")):
            values = {result.name: float(getattr(result, attribute)) for result in own}
            quantities.append(
                Quantity(f"{metric}, mean over {word}{suffix}", f"each of the {word} counts alike", values)
            )
        nulls = {result.name: result.null for result in own}
        if any(value is not None for value in nulls.values()):
            quantities.append(
                Quantity(
                    f"{metric} after exchanging patients' labels{suffix}", "what labels without meaning give", nulls
                )
            )
    return quantities


def _other_exclusions(case: Case, found: Evaluation) -> list[Quantity]:
    """Acc@1 under another rule of exclusion: what the leak through a query's own slide is worth, and sites' share."""
    quantities = []
    asked: dict[LeaveOut, str] = {
        "self": "only the query itself left out: no result, the difference is what its own slide and patient give"
    }
    if found.task.leave_out in ("patient", "slide", "region") and len(set(case.columns.site)) > 1:
        asked["site"] = "the query's whole site left out; far below Acc@1: neighbours follow the site"
    for rule, meaning in asked.items():
        if rule == found.task.leave_out:
            continue
        try:
            other = evaluate_retrieval(
                case.encoders, case.items, floors=case.floors, leave_out=rule, k=(1,), seed=case.spec.seed, **case.sides
            )
        except EvaluationError:
            continue
        values = {result.name: result.value for result in other.results if result.metric == "acc@1"}
        quantities.append(
            Quantity(f"acc@1, leaving out the {rule}" if rule != "self" else "acc@1, self", meaning, values)
        )
    return quantities


def _control(case: Case, features: np.ndarray) -> str:
    found = shuffled_labels_control(
        features, case.items, leave_out=case.spec.leave_out, seed=case.spec.seed, **case.sides
    )
    return (
        f"Shuffled labels ({case.level}s, {case.reference}): Acc@1 {found.value:.3f} [{found.low:.3f}, "
        f"{found.high:.3f}] over {found.n_shuffles} shuffles between {found.unit}s, chance {found.chance:.3f}: "
        + ("at chance, as it must be." if found.is_at_chance else "NOT at chance: labels leak into the ranking.")
    )
