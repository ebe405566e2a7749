"""Trained classifiers for a terminal: the figures that count, beside floors and chance, and what limits them."""

from collections.abc import Sequence

from histokin.report import Value, wording
from histokin.report.comparison.document import ComparedMeasure, ComparedRow
from histokin.report.lines import fitted, wrapped
from histokin.report.mil.document import Judgement, MilDocument
from histokin.report.mil.words import limits

_NAME, _COLUMN, _METRICS = 34, 25, 2


def mil_text(document: MilDocument) -> str:
    """Who was judged and how, one table by slide and by patient, single models, then warnings and notes."""
    blocks = [_head(document)]
    blocks += [_judgement(document, one) for one in document.judgements]
    if not document.is_comparison:
        blocks.append(_single(document))
    blocks.append([*wrapped(document.warnings, "! "), *wrapped([*document.notes, *limits(document)], "  ")])
    return wording.clean("\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block))


def _head(document: MilDocument) -> list[str]:
    counts = ", ".join(wording.counted(n, noun.removesuffix("s")) for noun, n in document.counts.items())
    shares = ", ".join(f"{name} {wording.percent(share)}" for name, share in document.prevalence.items())
    names = ", ".join(dict.fromkeys(one.encoder for one in document.classifiers))
    first = f"{document.title} on {names}: {counts}" + (f"; {shares}" if shares else "")
    return [*wrapped([first]), *wrapped(document.protocol, "  ")]


def _judgement(document: MilDocument, judged: Judgement) -> list[str]:
    measure = judged.measure
    shown = measure.metrics[:_METRICS]
    main = next((row for row in measure.rows if row.name == document.reference), None)
    heads = [*(wording.metric(metric) for metric in shown), f"{document.reference} - row"]
    title = f"by {judged.unit}: {wording.counted(judged.n, judged.unit)}"
    lines = [_line(title, heads)]
    for row in measure.rows:
        cells = [span(row.values.get(metric)) for metric in shown]
        cells.append(span(main.minus.get(shown[0], {}).get(row.name), "+") if main and row is not main else "")
        lines.append(_line(f"  {row.name}{' *' if row.kind == 'floor' else ''}", cells))
    lines.append(_line("  chance", [_number(measure.chance.get(metric)) for metric in shown]))
    return [*lines, *_limits(measure, shown, measure.rows)]


def _limits(measure: ComparedMeasure, metrics: Sequence[str], rows: Sequence[ComparedRow]) -> list[str]:
    said = [
        row.values[metric].note for row in rows if row.kind == "entry" for metric in metrics if metric in row.values
    ]
    return wrapped(dict.fromkeys([*(note for note in said if note), *measure.warnings]), "  ! ")


def _single(document: MilDocument) -> list[str]:
    one = document.classifiers[0]
    shown = [single for single in one.single if single.metric in ("macro_auc", "c_index", "spearman")]
    return [
        f"Single models: {wording.metric(single.metric)} {_number(single.mean)}, sd {_number(single.sd)} of {single.n}"
        for single in shown
    ]


def _line(name: str, cells: Sequence[str]) -> str:
    return fitted(name, _NAME) + "".join(fitted(cell, _COLUMN) for cell in cells)


def _number(value: float | None, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if value is not None and wording.is_number(value) else wording.MISSING


def span(found: Value | None, sign: str = "") -> str:
    """A value with its interval."""
    if found is None or not wording.is_number(found.value):
        return wording.MISSING
    ends = (found.low, found.high)
    if not all(wording.is_number(end) for end in ends):
        return _number(found.value, sign)
    return f"{_number(found.value, sign)} [{', '.join(_number(end, sign) for end in ends)}]"
