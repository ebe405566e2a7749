"""Figures of answers that were found elsewhere are those that the protocol itself gives."""

import numpy as np
import pytest

from histokin.evaluate import Items, Task, evaluate_found, evaluate_retrieval, make_task
from histokin.search import Neighbours

METRICS = ("acc@1", "acc@3", "mmv@5", "map@5", "macro_f1@5")


def make_world(seed: int = 0) -> tuple[np.ndarray, Items]:
    """60 tiles of 10 patients, some of them unlabelled."""
    rng = np.random.default_rng(seed)
    label, patient = rng.integers(0, 3, 60), np.arange(60) // 6
    x = rng.normal(size=(3, 8))[label] + rng.normal(size=(60, 8))
    names = [None if n % 11 == 0 else f"class {code}" for n, code in enumerate(label)]
    return x, Items.of(names, [f"p{n}" for n in patient], [f"s{n // 3}" for n in range(60)])


def by_loop(x: np.ndarray, items: Items, task: Task, k: int) -> Neighbours:
    """For each query the k most alike rows of other groups, one pair at a time."""
    unit = x[task.rows] / np.linalg.norm(x[task.rows], axis=1, keepdims=True)
    ids, scores = [], []
    for query in task.queries:
        pairs = [
            (-float(unit[query] @ unit[row]), row)
            for row in range(len(task.rows))
            if task.groups[row] != task.groups[query]
        ]
        best = sorted(pairs)[:k]
        ids.append([row for _, row in best])
        scores.append([-score for score, _ in best])
    return Neighbours(np.array(ids), np.array(scores))


@pytest.mark.parametrize("leave_out", ["patient", "slide"])
@pytest.mark.parametrize("max_queries", [20_000, 23])
def test_answers_of_a_loop_get_the_figures_of_the_protocol(leave_out: str, max_queries: int) -> None:
    x, items = make_world()
    task = make_task(items, leave_out=leave_out, max_queries=max_queries, seed=3)
    found = {"e": by_loop(x, items, task, 5), "half": by_loop(x[:, :4], items, task, 5)}
    own = evaluate_found(found, items, task, level="tile", max_queries=max_queries, seed=3)
    wanted = evaluate_retrieval({"e": x, "half": x[:, :4]}, items, leave_out=leave_out, max_queries=max_queries, seed=3)
    assert repr(own.results) == repr(wanted.results)  # NaN equals no NaN
    assert own.protocol == wanted.protocol
    assert own.warnings == wanted.warnings


def test_floors_stand_beside_what_was_found_as_the_mean_of_their_members() -> None:
    x, items = make_world()
    rng = np.random.default_rng(1)
    members = [rng.normal(size=(60, 6)) for _ in range(3)]
    task = make_task(items, leave_out="patient", max_queries=20_000, seed=0)
    floors = {"random": [by_loop(member, items, task, 5) for member in members]}
    own = evaluate_found({"e": by_loop(x, items, task, 5)}, items, task, level="tile", floors=floors)
    wanted = evaluate_retrieval({"e": x}, items, floors={"random": members})
    for metric in METRICS:
        for name in ("e", "random"):
            first, second = own.result(name, metric), wanted.result(name, metric)
            assert (first.value, first.kind, first.delta) == (second.value, second.kind, second.delta)


def test_how_answers_were_found_is_named_and_kept_apart() -> None:
    x, items = make_world()
    task = make_task(items, leave_out="patient", max_queries=20_000, seed=0)
    first, second = (
        evaluate_found({"e": by_loop(rows, items, task, 5)}, items, task, level="tile", strategy=name)
        for rows, name in ((x, "maxsim"), (x[:, ::2], "mean"))
    )
    joined = first.joined(second)
    for one, name in ((first, "maxsim"), (second, "mean")):
        assert one.protocol["strategies"] == [name]
        assert joined.result("e", "acc@1", name).value == one.result("e", "acc@1", name).value
    assert joined.result("e", "acc@1", "maxsim").value != joined.result("e", "acc@1", "mean").value


def test_an_answer_of_the_querys_own_group_is_refused_also_of_a_floor() -> None:
    x, items = make_world()
    task = make_task(items, leave_out="patient", max_queries=20_000, seed=0)
    honest = by_loop(x, items, task, 5)
    ids = honest.ids.copy()
    ids[4, 2] = task.queries[4]
    leaking = Neighbours(ids, honest.scores)
    with pytest.raises(ValueError, match="e answers with rows of the query's own patient"):
        evaluate_found({"e": leaking}, items, task, level="tile")
    with pytest.raises(ValueError, match="colour answers with rows of the query's own patient"):
        evaluate_found({"e": honest}, items, task, level="tile", floors={"colour": [leaking]})


def test_lists_that_end_early_count_as_unanswered_from_there() -> None:
    x, items = make_world()
    task = make_task(items, leave_out="patient", max_queries=20_000, seed=0)
    whole = by_loop(x, items, task, 5)
    ids, scores = whole.ids.copy(), whole.scores.copy()
    ids[::2], scores[::2] = -1, np.nan
    found = evaluate_found({"e": Neighbours(ids, scores)}, items, task, level="tile").result("e", "acc@1")
    codes = task.codes
    hit = codes[whole.ids[:, 0]] == codes[task.queries]
    assert found.value == pytest.approx(np.where(np.arange(len(hit)) % 2 == 0, False, hit).mean())
