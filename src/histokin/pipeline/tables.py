"""From evaluation.json to the tables of the report."""

from typing import Any

from histokin.report import EvaluationSection, Measure, MetricRow, MetricTable, Value

SHOWN_METRICS = ("acc@1", "acc@3", "acc@5", "mmv@5", "macro_f1@1")
HEADLINE = "acc@1"


def evaluation_section(found: dict[str, Any]) -> EvaluationSection:
    """The report's tables from the content of evaluation.json: values as they are, sentences for their protocol."""
    tables = []
    if found["tile"]:
        tables.append(_table(found["tile"], "Which tissue is this tile? Retrieval of tiles", ""))
    if found["slide"]:
        names = {"mean": "mean embedding", "median_min": "median of minima"}
        for strategy in dict.fromkeys(r["strategy"] for r in found["slide"]["results"]):
            title = f"Which diagnosis has this slide? Retrieval of slides by {names.get(strategy, strategy)}"
            tables.append(_table(found["slide"], title, strategy))
    return EvaluationSection(
        tables=tables,
        label_free=[Measure(**measure) for measure in found["label_free"]],
        controls=found["controls"],
        why_not=found["why_not"] or None,
    )


def _table(found: dict[str, Any], title: str, strategy: str) -> MetricTable:
    results = [r for r in found["results"] if r["strategy"] == strategy and r["metric"] in SHOWN_METRICS]
    protocol = found["protocol"]
    some = results[0]
    rows = []
    for name in dict.fromkeys(r["name"] for r in results):
        own = {r["metric"]: r for r in results if r["name"] == name}
        delta = own[HEADLINE]["delta"]
        rows.append(
            MetricRow(
                name=name,
                kind=own[HEADLINE]["kind"],
                values={metric: _value(r["value"], r["interval"]) for metric, r in own.items()},
                delta=_value(delta["value"], delta["interval"]) if delta else None,
                p=delta["p_holm"] if delta else None,
            )
        )
    per_class = [
        MetricRow(
            name=f"{c['label']} ({c['n_queries']} queries, {c['n_patients']} patients)",
            kind="class",
            values={metric: _value(r["value"], r["interval"]) for metric, r in _by_metric(found, c, strategy).items()},
        )
        for c in found["per_class"]
        if c["strategy"] == strategy and c["metric"] == HEADLINE and c["name"] == found["reference"]
    ]
    return MetricTable(
        title=title,
        protocol=_protocol_sentence(protocol, some, found["warnings"]),
        level=some["level"],
        n_queries=some["n_queries"],
        n_patients=some["n_patients"],
        prevalence=some["prevalence"],
        chance={r["metric"]: r["chance"] for r in results if r["name"] == some["name"]},
        rows=rows,
        per_class=per_class,
        headline=HEADLINE,
    )


def _by_metric(found: dict[str, Any], one: dict[str, Any], strategy: str) -> dict[str, dict[str, Any]]:
    return {
        c["metric"]: c
        for c in found["per_class"]
        if c["label"] == one["label"]
        and c["strategy"] == strategy
        and c["name"] == one["name"]
        and c["metric"] in SHOWN_METRICS
    }


def _value(value: float | None, interval: dict[str, Any]) -> Value:
    """A figure with its interval; the table's sentence says what limits all intervals, a cell only why it has none."""
    return Value(value, interval["low"], interval["high"], "" if interval["low"] is not None else interval["note"])


def _protocol_sentence(protocol: dict[str, Any], some: dict[str, Any], warnings: list[str]) -> str:
    left_out = {
        "patient": "the query's whole patient is left out",
        "slide": "the query's slide is left out, its patient is not",
        "site": "everything from the query's site is left out",
        "self": "only the query itself is left out",
    }[protocol["leave_out"]]
    said = (
        f"Every query is answered by its nearest neighbours; {left_out} before ranking. Votes by the rule "
        f"“{protocol['vote']}” (plurality, ties to the best-ranked). {some['n_unanswerable']} queries cannot be "
        f"answered and count as misses. Intervals: 95 %, clustered by {protocol['cluster']}"
        + (f" ({some['interval']['note']})." if some["interval"]["note"] else ".")
    )
    return " ".join([said, *warnings])
