"""What the page of slide classifiers says in sentences: figures, maps, and what none of it shows."""

from histokin.report import wording
from histokin.report.comparison.words import LOWER_IS_BETTER
from histokin.report.evaluation import words as evaluation_words
from histokin.report.evaluation.document import Chapter
from histokin.report.mil.document import Classifier, MapKind, MilDocument

_METRICS = {
    "c_index": (
        "C-index",
        "Harrell's: of the pairs of {unit}s whose order is known, the share in which the earlier event had more risk.",
    ),
    "mae": ("Mean absolute error", "Mean distance of the predicted value to the measured one; lower is better."),
    "pearson": ("Correlation", "Pearson's correlation of predicted and measured value over all {unit}s."),
}
SLIDES = Chapter("mil", "Slides", "", "", "slide", "", {})
"""The words of an evaluation's slides are those of a classifier's."""
_MODELS = {
    "abmil": "ABMIL",
    "acmil": "ACMIL",
    "clam_mb": "CLAM-MB",
    "clam_sb": "CLAM-SB",
    "dsmil": "DSMIL",
    "max": "max pooling",
    "mean": "mean pooling",
    "mil_rnn": "MIL-RNN",
    "transmil": "TransMIL",
}
_ATTENTION = frozenset({"abmil", "acmil", "clam_mb", "clam_sb", "dsmil", "transmil"})
MAPS: dict[MapKind, tuple[str, str]] = {
    "percentile": (
        "Attention, percentile",
        "Rank among the slide's own tiles. A tenth stands above 90 on every slide, without disease too.",
    ),
    "relative": (
        "Attention, times uniform",
        "On a log scale from the slide's 1st to its 99th percentile; 1 is what every tile would get of even attention.",
    ),
    "contribution": (
        "Contribution",
        "Signed share in the logit: the sum over the tiles is the logit without its bias. One scale for all slides.",
    ),
    "tile": ("Each tile on its own", "Probability that the model gives to a tile by itself."),
}


def model_name(name: str) -> str:
    """A model as the field writes it."""
    return _MODELS.get(name, name)


def capitalised(text: str) -> str:
    """With a large first letter; names in capitals keep theirs."""
    return text[:1].upper() + text[1:]


def metric_words(metric: str, unit: str) -> tuple[str, str]:
    """Name and meaning of a metric over slides or patients."""
    if metric in _METRICS:
        name, meaning = _METRICS[metric]
        return name, meaning.format(unit=unit)
    name, meaning = evaluation_words.metric_words(metric, SLIDES)
    return name, meaning.replace("slide", unit)


def is_lower_better(metric: str) -> bool:
    """Whether a metric is an error."""
    return metric in LOWER_IS_BETTER or metric == "mae"


def summary(document: MilDocument) -> str:
    """What was trained on what for what, in one or two sentences."""
    models = list(dict.fromkeys(model_name(one.model) for one in document.classifiers))
    encoders = list(dict.fromkeys(one.encoder for one in document.classifiers if one.encoder))
    target = f"{document.target} ({wording.joined(document.outputs)})" if document.kind != "survival" else "survival"
    on = f" on embeddings of {wording.joined(encoders)}" if encoders else ""
    of = wording.joined(evaluation_words.counted(document.counts))
    verb = "tells" if len(models) == 1 else "tell"
    text = f"{capitalised(wording.joined(models))}{on} {verb} {target} of slides"
    judged = f"judged on {of} held out" if document.judgements else f"asked about {of}, whose truth is not known"
    return f"{text}; {judged}." if of else f"{text}."


def trained(one: Classifier) -> str:
    """How many models speak together: "5 folds x 3 inner splits x 3 seeds: 45 models"."""
    parts = [(one.n_folds, "fold"), (one.n_inner, "inner split"), (one.n_seeds, "seed")]
    known = [(n, noun) for n, noun in parts if n]
    if not known:
        return ""
    total = 1
    for n, _ in known:
        total *= n
    return f"{' × '.join(wording.counted(n, noun) for n, noun in known)}: {wording.counted(total, 'model')}"


def facts(one: Classifier) -> list[tuple[str, str]]:
    """(name, text) of how a classifier was made."""
    epochs = sorted(one.epochs)
    said = f"{epochs[0] + 1} to {epochs[-1] + 1}, median {epochs[len(epochs) // 2] + 1}" if epochs else ""
    temperatures = ", ".join(wording.number(value, 2) for value in one.temperatures)
    rows = [
        ("model", f"{model_name(one.model)}, {one.preset}"),
        ("features", one.encoder),
        ("fingerprint", one.fingerprint),
        ("trained", trained(one)),
        ("epochs chosen", said),
        ("temperature by fold", temperatures),
    ]
    return [(name, text) for name, text in rows if text]


def single_models(one: Classifier, unit: str = "slide") -> list[str]:
    """How single models scored, a sentence a metric."""
    return [
        f"{metric_words(found.metric, unit)[0]} {wording.number(found.mean)}"
        + (f" ± {wording.number(found.sd)}" if wording.is_number(found.sd) else "")
        for found in one.single
    ]


def limits(document: MilDocument) -> list[str]:
    """What the figures and maps of this page do not show; of the classifiers that are on it."""
    models = {one.model for one in document.classifiers}
    attention = sorted(model_name(name) for name in models & _ATTENTION)
    said = []
    if attention:
        said.append(
            f"{wording.joined(attention)}: the standard assumption of multiple-instance learning (one positive tile "
            "makes a positive slide) is not respected. Attention can learn that a slide is positive unless something "
            "else is seen, and a tile may speak against a class."
        )
    if "mil_rnn" in models:
        said.append(
            "MIL-RNN reads a few tiles in the order of their suspicion; the second stage is free to take them for "
            "evidence against the class, and what it did not read has no say."
        )
    if "max" in models:
        said.append(
            "Max pooling respects the standard assumption with a single output only: with an output a class, the class "
            "without disease has a most convincing tile of its own."
        )
    if "mean" in models:
        said.append("Mean pooling weighs all tiles alike: a small focus in a large slide is diluted.")
    if document.gallery:
        said.append(
            "A map shows what the model used, not where disease is: it was trained on labels of slides and knows of no "
            "outline. Attention says where it looked, the contribution what it made of it."
        )
    if document.kind == "survival":
        said.append("A risk ranks slides; it is no probability and no time.")
    if document.judgements:
        said.append(
            "Intervals resample patients of this cohort: another hospital, scanner or stain is another question. "
            "Folds share training slides, so the spread over folds is no standard error."
        )
    if document.is_comparison:
        said.append(
            "The classifier with the highest figure is the highest on these very slides, chosen after looking. Two "
            "that cannot be told apart are not thereby equal."
        )
    return said
