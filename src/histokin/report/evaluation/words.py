"""What an evaluation's page calls things: metrics, counts, prevalence, and the evaluation in one sentence."""

from collections.abc import Mapping

from histokin.report import wording
from histokin.report.comparison.words import LOWER_IS_BETTER
from histokin.report.evaluation.document import Chapter, EvaluationDocument

# By the metric without its "@k": name, and what it means; {item} is a tile or a slide.
_METRICS = {
    "acc": ("Acc", "Share of {item}s that have one of their own class among the {k} nearest."),
    "mmv": ("mMV", "Share of {item}s whose {k} nearest vote for their own class."),
    "p": ("P", "Share of the {k} nearest that are of the {item}'s class, mean over {item}s."),
    "map": (
        "mAP",
        "Mean average precision of the {k} nearest: a neighbour of the {item}'s class counts more up front.",
    ),
    "macro_f1": ("Macro F1", "Mean over classes of the harmonic mean of precision and recall."),
    "balanced_accuracy": ("Balanced accuracy", "Mean over classes of the share of {item}s named right."),
    "accuracy": ("Accuracy", "Share of {item}s named right; a common class counts more."),
    "macro_auc": ("Macro AUC", "Mean over classes of how often a {item} of the class is ranked above another."),
    "nll": ("NLL", "Mean negative logarithm of the probability that the truth was given; lower is better."),
    "ece": ("ECE", "How far certainty and share right lie apart, in 15 bins of equal width; lower is better."),
    "ace": ("ACE", "How far certainty and share right lie apart, in 10 bins of equal count; lower is better."),
    "brier": ("Brier", "Mean squared distance of the probabilities to the truth; lower is better."),
    "r2": ("R²", "Share of the variance explained; below 0 is worse than the mean."),
    "spearman": ("Rank correlation", "Spearman's correlation of predicted and measured value over all {item}s."),
    "spearman_within": ("Rank correlation within slides", "Mean of Spearman's correlation in each slide."),
    "addr": ("Distance ratio", "How much further apart in the embedding distant tiles of a slide are than near ones."),
    "addr_median": ("Distance ratio, median of slides", "The same ratio in each slide; the median over slides."),
    "robustness_index": (
        "Robustness index",
        "Of the neighbours that share either the class or the site, the share that share the class.",
    ),
    "recall": ("Recall", "Share of the class's {item}s named right."),
    "precision": ("Precision", "Share of the {item}s named so that are of the class."),
    "f1": ("F1", "Harmonic mean of precision and recall."),
    "auc": ("AUC", "How often a {item} of the class is ranked above another."),
}
_SINGULAR = {"queries": "query", "classes": "class"}


def metric_words(metric: str, chapter: Chapter) -> tuple[str, str]:
    """Name and meaning of a chapter's metric, which may be one of its classes; "" where the name must do."""
    if metric in chapter.prevalence:
        return metric, "The queries of this class alone."
    stem, _, k = metric.partition("@")
    if stem not in _METRICS:
        return wording.metric(metric), ""
    name, meaning = _METRICS[stem]
    if k == "1" and stem in ("acc", "mmv"):
        meaning = "Share of {item}s whose single nearest {item} is of the same class."
    return f"{name}@{k}" if k else name, meaning.format(item=chapter.level, k=k or "k")


def is_lower_better(metric: str) -> bool:
    """Whether a metric is an error."""
    return metric in LOWER_IS_BETTER


def counted(counts: Mapping[str, int]) -> list[str]:
    """Counts by their plural nouns as words: "1 query", "8,264 tiles"."""
    return [f"{n:,} {_SINGULAR.get(noun, noun.removesuffix('s')) if n == 1 else noun}" for noun, n in counts.items()]


def n_asked(chapter: Chapter) -> int | None:
    """How many tiles or slides were asked or predicted, where it was counted."""
    return chapter.counts.get("queries", chapter.counts.get(f"{chapter.level}s"))


def left_out(unit: str) -> str:
    """Whose items take no part in an answer: "patient left out"."""
    return "only the query itself left out" if unit == "self" else f"{unit} left out" if unit else ""


def prevalence_words(prevalence: Mapping[str, float], most: int = 3) -> str:
    """Shares of the commonest classes, and of the rarest where some are not named; "" for values."""
    shares = sorted(prevalence.items(), key=lambda item: (-item[1], item[0]))
    named = shares if len(shares) <= most + 1 else shares[:most]  # "1 more" is no shorter than its name
    said = [f"{name or wording.UNLABELLED} {wording.percent(share)}" for name, share in named]
    if len(shares) > len(named):
        said.append(f"{len(shares) - most} more, the rarest {wording.percent(shares[-1][1])}")
    return "; ".join(said)


def summary(document: EvaluationDocument) -> str:
    """Which encoders were judged on what, against what, in one or two sentences."""
    names = [store.name for store in document.stores]
    one = names[0] if len(names) == 1 else wording.counted(len(names), "encoder")
    of = wording.joined(counted(document.counts))
    floors = f"beside {wording.counted(len(document.floors), 'floor')} that need no training"
    text = f"{one}, frozen, judged on {of}" if of else f"{one}, frozen"
    text += f", {floors if document.floors else 'without floors'}."
    if document.leave_out == "self":
        return f"{text} Only what is asked about is itself left out."
    if document.leave_out:
        text += f" The {document.leave_out} that is asked about is left out of what answers and of what is fitted"
        text += ", where a chapter does not say otherwise."
    return text
