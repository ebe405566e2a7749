"""From the tiles of packed bags to one row a bag: softmax, sums and maxima within each bag.

Each has two forms with the same result: bag by bag, which large bags like, and one scatter over all tiles, which saves
many small bags the loop (at 5 to 40 tiles a bag the loop takes 1.3 times as long).
"""

import torch
from torch import Tensor

from histokin.mil.bags import PackedBags

# Mean tiles a bag from which on the loop is at least as fast as the scatter.
SPLIT_FROM = 64


def softmax(scores: Tensor, bags: PackedBags) -> Tensor:
    """Softmax within each bag: (T, K) scores to (T, K) weights, float32 or better even under autocast."""
    if scores.dtype != torch.float64:
        scores = scores.float()
    if _has_large(bags):
        return torch.cat([part.softmax(0) for part in scores.split(bags.sizes)])
    bag = bag_of_tile(bags)
    # Every bag has a tile, so no maximum is -inf and nothing is divided by 0.
    weights = (scores - _amax(scores.detach(), bag, len(bags))[bag]).exp()
    return weights / _sum(weights, bag, len(bags))[bag]


def weighted_sum(weights: Tensor, h: Tensor, bags: PackedBags) -> Tensor:
    """(T, K) weights and (T, E) tiles to (B, K, E) sums over each bag, in the dtype of the weights."""
    with torch.autocast(h.device.type, enabled=False):
        if _has_large(bags):
            parts = zip(weights.split(bags.sizes), h.split(bags.sizes), strict=True)
            return torch.stack([w.T @ part.to(w.dtype) for w, part in parts])
        bag, h = bag_of_tile(bags), h.to(weights.dtype)
        return torch.stack([_sum(w[:, None] * h, bag, len(bags)) for w in weights.unbind(1)], 1)


def mean_weights(bags: PackedBags, dtype: torch.dtype) -> Tensor:
    """(T, 1), one over the tiles of each tile's bag; float32 or better."""
    lengths = bags.lengths.to(bags.x.device, torch.float64 if dtype == torch.float64 else torch.float32)
    return 1 / lengths[bag_of_tile(bags), None]


def products(queries: Tensor, of_bag: Tensor, bags: PackedBags) -> Tensor:
    """(T, Q) queries of tiles with (B, K, Q) of their bags: (T, K) scalar products."""
    if _has_large(bags):
        return torch.cat([tiles @ few.T for tiles, few in zip(queries.split(bags.sizes), of_bag, strict=True)])
    return torch.einsum("tq,tkq->tk", queries, of_bag[bag_of_tile(bags)])


def argmax(scores: Tensor, bags: PackedBags) -> Tensor:
    """(B, C), the row in the batch of each bag's highest score per column; of equal ones the first."""
    scores = scores.detach()
    bag = bag_of_tile(bags)
    is_highest = scores == _amax(scores, bag, len(bags))[bag]
    rows = torch.arange(len(scores), device=scores.device)[:, None].expand_as(scores)
    first = rows.new_full((len(bags), scores.shape[1]), len(scores) - 1)
    return first.scatter_reduce(0, bag[:, None].expand_as(rows), rows.where(is_highest, len(scores) - 1), "amin")


def bag_of_tile(bags: PackedBags) -> Tensor:
    """(T,) int64, the number of each tile's bag, on the tiles' device."""
    device = bags.x.device
    numbers = torch.arange(len(bags), device=device)
    return numbers.repeat_interleave(bags.lengths.to(device), output_size=len(bags.x))


def _has_large(bags: PackedBags) -> bool:
    return len(bags.x) >= SPLIT_FROM * len(bags)


def _amax(values: Tensor, bag: Tensor, n: int) -> Tensor:
    lowest = values.new_full((n, values.shape[1]), -torch.inf)
    return lowest.scatter_reduce(0, bag[:, None].expand_as(values), values, "amax")


def _sum(values: Tensor, bag: Tensor, n: int) -> Tensor:
    return values.new_zeros(n, values.shape[1]).index_add(0, bag, values)
