"""The queue against golden cases, and against a list that remembers everything."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from histokin.learn.state import Queue


def keys_of(ids, dim=2):
    """Keys that tell which tile they are of."""
    return torch.tensor(ids, dtype=torch.float32)[:, None] * torch.ones(dim) + torch.arange(dim) / 8


def pushed(size, batches, dim=2):
    queue = Queue(size, dim)
    for ids in batches:
        queue.push(keys_of(ids, dim), torch.tensor(ids, dtype=torch.int64))
    return queue


def numbered(sizes):
    """Batches of the given sizes of 0, 1, 2, ..."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


def same(a, b):
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("case_id", ["queue_wrap", "queue_overlong"])
def test_golden_cases(case, case_id):
    golden = case(case_id)
    queue = pushed(golden["inputs"]["size"], golden["inputs"]["enqueue"])
    assert queue.ids.tolist() == golden["expected"]
    assert torch.equal(queue.rows, keys_of(golden["expected"]))
    assert (queue.ptr.item(), queue.filled.item()) == (golden["pointer"], golden["filled"])


@given(st.integers(1, 7), st.lists(st.integers(0, 17), max_size=6))
def test_any_pushes_leave_the_last_keys_each_in_the_slot_of_its_number(size, sizes):
    queue = pushed(size, numbered(sizes))
    total = sum(sizes)
    slots = [-1] * size
    for number in range(total):
        slots[number % size] = number
    assert queue.ids.tolist() == slots
    assert torch.equal(queue.filled_rows(), keys_of(slots[: min(size, total)]))
    assert queue.ptr.item() == total % size
    assert queue.filled.item() == min(size, total)
    assert queue.is_full == (total >= size)


@given(st.integers(1, 7), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_one_push_of_everything_equals_many(size, sizes):
    assert same(pushed(size, numbered(sizes)), pushed(size, [list(range(sum(sizes)))]))


@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=4), st.lists(st.integers(0, 8), max_size=4))
def test_a_loaded_queue_goes_on_as_the_one_saved(size, before, after):
    batches = numbered(before + after)
    straight = pushed(size, batches)
    saved = {name: value.clone() for name, value in pushed(size, batches[: len(before)]).state_dict().items()}
    for assign in (False, True):
        loaded = pushed(size, [[9, 9, 9]])  # a state of its own, to be forgotten
        loaded.load_state_dict({name: value.clone() for name, value in saved.items()}, assign=assign)
        for ids in batches[len(before) :]:
            loaded.push(keys_of(ids), torch.tensor(ids, dtype=torch.int64))
        assert same(loaded, straight)
        assert torch.equal(loaded.filled_rows(), straight.filled_rows())
        assert loaded.is_full == straight.is_full


def test_a_queue_inside_a_method_and_a_deep_copy_keep_their_counters():
    original, loaded = pushed(5, [[0, 1, 2]]), Queue(5, 2)
    nn.ModuleDict({"queue": loaded}).load_state_dict(nn.ModuleDict({"queue": original}).state_dict())
    for queue in (loaded, copy.deepcopy(original)):
        queue.push(keys_of([3, 4, 5]), torch.tensor([3, 4, 5]))
        assert queue.ids.tolist() == [5, 1, 2, 3, 4]
    assert original.ids.tolist() == [0, 1, 2, -1, -1]


def test_counters_are_read_again_after_a_write_from_outside():
    source, queue = pushed(4, [[0, 1, 2]]), Queue(4, 2)
    for name, buffer in queue.named_buffers():  # as a broadcast does
        buffer.copy_(source.get_buffer(name))
    queue.read_counters()
    assert queue.filled_rows().shape == (3, 2)
    queue.push(keys_of([3, 4]), torch.tensor([3, 4]))
    assert queue.ids.tolist() == [4, 1, 2, 3]


@pytest.mark.parametrize(("ptr", "filled"), [(4, 4), (-1, 4), (0, 5), (0, -1), (1, 3)])
def test_counters_no_queue_can_have_are_refused(ptr, filled):
    state = pushed(4, [[0, 1, 2]]).state_dict() | {"ptr": torch.tensor(ptr), "filled": torch.tensor(filled)}
    with pytest.raises(ValueError, match=f"ptr {ptr} and filled {filled} cannot be"):
        Queue(4, 2).load_state_dict(state)


def test_own_keys_are_those_of_the_same_tile_among_the_filled():
    queue = pushed(5, [[7, 3, 7]])
    assert queue.own(torch.tensor([7, 3, 4])).tolist() == [[True, False, True], [False, True, False], [False] * 3]
    queue.push(keys_of([8, 9, 3]), torch.tensor([8, 9, 3]))  # over slot 0
    assert queue.own(torch.tensor([3])).tolist() == [[True, True, False, False, False]]


def test_keys_and_anchors_without_a_tile_match_nothing():
    queue = pushed(4, [[-1, 2]])
    assert not queue.own(torch.tensor([-1, -1])).any()


def test_an_empty_queue_gives_empty_tensors():
    queue = Queue(4, 3)
    assert queue.filled_rows().shape == (0, 3)
    assert queue.own(torch.tensor([1, 2])).shape == (2, 0)
    assert not queue.is_full


def test_pushing_between_loss_and_backward_leaves_the_gradient_right():
    queue, anchor = pushed(3, [[1, 2, 3]]), torch.ones(2, requires_grad=True)
    loss = (queue.filled_rows() @ anchor).sum()
    queue.push(keys_of([50, 60]), torch.tensor([50, 60]))
    loss.backward()
    torch.testing.assert_close(anchor.grad, keys_of([1, 2, 3]).sum(0), rtol=0, atol=0)


def test_no_gradient_goes_into_the_queue_and_half_keys_are_stored_as_float32():
    queue, weight = Queue(4, 2), torch.ones(2, requires_grad=True)
    queue.push((keys_of([1, 2]) * weight).half(), torch.tensor([1, 2]))
    assert not queue.rows.requires_grad
    assert queue.rows.dtype == torch.float32
    assert torch.equal(queue.filled_rows(), keys_of([1, 2]))


def test_what_is_given_out_is_a_copy():
    queue = pushed(2, [[1, 2]])
    queue.filled_rows().zero_()
    assert queue.ids.tolist() == [1, 2]
    assert torch.equal(queue.rows, keys_of([1, 2]))


@pytest.mark.parametrize(
    ("keys", "ids", "match"),
    [
        (torch.ones(2, 3), torch.tensor([0, 1]), r"keys must be \(b, 2\) floating"),
        (torch.ones(2), torch.tensor([0, 1]), "keys must be"),
        (torch.ones(2, 2, dtype=torch.int64), torch.tensor([0, 1]), "keys must be"),
        (torch.ones(2, 2), torch.tensor([0]), r"ids must be \(2,\) int64"),
        (torch.ones(2, 2), torch.tensor([0.0, 1.0]), "ids must be"),
    ],
)
def test_misuse_is_refused_and_leaves_the_queue_alone(keys, ids, match):
    queue = pushed(4, [[1]])
    with pytest.raises(ValueError, match=match):
        queue.push(keys, ids)
    assert same(queue, pushed(4, [[1]]))


@pytest.mark.parametrize(("size", "dim"), [(0, 2), (2, 0)])
def test_a_queue_without_room_is_refused(size, dim):
    with pytest.raises(ValueError, match="size >= 1 and dim >= 1"):
        Queue(size, dim)
