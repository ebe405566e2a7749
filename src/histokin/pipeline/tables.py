"""From evaluation.json to the tables of a workspace's report."""

from typing import Any

from histokin.report import EvaluationSection, Measure, MetricRow, MetricTable, Value

SHOWN_METRICS = ("acc@1", "acc@3", "acc@5", "mmv@5", "macro_f1@1")
HEADLINE = "acc@1"
SEARCHES = ("retrieval", "slides")
_LEFT_OUT = {
    "patient": "the query's whole patient is left out",
    "slide": "the query's slide is left out, its patient is not",
    "site": "everything from the query's site is left out",
    "region": "the query's region is left out, its slide and patient are not",
    "self": "only the query itself is left out",
}


def evaluation_section(found: dict[str, Any]) -> EvaluationSection:
    """The report's tables from the content of evaluation.json: values as they are, sentences for their protocol."""
    chapters = [chapter for chapter in found["chapters"] if chapter["protocol"] in SEARCHES]
    free = [chapter for chapter in found["chapters"] if chapter["protocol"] == "label-free"]
    name = found["reference"]
    return EvaluationSection(
        tables=[_table(found, chapter, measure) for chapter in chapters for measure in chapter["measures"]],
        label_free=[
            Measure(quantity["name"], quantity["values"].get(name), quantity["meaning"])
            for chapter in free
            for quantity in chapter["quantities"]
        ],
        controls=[sentence for chapter in chapters for sentence in chapter["controls"]],
        why_not=" ".join(sentence for _, sentence in found["refusals"]) or None,
    )


def label_columns(found: dict[str, Any]) -> tuple[str, str]:
    """The columns by which tiles and slides were searched; "" where they were not."""
    columns = {chapter["level"]: chapter["column"] for chapter in found["chapters"] if chapter["protocol"] in SEARCHES}
    return columns.get("tile", ""), columns.get("slide", "")


def _table(found: dict[str, Any], chapter: dict[str, Any], measure: dict[str, Any]) -> MetricTable:
    what = "Which tissue is this tile" if chapter["level"] == "tile" else f"Which {chapter['column']} has this slide"
    metrics = [metric for metric in SHOWN_METRICS if metric in measure["metrics"]]
    reference = next(row for row in measure["rows"] if row["name"] == found["reference"])
    deltas = reference["minus"].get(HEADLINE, {})
    rows = []
    for row in measure["rows"]:
        delta = deltas.get(row["name"])
        rows.append(
            MetricRow(
                name=row["name"],
                kind="floor" if row["kind"] == "floor" else "encoder",
                values={metric: _value(row["values"][metric]) for metric in metrics if metric in row["values"]},
                delta=_value(delta) if delta else None,
                p=delta["p"] if delta else None,
            )
        )
    is_first = measure is chapter["measures"][0]
    return MetricTable(
        title=f"{what}? {measure['name'].capitalize()} of {chapter['level']}s",
        protocol=_protocol_sentence(chapter, measure, [*found["notes"], *measure["warnings"]]),
        level=chapter["level"],
        n_queries=chapter["counts"]["queries"],
        n_patients=chapter["counts"]["patients"],
        prevalence=chapter["prevalence"],
        chance={metric: measure["chance"][metric] for metric in metrics},
        rows=rows,
        per_class=_per_class(chapter, found["reference"]) if is_first else [],
        headline=HEADLINE,
    )


def _per_class(chapter: dict[str, Any], reference: str) -> list[MetricRow]:
    rows: dict[str, MetricRow] = {}
    for line in chapter["per_class"]:
        if line["row"] != reference or line["metric"] not in SHOWN_METRICS:
            continue
        name = f"{line['part']} ({line['n']} queries, {line['n_patients']} patients)"
        rows.setdefault(line["part"], MetricRow(name, "class", {})).values[line["metric"]] = _value(line["value"])
    return list(rows.values())


def _value(found: dict[str, Any]) -> Value:
    """A figure with its interval; the table's sentence says what limits all intervals, a cell only why it has none."""
    return Value(found["value"], found["low"], found["high"], "" if found["low"] is not None else found["note"])


def _protocol_sentence(chapter: dict[str, Any], measure: dict[str, Any], warnings: list[str]) -> str:
    protocol = measure["protocol"]
    note = next(iter(measure["rows"][0]["values"].values()))["note"]
    said = (
        f"Every query is answered by its nearest neighbours; {_LEFT_OUT[protocol['leave_out']]} before ranking. Votes "
        f"by the rule “{protocol['vote']}” (plurality, ties to the best-ranked). {chapter['counts']['unanswerable']} "
        f"queries cannot be answered and count as misses. Intervals: 95 %, clustered by {protocol['cluster']}"
        + (f" ({note})." if note else ".")
    )
    return " ".join([said, *dict.fromkeys(warnings)])
