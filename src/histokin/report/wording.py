"""How numbers, names and states are put into words: rounding, units and the cleaning of hostile text."""

import math
import re
from typing import Any

from histokin.report.document import Value

MISSING = "–"
UNLABELLED = "unlabelled"
STATES = {
    "ok": "usable",
    "missing": "file missing",
    "unreadable": "unreadable",
    "unsupported": "not supported",
    "no_mpp": "no pixel size",
    "no_tissue": "no tissue",
    "damaged": "damaged",
    "duplicate": "duplicate",
}
_METRICS = {
    "acc": "Acc",
    "mmv": "mMV",
    "map": "mAP",
    "auroc": "AUROC",
    "auc": "AUC",
    "f1": "F1",
    "knn": "kNN",
    "ndcg": "nDCG",
}
MEASURES = {"feature_std": "feature standard deviation", "rank": "effective rank"}

# Characters that no page may hold (XML's rule) and lone surrogates, which undecodable file names bring along.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_AT_K = re.compile(r"^(.+?)_at_(\d+)$")


def clean(value: Any) -> Any:
    """Make every text in a plain value encodable: control characters and lone surrogates become U+FFFD."""
    if isinstance(value, str):
        return _FORBIDDEN.sub("\ufffd", value)
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def is_number(value: float | None) -> bool:
    """Whether there is a finite number to show."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table: fixed decimals below 10, fewer above, a true minus sign, a dash for none."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size == 0:
        text = "0"
    elif size < 10**-digits:
        text = f"{value:.2g}"  # 0.00042, 3.1e-07
    else:
        decimals = digits if size < 10 else 0 if size >= 1000 or size == round(size) else 1
        text = f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, with its sign always shown."""
    is_small = is_number(value) and 0 < abs(value or 0) < 10**-digits
    text = number(value, digits) if not is_small else f"{value:.{digits}f}".replace("-", "−")  # aligned with the others
    return f"+{text}" if is_number(value) and (value or 0) > 0 else text


def count(value: int) -> str:
    """A count with thousands separators."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """A count and its noun: "1 slide", "2,000 tiles", "3 queries", "2 keys"."""
    plural = noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"
    return f"{value:,} {noun if value == 1 else plural}"


def percent(share: float | None) -> str:
    """A share in percent; small ones keep a decimal so that they do not read as zero."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{share * 100:.1f} %" if 0 < share < 0.095 else f"{share * 100:.0f} %"


def interval(value: Value, digits: int = 3) -> str:
    """The interval in brackets, or "" where there is none."""
    if not is_number(value.low) or not is_number(value.high):
        return ""
    return f"[{number(value.low, digits)}, {number(value.high, digits)}]"


def p_value(p: float | None) -> str:
    """A p value, never rounded to zero."""
    if p is None or not math.isfinite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def metric(name: str) -> str:
    """A metric as the field writes it: `mmv_at_5` reads mMV@5, `balanced_accuracy` balanced accuracy."""
    match = _AT_K.match(name)
    stem, k = match.groups() if match else (name, "")
    words = _METRICS.get(stem.lower(), stem.replace("_", " "))
    return f"{words}@{k}" if k else words


def measure(name: str) -> str:
    """A monitor's name in words."""
    return MEASURES.get(name, name.replace("_", " "))


def state(name: str) -> str:
    """A slide's state in words."""
    return STATES.get(name, name.replace("_", " "))


def duration(seconds: float | None) -> str:
    """Training time: 42 s, 3 min, 2 h 10 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def pixel_size(mpp: float) -> str:
    """Micrometres per pixel with the digits that vendors state: 0.25, 0.4975."""
    return f"{mpp:.4g} µm/px"


def pixels(width: int, height: int) -> str:
    """A slide's size, or "" if unknown."""
    return f"{width:,} × {height:,} px" if width and height else ""


def joined(parts: list[str]) -> str:
    """Words as a list in a sentence: "a, b and c"."""
    return " and ".join(([", ".join(parts[:-1])] if len(parts) > 1 else []) + parts[-1:])
