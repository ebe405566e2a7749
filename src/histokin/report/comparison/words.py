"""What a comparison's page calls things, and the sentences that say what was compared and by which protocol."""

from collections.abc import Sequence

from histokin.report import wording
from histokin.report.comparison.document import ComparedMeasure, ComparedTask, ComparisonDocument

METRICS = {
    "balanced_accuracy": (
        "Balanced accuracy",
        "A linear classifier on the frozen embeddings names each tile; the mean over classes of the share named right.",
    ),
    "macro_f1": (
        "Macro F1",
        "The same classifier; the mean over classes of the harmonic mean of precision and recall.",
    ),
    "acc@1": ("Acc@1", "Share of tiles whose single nearest tile is of the same class."),
    "mmv@5": ("mMV@5", "Share of tiles whose five nearest tiles are, by majority, of the same class."),
    "spearman_within": (
        "Rank correlation within slides",
        "A ridge regression on the frozen embeddings predicts the value; mean of Spearman's correlation in each slide.",
    ),
    "r2": ("R²", "The same regression: share of the variance explained; below 0 is worse than the mean."),
    "addr": ("Distance ratio", "How much further apart in the embedding distant tiles of a slide are than near ones."),
}
LOWER_IS_BETTER = frozenset({"nll", "ece", "ace", "brier"})
LOOKS = {
    "rank": ("Rank", "RankMe, dimensions in use; a fall towards 1 is collapse"),
    "spread": ("Spread", "1 is even, 0 is collapse"),
    "nearest": ("Nearest", "share of labelled tiles whose nearest tile of another group has their label"),
}


def metric_name(metric: str) -> str:
    """A metric in words."""
    return METRICS[metric][0] if metric in METRICS else wording.metric(metric)


def summary(document: ComparisonDocument) -> str:
    """What was compared on what under which budget, in one sentence."""
    entries = document.entries
    recipes = list(dict.fromkeys(entry.recipe for entry in entries))
    n_tasks = len({task.subject for task in document.tasks})
    trained = list(dict.fromkeys(name for entry in entries for name in entry.train))
    steps, batches = [e.steps for e in entries], [e.batch for e in entries]
    one = "An encoder" if len(entries) == 1 else f"{len(entries)} encoders"
    supervised = [entry.name for entry in entries if entry.method == "supervised"]
    how = f"without labels ({wording.joined(supervised)}: with them)" if supervised else "without labels"
    from_recipes = f"recipe{'' if len(recipes) == 1 else 's'} {wording.joined(recipes)}"
    return (
        f"{one} ({from_recipes}), trained {how} on tiles of {wording.joined(trained)} for "
        f"{_range(steps, 'step')} of {_range(batches, 'tile')} each, judged frozen on "
        f"{wording.counted(n_tasks, 'task')} beside floors that need no training."
    )


def transduction(task: ComparedTask) -> str:
    """Which entries had met the judged slides in training; "" where that is not known."""
    met = {name: share for name, share in task.transductive.items() if share}
    if not task.transductive:
        return ""
    if not met:
        return "No entry met the judged slides in training."
    if len(met) == len(task.transductive) and min(met.values()) == 1:
        return "All entries are transductive: they learned, without these labels, from the very slides that are judged."
    named = [name if share == 1 else f"{name} ({100 * share:.0f} % of the slides)" for name, share in met.items()]
    return f"Transductive, that is trained, without these labels, on slides that are judged: {'; '.join(named)}."


def _range(values: Sequence[int], noun: str) -> str:
    low, high = min(values), max(values)
    return wording.counted(low, noun) if low == high else f"{low:,} to {wording.counted(high, noun)}"


def protocol_sentence(measure: ComparedMeasure, n_judged: int, noun: str = "tile") -> str:
    """The protocol in one or two sentences; what it does not state is left out.

    `n_judged` items, called `noun`, stand where the protocol counts none itself.
    """
    how = measure.protocol
    unit = str(how.get("held_out") or how.get("leave_out") or "")
    said = []
    if "n_folds" in how:
        rows = wording.counted(how.get("n_rows", n_judged), noun)
        groups = f" of {wording.counted(how['n_groups'], unit)}" if "n_groups" in how else ""
        folds = "each in turn" if how.get("split") == "leave one out" else f"in {how['n_folds']} folds"
        said.append(f"{rows}{groups}; the {unit} is left out, {folds}, and predicted by what was fitted on the others")
    elif "n_queries" in how:
        asked = wording.counted(how["n_queries"], noun)
        of = how.get("n_labelled", n_judged)
        left_out = f"only the asking {noun} itself" if unit == "self" else f"the {unit} of the asking {noun}"
        said.append(f"{asked} of {of:,} ask; {left_out} is left out, all other labelled {noun}s answer")
    elif "near_um" in how:
        said.append(
            f"pairs of tiles of one slide, {wording.counted(how.get('n_slides', 0), 'slide')}: "
            f"near below {how['near_um'] / 1000:g} mm, distant beyond {how.get('far_um', 0) / 1000:g} mm"
        )
    if "n_clusters" in how:
        said.append(
            f"95 % intervals resample the {wording.counted(how['n_clusters'], str(how.get('cluster') or 'cluster'))}"
        )
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
