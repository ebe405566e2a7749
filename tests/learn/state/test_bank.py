"""The bank against the golden case, a loop written from the formula, and its laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histokin.learn.state import Bank


def normals(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def slow_update(rows, index, vectors, momentum):
    """The formula in float64, tile by tile."""
    rows, vectors = rows.astype(np.float64), unit(vectors.astype(np.float64))
    for tile in set(index):
        mean = np.mean([vectors[b] for b in range(len(index)) if index[b] == tile], axis=0)
        rows[tile] = unit(momentum * rows[tile] + (1 - momentum) * mean)
    return rows


def float32_bank(n, dim, seed=0):
    return Bank(n, dim, seed, dtype=torch.float32)


def test_golden_case(case, chirp):
    golden = case("bank_update_m0.5")
    inputs = golden["inputs"]
    bank = float32_bank(*inputs["bank"]["chirp"][:2])
    start = torch.nn.functional.normalize(chirp(*inputs["bank"]["chirp"]))
    bank.load_state_dict({"rows": start, "seen": bank.seen})
    bank.update(torch.tensor(inputs["index"]), chirp(*inputs["v"]["chirp"]), inputs["momentum"])
    # The bank is float32 by contract.
    np.testing.assert_allclose(bank.rows[inputs["row"]], golden["expected"], rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("D", [1, 2, 33])
def test_equals_the_loop_of_the_formula_with_duplicates(momentum, D):
    bank, index = float32_bank(9, D), torch.tensor([4, 0, 4, 8, 4, 0])
    vectors = 5 * normals(6, D, seed=D) + (1 if D == 1 else 0)
    expected = slow_update(bank.rows.numpy(), index.tolist(), vectors.numpy(), momentum)
    bank.update(index, vectors, momentum)
    np.testing.assert_allclose(bank.rows, expected, rtol=0, atol=3e-7)


def test_momentum_is_the_weight_of_the_old_row():
    bank = float32_bank(1, 2)
    bank.load_state_dict({"rows": torch.tensor([[1.0, 0.0]]), "seen": bank.seen})
    bank.update(torch.tensor([0]), torch.tensor([[0.0, 3.0]]), 0.8)
    assert bank.rows[0].tolist() == pytest.approx([0.8 / 0.68**0.5, 0.2 / 0.68**0.5], rel=1e-6)


def test_rows_not_in_the_batch_stay_bit_for_bit_and_unseen():
    bank = Bank(7, 5, seed=1)
    before = bank.rows.clone()
    bank.update(torch.tensor([2, 5, 2]), normals(3, 5), 0.5)
    touched = torch.tensor([False, False, True, False, False, True, False])
    assert torch.equal(bank.seen, touched)
    assert torch.equal((bank.rows != before).any(1), touched)


@given(st.permutations(range(24)), st.sampled_from([torch.float16, torch.float32]))
def test_the_order_of_the_batch_does_not_change_a_bit(order, dtype):
    index, vectors = torch.arange(24) % 3, normals(24, 7)  # 8 of each: float32 sums do depend on their order
    one, other = Bank(4, 7, 0, dtype), Bank(4, 7, 0, dtype)
    one.update(index, vectors, 0.5)
    other.update(index[order], vectors[order], 0.5)
    assert torch.equal(one.rows, other.rows)


def test_a_duplicated_vector_counts_once():
    once, thrice, vector = float32_bank(3, 4), float32_bank(3, 4), normals(1, 4)
    once.update(torch.tensor([1]), vector, 0.5)
    thrice.update(torch.tensor([1, 1, 1]), vector.expand(3, 4), 0.5)
    assert torch.equal(once.rows, thrice.rows)


def test_initial_rows_are_unit_and_follow_from_the_seed_alone():
    bank = float32_bank(300, 16, seed=3)
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(300))
    assert torch.equal(bank.rows, float32_bank(300, 16, seed=3).rows)
    assert not torch.equal(bank.rows, float32_bank(300, 16, seed=4).rows)
    assert torch.equal(bank.rows.half(), Bank(300, 16, seed=3).rows)
    assert not bank.seen.any()


def test_initial_rows_have_no_direction_in_common():
    # Each coordinate of the mean of n unit rows has standard deviation 1 / sqrt(n D).
    mean = float32_bank(20_000, 4, seed=1).rows.mean(0)
    assert mean.abs().max() < 4.5 / (20_000 * 4) ** 0.5


def test_a_larger_bank_begins_with_the_rows_of_a_smaller_one_and_repeats_none():
    large, small = float32_bank(8192 + 10, 3), float32_bank(8192 + 2, 3)
    assert torch.equal(large.rows[: 8192 + 2], small.rows)
    assert len(large.rows.unique(dim=0)) == 8192 + 10


def test_float16_rounds_one_update_by_half_a_unit_in_the_last_place():
    half, exact = Bank(50, 32, seed=0), float32_bank(50, 32)
    exact.load_state_dict({"rows": half.rows.float(), "seen": half.seen})
    index, vectors = torch.arange(50), normals(50, 32)
    half.update(index, vectors, 0.5)
    exact.update(index, vectors, 0.5)
    error = (half.rows.float() - exact.rows).abs()
    assert (error <= 2.0**-11 * exact.rows.abs() + 2.0**-25).all()
    assert error.max() > 0


def test_float16_errors_do_not_pile_up_over_updates():
    # unit() of vectors of norm >= r stretches by at most 1 / r; here r >= sqrt(1/2), as no two vectors have a negative
    # product: e' <= 0.5 / sqrt(1/2) * e + 2^-11, so e <= 2^-11 / (1 - 0.7072) whatever the number of updates.
    half, exact = Bank(20, 16, seed=0), float32_bank(20, 16)
    for bank in (half, exact):
        bank.update(torch.arange(20), normals(20, 16, seed=100).abs(), 0.0)
    for step in range(60):
        for bank in (half, exact):
            bank.update(torch.arange(20), normals(20, 16, seed=step).abs(), 0.5)
    assert (half.rows.float() - exact.rows).norm(dim=1).max() < 2.0**-11 / (1 - 0.7072)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_taken_rows_are_float32_copies_in_the_shape_of_the_index(dtype):
    bank = Bank(6, 3, 0, dtype)
    taken = bank.take(torch.tensor([[0, 5], [2, 2]]))
    assert taken.dtype == torch.float32
    assert torch.equal(taken, bank.rows[torch.tensor([[0, 5], [2, 2]])].float())
    taken.zero_()
    assert (bank.rows != 0).any(1).all()
    assert bank.take(torch.empty(0, dtype=torch.int64)).shape == (0, 3)


def test_updating_between_loss_and_backward_leaves_the_gradient_right():
    bank, anchor = float32_bank(3, 2), torch.ones(2, requires_grad=True)
    taken = bank.rows.sum(0).clone()
    loss = (bank.take(torch.arange(3)) @ anchor).sum()
    bank.update(torch.arange(3), normals(3, 2), 0.5)
    loss.backward()
    torch.testing.assert_close(anchor.grad, taken)


def test_half_vectors_and_gradients_are_taken_as_numbers():
    bank, same, vectors = float32_bank(3, 4), float32_bank(3, 4), normals(2, 4).half()
    bank.update(torch.tensor([0, 2]), vectors.requires_grad_(), 0.5)
    same.update(torch.tensor([0, 2]), vectors.detach().float(), 0.5)
    assert torch.equal(bank.rows, same.rows)
    assert not bank.rows.requires_grad


def test_vectors_that_cancel_leave_a_zero_row_which_the_next_one_fills():
    bank = float32_bank(1, 2)
    bank.load_state_dict({"rows": torch.tensor([[1.0, 0.0]]), "seen": bank.seen})
    bank.update(torch.tensor([0]), torch.tensor([[-1.0, 0.0]]), 0.5)
    assert bank.rows.tolist() == [[0, 0]]
    bank.update(torch.tensor([0]), torch.tensor([[0.0, 2.0]]), 0.5)
    assert bank.rows.tolist() == [[0, 1]]


def test_an_empty_batch_changes_nothing():
    bank = Bank(3, 2, 0)
    before = bank.rows.clone()
    bank.update(torch.empty(0, dtype=torch.int64), torch.empty(0, 2), 0.5)
    assert torch.equal(bank.rows, before)


def test_a_loaded_bank_goes_on_as_the_one_saved():
    bank, loaded = Bank(5, 4, 0), Bank(5, 4, seed=9)
    bank.update(torch.tensor([1, 3]), normals(2, 4), 0.5)
    loaded.load_state_dict(bank.state_dict())
    for each in (bank, loaded):
        each.update(torch.tensor([3, 4]), normals(2, 4, seed=1), 0.5)
    assert torch.equal(bank.rows, loaded.rows)
    assert torch.equal(bank.seen, loaded.seen)


@pytest.mark.parametrize("tile", [-1, 3])
def test_tiles_out_of_range_are_refused_before_anything_is_written(tile):
    bank = Bank(3, 2, 0)
    before = bank.rows.clone()
    with pytest.raises(IndexError, match="out of range"):
        bank.take(torch.tensor([tile]))
    with pytest.raises(IndexError, match="out of range"):
        bank.update(torch.tensor([0, tile]), normals(2, 2), 0.5)
    assert torch.equal(bank.rows, before)
    assert not bank.seen.any()


@pytest.mark.parametrize(
    ("index", "vectors", "momentum", "match"),
    [
        (torch.tensor([0.0]), torch.ones(1, 2), 0.5, r"index must be \(B,\) int64"),
        (torch.tensor([[0]]), torch.ones(1, 2), 0.5, "index must be"),
        (torch.tensor([0]), torch.ones(1, 3), 0.5, r"vectors must be \(1, 2\) floating"),
        (torch.tensor([0]), torch.ones(2, 2), 0.5, "vectors must be"),
        (torch.tensor([0]), torch.ones(1, 2, dtype=torch.int64), 0.5, "vectors must be"),
        (torch.tensor([0]), torch.ones(1, 2), 1.5, r"momentum must be in \[0, 1\]"),
        (torch.tensor([0]), torch.ones(1, 2), float("nan"), "momentum must be"),
    ],
)
def test_misuse_is_refused(index, vectors, momentum, match):
    with pytest.raises(ValueError, match=match):
        Bank(3, 2, 0).update(index, vectors, momentum)


@pytest.mark.parametrize(("n", "dim", "dtype"), [(0, 2, torch.float16), (2, 0, torch.float16), (2, 2, torch.bfloat16)])
def test_a_bank_that_cannot_be_is_refused(n, dim, dtype):
    with pytest.raises(ValueError, match=r"n >= 1 and dim >= 1|float16 or float32"):
        Bank(n, dim, 0, dtype)
