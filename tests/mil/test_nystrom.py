"""Nystrom attention, the pseudo-inverse and the grid of PPEG against slow forms of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from histokin.encoders.networks import seeded_torch
from histokin.mil.models.nystrom import NystromAttention, pseudo_inverse
from histokin.mil.models.ppeg import Ppeg, grid_cells, raster_order, square_cells


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def attention(**options):
    with seeded_torch(1):
        return NystromAttention(8, heads=2, kernel=5, **options).double().eval()


def slow_attention(module, x, landmarks):
    """Landmarks as lists of rows, NumPy's pseudo-inverse; exact attention for None."""
    q, k, v = (part.detach().numpy().reshape(len(x), 2, 4) for part in module.qkv(x).chunk(3, dim=1))

    def softmax(a):
        a = np.exp(a - a.max(-1, keepdims=True))
        return a / a.sum(-1, keepdims=True)

    out = np.zeros((len(x), 2, 4))
    for head in range(2):
        Q, K, V = q[:, head] / 2, k[:, head], v[:, head]
        if landmarks is None:
            out[:, head] = softmax(Q @ K.T) @ V
        else:
            few_q, few_k = (np.stack([M[rows].mean(0) for rows in landmarks]) for M in (Q, K))
            inverse = np.linalg.pinv(softmax(few_q @ few_k.T))
            out[:, head] = softmax(Q @ few_k.T) @ inverse @ softmax(few_q @ K.T) @ V
        padded = np.pad(V, ((2, 2), (0, 0)))
        kernel = module.conv.weight[head, 0].detach().numpy()
        out[:, head] += np.stack([kernel @ padded[i : i + 5] for i in range(len(x))])
    return out.reshape(len(x), 8) @ module.out.weight.detach().numpy().T + module.out.bias.detach().numpy()


@pytest.mark.parametrize("n", [1, 5, 6])
def test_sequences_no_longer_than_the_landmarks_get_exact_attention(n):
    module, x = attention(landmarks=6), normal(n, 8)
    np.testing.assert_allclose(module(x)[0].detach(), slow_attention(module, x, None), atol=1e-10)


@pytest.mark.parametrize(
    ("n", "landmarks"),
    [
        (8, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (11, [[0, 1], [2, 3, 4], [5, 6, 7], [8, 9, 10]]),
        (5, [[0], [1, 2], [3, 4]]),  # of four landmarks one would hold padding alone: it is left out
    ],
)
def test_longer_ones_go_through_the_means_of_runs_counted_from_the_end(n, landmarks):
    module, x = attention(landmarks=4, iterations=60), normal(n, 8)
    np.testing.assert_allclose(module(x)[0].detach(), slow_attention(module, x, landmarks), atol=1e-8)


@pytest.mark.parametrize("n", [1, 4, 30])
def test_the_first_row_alone_is_exact_and_costs_no_landmarks(n):
    module, x = attention(landmarks=4), normal(n, 8)
    row, scores = module.first_row(x)
    np.testing.assert_allclose(row.detach(), slow_attention(module, x, None)[:1], atol=1e-10)
    torch.testing.assert_close(scores, module(x)[1], atol=1e-12, rtol=0)


def test_the_pseudo_inverse_of_softmax_matrices_converges_to_numpys():
    a = normal(3, 7, 7).softmax(2)
    for per_head in (True, False):
        inverse = pseudo_inverse(a, iterations=40, per_head=per_head)
        np.testing.assert_allclose(inverse, np.linalg.pinv(a.numpy()), rtol=1e-6, atol=1e-8)


def test_a_head_does_not_depend_on_the_others_unless_asked():
    a = normal(2, 5, 5).softmax(2)
    alone = torch.cat([pseudo_inverse(head[None], iterations=6) for head in a])
    torch.testing.assert_close(pseudo_inverse(a, iterations=6), alone, atol=1e-12, rtol=0)
    assert (pseudo_inverse(a, iterations=6, per_head=False) - alone).abs().max() > 1e-3


def test_attention_is_computed_in_float32_under_autocast():
    module, x = attention(landmarks=4).float(), normal(30, 8).float()
    exact = module(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, scores = module(x)
    assert scores.dtype == torch.float32
    assert (out.float() - exact).abs().max() < 0.02  # only the projections are halved


# --- PPEG -----------------------------------------------------------------------------------------------------------


def ppeg():
    with seeded_torch(2):
        return Ppeg(3).double()


def slow_ppeg(module, tiles, rows, columns):
    """Every tile gathers its neighbours by their distance in cells."""
    out = tiles.clone()
    for i, (r, c) in enumerate(zip(rows, columns, strict=True)):
        for conv in (module.dw7, module.dw5, module.dw3):
            half = conv.kernel_size[0] // 2
            out[i] += conv.bias.detach()
            for j, (r2, c2) in enumerate(zip(rows, columns, strict=True)):
                if abs(r2 - r) <= half and abs(c2 - c) <= half:
                    out[i] += conv.weight[:, 0, r2 - r + half, c2 - c + half].detach() * tiles[j]
    return out


@pytest.mark.parametrize("n", [1, 2, 9, 11])
def test_tiles_without_places_fill_the_smallest_square_row_by_row(n):
    module, tiles = ppeg(), normal(n, 3)
    cells, height, width = square_cells(n)
    side = next(s for s in range(1, 9) if s * s >= n)
    assert (height, width) == (side, side)
    expected = slow_ppeg(module, tiles, [i // side for i in range(n)], [i % side for i in range(n)])
    torch.testing.assert_close(module(tiles, cells, height, width), expected, atol=1e-10, rtol=0)


def test_tiles_with_places_see_their_neighbours_and_nothing_across_gaps_which_take_no_room():
    rng = np.random.default_rng(0)
    field = [(r, c) for r in range(6) for c in range(5)]
    rows, columns = np.array([field[i] for i in rng.choice(30, 18, replace=False)]).T
    # A second piece far away, and pairs of tiles 3 and 4 cells apart: within and beyond the 7x7 filter.
    rows = [*rows.tolist(), *(rows + 5000).tolist(), 2000, 2000, 2003, 8000, 8004]
    columns = [*columns.tolist(), *(columns + 900).tolist(), 100, 103, 100, 0, 0]
    coords = torch.tensor([columns, rows]).T * 512 + torch.tensor([37, 11])
    module, tiles = ppeg(), normal(len(rows), 3)
    cells, height, width = grid_cells(coords)
    assert height * width < 800
    expected = slow_ppeg(module, tiles, rows, columns)
    torch.testing.assert_close(module(tiles, cells, height, width), expected, atol=1e-10, rtol=0)


def test_a_piece_on_a_grid_of_its_own_is_rounded_to_the_cells_of_the_rest():
    piece = torch.tensor([[x, y] for y in range(4) for x in range(4)])
    coords = torch.cat([piece * 100, piece * 100 + torch.tensor([1030, 20])])
    cells, _, width = grid_cells(coords)
    first, second = cells[:16], cells[16:]
    assert (first - first[0]).tolist() == (piece[:, 1] * width + piece[:, 0]).tolist()
    assert (second - second[0]).tolist() == (piece[:, 1] * width + piece[:, 0]).tolist()


def test_a_stride_that_is_no_whole_number_does_not_drift_into_the_next_cell():
    places = (torch.arange(400) * 99.7).round().long()
    cells, height, width = grid_cells(torch.stack([places, torch.zeros_like(places)], 1))
    assert (height, width) == (1, 400)
    assert cells.equal(torch.arange(400))


def test_tiles_in_one_cell_share_their_mean():
    module, tiles = ppeg(), normal(2, 3)
    cells, height, width = grid_cells(torch.tensor([[5, 5], [5, 5]]))
    shared = tiles.mean(0)
    alone = module(shared[None], torch.tensor([0]), 1, 1)[0] - shared
    torch.testing.assert_close(module(tiles, cells, height, width), tiles + alone, atol=1e-12, rtol=0)


def test_raster_order_sorts_by_y_then_x_and_keeps_equal_places():
    coords = torch.tensor([[5, 1], [0, 2], [3, 1], [5, 1], [0, 0]])
    assert raster_order(coords).tolist() == [4, 2, 0, 3, 1]


def test_one_filter_equals_the_three_published_ones():
    module, image = ppeg(), normal(3, 6, 7)
    three = image + sum(
        F.conv2d(image[None], conv.weight, conv.bias, padding=conv.kernel_size[0] // 2, groups=3)[0]
        for conv in (module.dw7, module.dw5, module.dw3)
    )
    one = module(image.flatten(1).T, torch.arange(42), 6, 7)
    torch.testing.assert_close(one, three.flatten(1).T, atol=1e-12, rtol=0)
