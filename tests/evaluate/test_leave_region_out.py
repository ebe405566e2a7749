"""The query's region left out: planted copies, a slow loop, and regions that are not known."""

import numpy as np
import pytest

from histokin.errors import EvaluationError
from histokin.evaluate import Items, evaluate_retrieval, evaluate_slides, retrieve_classes
from histokin.evaluate.items import make_task, region_units

N = 72


def cut_up(regions: np.ndarray | list | None = None) -> Items:
    """Six patients of two slides; on each slide six tiles of three regions, which have the same names everywhere."""
    row = np.arange(N)
    return Items.of(
        [f"c{i % 4 // 2}" for i in row],
        [f"p{i // 12}" for i in row],
        [f"s{i // 6:02d}" for i in row],
        [f"h{i // 24}" for i in row],
        ["abc"[i % 6 // 2] for i in row] if regions is None else regions,
    )


def with_copies(items: Items, of: int) -> tuple[np.ndarray, Items]:
    """Random vectors with a copy of each item at the end, in the region `of` regions further on the same slide."""
    x = np.random.default_rng(0).normal(size=(len(items), 8))
    copies = Items.of(
        items.label,
        items.patient,
        items.slide,
        items.site,
        ["abc"[("abc".index(region) + of) % 3] for region in items.region],
    )
    names = ("label", "patient", "slide", "site", "region")
    both = Items(*(np.concatenate([getattr(items, name), getattr(copies, name)]) for name in names))
    return np.concatenate([x, x + 1e-3]), both


def test_a_copy_in_the_querys_own_region_is_found_under_self_and_not_under_region() -> None:
    x, items = with_copies(cut_up(), of=0)
    values = {rule: evaluate_retrieval({"e": x}, items, leave_out=rule) for rule in ("self", "region", "slide")}
    assert values["self"].result("e", "acc@1").value == 1.0
    for rule in ("region", "slide"):
        assert abs(values[rule].result("e", "acc@1").value - values[rule].result("e", "acc@1").chance) < 0.15
    frame = values["region"].frames["e"][0]
    is_own = (items.slide[frame.ids] == items.slide[:, None]) & (items.region[frame.ids] == items.region[:, None])
    assert not is_own.any()


def test_a_copy_in_another_region_of_the_slide_is_found_and_the_reader_is_warned() -> None:
    x, items = with_copies(cut_up(), of=1)
    found = evaluate_retrieval({"e": x}, items, leave_out="region")
    assert found.result("e", "acc@1").value == 1.0
    warned = "Only the query's region is left out: neighbours may share its slide and patient. Not about new patients."
    assert found.warnings == (warned,)
    assert retrieve_classes({"e": x}, items, leave_out="region").warnings == (warned,)
    assert found.result("e", "acc@1").interval.cluster == "patient"
    assert found.protocol["leave_out"] == "region"
    slide = evaluate_retrieval({"e": x}, items, leave_out="slide")
    assert slide.result("e", "acc@1").value < 0.75


def test_answers_equal_a_loop_over_slide_and_region_in_any_order() -> None:
    items = cut_up([None if i < 12 else "abc"[i % 3] for i in range(N)])  # the first two slides name none
    x = np.random.default_rng(1).normal(size=(N, 4))
    order = np.random.default_rng(2).permutation(N)
    found = evaluate_retrieval({"e": x}, items, leave_out="region").frames["e"][0]
    turned = evaluate_retrieval({"e": x[order]}, items.take(order), leave_out="region").frames["e"][0]
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    own = list(zip(items.slide, items.region, strict=True))
    for i in range(N):
        expected = sorted((j for j in range(N) if own[j] != own[i]), key=lambda j: -float(z[i] @ z[j]))[:5]
        assert found.ids[i].tolist() == expected
        assert order[turned.ids[np.flatnonzero(order == i)[0]]].tolist() == expected
    assert found.n_allowed.tolist() == [N - own.count(unit) for unit in own]


def test_a_slide_without_regions_is_one_and_this_is_told() -> None:
    items = cut_up(["" if i < 18 else "a" if i % 2 else "b" for i in range(N)])
    x = np.random.default_rng(0).normal(size=(N, 4))
    told = "3 of 12 slides name no region: each of them counts as one."
    assert told in evaluate_retrieval({"e": x}, items, leave_out="region").warnings
    nowhere = cut_up([""] * N)
    by_slide = evaluate_retrieval({"e": x}, nowhere, leave_out="slide")
    by_region = evaluate_retrieval({"e": x}, nowhere, leave_out="region")
    assert (by_region.frames["e"][0].ids == by_slide.frames["e"][0].ids).all()
    assert "12 of 12 slides name no region: each of them counts as one." in by_region.warnings


def test_an_item_that_lacks_the_region_its_slide_has_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(N, 4))
    some = cut_up(["" if i in (3, 7) else "a" if i % 2 else "b" for i in range(N)])
    match = (
        "2 of 72 labelled items have no region, though others of their slides have one, so leaving the region out "
        "cannot be kept. Fill the tiles' region column"
    )
    with pytest.raises(EvaluationError, match=match):
        evaluate_retrieval({"e": x}, some, leave_out="region")
    silent = Items.of(
        [None if i in (3, 7) else label for i, label in enumerate(some.label)],
        some.patient,
        some.slide,
        region=some.region,
    )
    assert evaluate_retrieval({"e": x}, silent, leave_out="region").results[0].n_queries == N - 2  # they take no part
    nameless = Items.of(some.label, some.patient, [None, *some.slide[1:]], region=["a"] * N)
    with pytest.raises(EvaluationError, match="1 of 72 labelled items have no slide"):
        evaluate_retrieval({"e": x}, nameless, leave_out="region")
    alone = Items.of(some.label, some.patient, ["s"] * N, region=["a"] * N)
    with pytest.raises(EvaluationError, match=r"belong to one region \(s/a\).*pass --leave-out self"):
        evaluate_retrieval({"e": x}, alone, leave_out="region")


def test_regions_of_one_name_on_two_slides_are_two_whatever_the_names() -> None:
    slides = ["a", "a", "b", "a/b", "a", "a\\", "a", "c", None]
    regions = ["x", "y", "x", "c", "b/c", "x", "\\/x", None, "x"]
    units = region_units(slides, regions).tolist()
    assert units[:3] == ["a/x", "a/y", "b/x"]
    assert (units[7], units[8]) == ("c", "")
    assert len(set(units)) == len(units)
    assert region_units(["a", "a", "b"], ["x", None, float("nan")]).tolist() == ["a/x", "", "b"]


def test_items_know_no_region_unless_they_are_told() -> None:
    items = Items.of(["a", "b"], [0, 1], [0, 1])
    assert items.region.tolist() == ["", ""]
    assert Items(items.label, items.patient, items.slide, items.site).region.tolist() == ["", ""]
    assert cut_up().take(np.array([0, 2, 71])).region.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="columns of the items differ in length"):
        Items.of(["a", "b"], [0, 1], [0, 1], region=["a"])


def test_slides_have_no_regions_so_the_query_alone_is_left_out() -> None:
    items = cut_up().take(np.arange(0, N, 6))
    blank = Items(items.label, items.patient, items.slide, items.site)
    bags = [np.random.default_rng(i).normal(size=(3, 4)) for i in range(12)]
    found = evaluate_slides({"e": bags}, blank, leave_out="region", k=(1,), strategies=("mean",))
    assert found.warnings[0].startswith("Only the query itself is left out: neighbours share its patient.")
    task = make_task(blank, leave_out="region", max_queries=99, seed=0)
    assert task.allowed_counts().sum(axis=1).tolist() == [11] * 12
