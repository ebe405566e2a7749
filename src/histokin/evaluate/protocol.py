"""Protocols: which items ask, which may answer, and against what a figure is held.

The exclusion is by patient unless asked otherwise; encoders and floors answer the same queries.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from histokin.evaluate.assess import N_PERMUTATIONS, Ranked, assess
from histokin.evaluate.comparison import check_rows
from histokin.evaluate.floors import floor_distance
from histokin.evaluate.intervals import N_DRAWS
from histokin.evaluate.items import Items, LeaveOut, Mask, Task, is_missing, make_task
from histokin.evaluate.results import Evaluation
from histokin.evaluate.vectors import nearest_allowed, scaled, standardised
from histokin.progress import Reporter, silent
from histokin.search import Neighbours, Strategy, nearest_slides
from histokin.search.votes import VoteRule

MAX_QUERIES = 20_000
SLIDE_TILES = 128
"""Tiles of a slide's bag that an evaluation of slides compares; the cost grows with its square."""

Features = np.ndarray | Sequence[np.ndarray]
Bags = Sequence[np.ndarray] | Sequence[Sequence[np.ndarray]]

_NO_RESULT = "Only the query itself is left out: neighbours share its patient. This is not a result."
_LENIENT: dict[tuple[str, str], str] = {
    ("self", "tile"): "Only the query itself is left out: neighbours share its slide and patient. This is not a "
    "result.",
    ("slide", "tile"): "Only the query's slide is left out: neighbours may share its patient. Not about new patients.",
    ("region", "tile"): "Only the query's region is left out: neighbours may share its slide and patient. Not about "
    "new patients.",
    **{(rule, "slide"): _NO_RESULT for rule in ("self", "slide", "region")},
}


def evaluate_retrieval(
    encoders: Mapping[str, np.ndarray],
    items: Items,
    *,
    floors: Mapping[str, Features] | None = None,
    reference: str | None = None,
    leave_out: LeaveOut = "patient",
    queries: Mask | None = None,
    database: Mask | None = None,
    k: Sequence[int] = (1, 3, 5),
    rule: VoteRule = "rank",
    level: Literal["tile", "slide"] = "tile",
    max_queries: int = MAX_QUERIES,
    clusters: Sequence[Any] | np.ndarray | None = None,
    cluster: str = "cluster",
    seed: int = 0,
    progress: Reporter = silent,
) -> Evaluation:
    """How often the nearest items of other patients carry the query's label.

    Args:
        encoders: (N, d) features by name, one row an item; ranked by cosine.
        items: labels, patients, slides, sites and regions of the N rows.
        floors: features by the floors' names, ranked as `floor_distance` says; a list of arrays (seeds of a
            random-weight encoder) counts as the mean of its members query by query.
        reference: the encoder that others are compared with; by default the first.
        leave_out: whose items are no candidates: those of the query's patient, slide, region or site, or itself alone.
        queries: (N,) bool: the labelled among them ask; by default all do.
        database: (N,) bool: the labelled among them are candidates; by default all are. `leave_out` holds as well.
        k: lengths of the lists.
        rule: of the votes; see `votes.votes`.
        level: what an item is.
        max_queries: more are sampled equally per patient; the database stays whole.
        clusters: (N,) another unit of inference than the patient, see `items.make_task`.
        cluster: its word.
        seed: of query sampling, bootstrap and permutations.
        progress: told each row ranked.

    Returns:
        `Evaluation`.

    Raises:
        EvaluationError: the protocol cannot be carried out on these items; says why and what to do.
        StoreError: a vector is zero or not finite; names encoder and row.
        ValueError: shapes or names do not fit.
    """
    main = check_rows(encoders, floors, reference)
    task = make_task(
        items,
        leave_out=leave_out,
        max_queries=max_queries,
        seed=seed,
        clusters=clusters,
        cluster=cluster,
        queries=queries,
        database=database,
    )
    ranked: list[Ranked] = []
    n_rows = len(encoders) + len(floors or {})
    with progress("evaluate", n_rows, "rows") as line:
        for name, features in encoders.items():
            found = nearest_allowed(name, _checked(name, features, items), task, max(k))
            ranked.append(Ranked(name, "encoder", "cosine", (found,)))
            line.advance(1, name)
        for name, features in (floors or {}).items():
            metric, is_scaled = floor_distance(name)
            repeats = [features] if isinstance(features, np.ndarray) else list(features)
            found_all = tuple(
                nearest_allowed(name, _checked(name, repeat, items), task, max(k), metric, is_scaled=is_scaled)
                for repeat in repeats
            )
            ranked.append(Ranked(name, "floor", metric + (", z-scored" if is_scaled else ""), found_all))
            line.advance(1, name)
    protocol = _protocol(task, level=level, k=k, rule=rule, seed=seed, max_queries=max_queries, ranked=ranked)
    return assess(
        task,
        items,
        ranked,
        ks=k,
        rule=rule,
        level=level,
        reference=main,
        seed=seed,
        protocol=protocol,
        warnings=exclusion_warnings(task, items, level),
    )


def evaluate_slides(
    encoders: Mapping[str, Sequence[np.ndarray]],
    items: Items,
    *,
    floors: Mapping[str, Bags] | None = None,
    strategies: Sequence[Strategy] = ("mean", "median_min"),
    reference: str | None = None,
    leave_out: LeaveOut = "patient",
    queries: Mask | None = None,
    database: Mask | None = None,
    k: Sequence[int] = (1, 3, 5),
    rule: VoteRule = "rank",
    limit: int = SLIDE_TILES,
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
    progress: Reporter = silent,
) -> Evaluation:
    """How often the slides most like a slide carry its label; one vote a slide.

    Differences, nulls and Holm's adjustment are made within each strategy, for which the reference is its own row.

    Args:
        encoders: bags (n_i, d) by encoder's name, one a slide.
        items: one row a slide.
        floors: bags by floor; a list of such lists counts as the mean of its members.
        strategies: see `search.nearest_slides`.
        limit: tiles of a bag that are compared.
        reference, leave_out, queries, database, k, rule, max_queries, seed, progress: as in `evaluate_retrieval`.

    Returns:
        `Evaluation`, its rows told apart by `strategy`.

    Raises:
        As `evaluate_retrieval`.
    """
    main = check_rows(encoders, floors, reference)
    task = make_task(items, leave_out=leave_out, max_queries=max_queries, seed=seed, queries=queries, database=database)
    evaluation: Evaluation | None = None
    n_rows = len(strategies) * (len(encoders) + len(floors or {}))
    with progress("evaluate", n_rows, "rows") as line:
        for strategy in strategies:
            ranked: list[Ranked] = []
            how: dict[str, Any] = {"k": max(k), "strategy": strategy, "limit": limit, "seed": seed}
            for name, bags in encoders.items():
                found = nearest_bags(_checked(name, bags, items), task, name=name, **how)
                ranked.append(Ranked(name, "encoder", "cosine", (found,), strategy))
                line.advance(1, f"{name} {strategy}")
            for name, bags in (floors or {}).items():
                repeats = [bags] if isinstance(bags[0], np.ndarray) else list(bags)
                found_all = tuple(
                    nearest_bags(_checked(name, repeat, items), task, name=name, **how) for repeat in repeats
                )
                ranked.append(Ranked(name, "floor", distance_words(name), found_all, strategy))
                line.advance(1, f"{name} {strategy}")
            one = assess(
                task,
                items,
                ranked,
                ks=k,
                rule=rule,
                level="slide",
                reference=main,
                seed=seed,
                protocol={
                    **_protocol(task, level="slide", k=k, rule=rule, seed=seed, max_queries=max_queries, ranked=ranked),
                    "strategies": list(strategies),
                    "tiles_a_bag": limit,
                },
                warnings=exclusion_warnings(task, items, "slide"),
            )
            evaluation = one if evaluation is None else evaluation.joined(one)
    if evaluation is None:
        raise ValueError("evaluate_slides needs at least one strategy")
    return evaluation


def evaluate_found(
    found: Mapping[str, Neighbours],
    items: Items,
    task: Task,
    *,
    level: Literal["tile", "slide"],
    floors: Mapping[str, Sequence[Neighbours]] | None = None,
    strategy: str = "",
    reference: str | None = None,
    k: Sequence[int] = (1, 3, 5),
    rule: VoteRule = "rank",
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
) -> Evaluation:
    """Figures of answers that were found elsewhere, such as by an index.

    Args:
        found: by row's name, neighbours of `task.queries` as places among `task.rows`, none of them excluded by the
            task's rule; at least `max(k)` wide.
        items: that the task was made of.
        task: who was asked, and who could answer.
        level: of the items.
        floors: the same of floors, a list for several seeds.
        strategy: how they were found, where that has a name.
        reference, k, rule, seed: as in `evaluate_retrieval`.
        max_queries: that the task was made with.

    Raises:
        ValueError: an answer of the query's own group.
    """
    beside = {name: tuple(answers) for name, answers in (floors or {}).items()}
    everything = {**{name: (answers,) for name, answers in found.items()}, **beside}
    for name, answers in ((name, one) for name, parts in everything.items() for one in parts):
        own = task.groups[task.queries][:, None] == task.groups[np.maximum(answers.ids, 0)]
        if (own & (answers.ids >= 0)).any():
            raise ValueError(f"{name} answers with rows of the query's own {task.leave_out}")
    ranked = [Ranked(name, "encoder", "cosine", (answers,), strategy) for name, answers in found.items()]
    ranked += [Ranked(name, "floor", distance_words(name), parts, strategy) for name, parts in beside.items()]
    protocol = _protocol(task, level=level, k=k, rule=rule, seed=seed, max_queries=max_queries, ranked=ranked)
    return assess(
        task,
        items,
        ranked,
        ks=k,
        rule=rule,
        level=level,
        reference=reference or next(iter(found)),
        seed=seed,
        protocol={**protocol, "strategies": [strategy]} if strategy else protocol,
        warnings=exclusion_warnings(task, items, level),
    )


def distance_words(name: str) -> str:
    """By what a floor, or (under any other name) an encoder, is compared."""
    metric, is_scaled = floor_distance(name)
    return metric + (", z-scored" if is_scaled else "")


def nearest_bags(
    bags: Sequence[np.ndarray],
    task: Task,
    *,
    k: int,
    strategy: Strategy,
    name: str,
    limit: int = SLIDE_TILES,
    seed: int = 0,
) -> Neighbours:
    """The slides most like each query of a task, as places among its rows; floors by the distance that suits them.

    Args:
        bags: (n_i, d) of every item of the task.
        task: who asks and who may answer.
        k: slides a query.
        strategy: see `search.nearest_slides`.
        name: of the encoder or floor.
        limit: tiles of a bag that are compared.
        seed: of the draw of tiles.
    """
    metric, is_scaled = floor_distance(name)
    kept = [np.asarray(bags[row]) for row in task.rows]
    if is_scaled:
        kept = _scaled_bags(kept, task)
    asked = [kept[query] for query in task.queries]
    held = kept if task.database is None else [kept[row] for row in task.database]
    how: dict[str, Any] = {"strategy": strategy, "metric": metric, "limit": limit, "seed": seed}
    return task.among_rows(nearest_slides(asked, held, k, **how, **task.exclusion))


def _scaled_bags(bags: Sequence[np.ndarray], task: Task) -> list[np.ndarray]:
    """Bags z-scored by those that may answer, as `nearest_allowed` does."""
    every = np.concatenate(bags)
    stops = np.cumsum([len(bag) for bag in bags])[:-1]
    if task.database is None:
        return np.split(standardised(every), stops)
    held = np.concatenate([bags[row] for row in task.database])
    return np.split(scaled(held.astype(np.float64), every.astype(np.float64))[1], stops)


def _checked(name: str, features: Any, items: Items) -> Any:
    if len(features) != len(items):
        raise ValueError(f"{name} has {len(features)} rows for {len(items)} items")
    return features


def _protocol(
    task: Task,
    *,
    level: str,
    k: Sequence[int],
    rule: str,
    seed: int,
    max_queries: int,
    ranked: Sequence[Ranked],
) -> dict[str, Any]:
    """Everything that the figures depend on besides the features."""
    return {
        "level": level,
        "leave_out": task.leave_out,
        "k": sorted(set(k)),
        "vote": rule,
        "ap_denominator": "min(k, R)",
        "order": "score descending, then row ascending",
        "seed": seed,
        "n_labelled": len(task.rows) + task.n_outside,
        "n_unlabelled": task.n_unlabelled,
        "n_queries": len(task.queries),
        "query_sampling": f"equal per patient, at most {max_queries}" if task.is_sampled else "all",
        **task.sides,
        "classes": list(task.classes),
        "cluster": task.cluster,
        "n_clusters": task.n_clusters,
        "bootstrap_draws": N_DRAWS,
        "permutations": N_PERMUTATIONS,
        "distances": {row.name: row.distance for row in ranked},
        "repeats": {row.name: len(row.found) for row in ranked},
    }


def exclusion_warnings(task: Task, items: Items, level: Literal["tile", "slide"]) -> tuple[str, ...]:
    """What a reader must be told of who was asked and who could answer."""
    said = []
    n_patients, n_slides = len(np.unique(task.patients)), len(task.rows)
    # A patient has one slide: leaving it out leaves him out.
    is_alone = level == "slide" and task.leave_out != "self" and n_patients == n_slides
    lenient = _LENIENT.get((task.leave_out, level), "")
    if lenient and not is_alone and np.intersect1d(*_patients_of_sides(task)).size:
        said.append(lenient)
    if task.leave_out == "region" and level == "tile":
        named = {str(s) for s, region in zip(items.slide, items.region, strict=True) if not is_missing(region)}
        slides = {str(slide) for slide in items.slide[task.rows]}
        if slides - named:
            said.append(f"{len(slides - named)} of {len(slides)} slides name no region: each of them counts as one.")
    if task.n_unlabelled:
        said.append(f"{task.n_unlabelled} unlabelled items neither asked nor answered.")
    if task.n_outside:
        said.append(f"{task.n_outside} labelled items are neither queries nor database: they took no part.")
    return tuple(said)


def _patients_of_sides(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Patient codes of those that ask, and of those that may answer."""
    return task.patients[task.queries], task.patients[task.answering]
