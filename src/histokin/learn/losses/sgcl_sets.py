"""Which bank rows are positives and hard negatives of an anchor in SGCL (Lin et al. 2023).

Two ways, one result: `select_exact` compares anchors with the whole bank; `select_scalable` reads cluster lists and a
pool of candidates, and its memory does not depend on N. With a pool of all tiles and no caps both give the same sets.

Sets are padded: (B, M) int64 bank rows, -1 where an anchor has fewer. All is constant: nothing carries a gradient.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from histokin.learn.losses.rows import bank_similarity, exact_dtype, exactly, refuse_bank, refuse_rows, unit

# The authors spread a 100-bin histogram of Beta(5, 15) draws over the candidates, from smallest to largest draw. These
# are the extremes to expect of 681 486 draws, their number of tiles; a fixed span frees ranks from N.
_BETA, _BETA_SPAN, _BETA_BINS = (5, 15), (0.0105, 0.745), 100
_NONE = -1
# How many members of the cluster lists are gathered at a time: bounds (lists, block, D) vectors.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class SetRule:
    """How sets are chosen; defaults of the authors' code, caps ours.

    Attributes:
        aux: auxiliary anchors, spatial neighbours most like the anchor.
        nei_k: how many nearest rows of the bank a semantic positive must be among.
        hard_fraction: share of the candidates, most similar first, that hard-negative ranks point into.
        semantic_cap: most semantic positives an anchor keeps (scalable form).
        list_limit: most members of a cluster list looked at (scalable form); longer lists are thinned evenly.
    """

    aux: int = 1
    nei_k: int = 4096
    hard_fraction: float = 0.2
    semantic_cap: int = 64
    list_limit: int = 4096

    def __post_init__(self) -> None:
        if self.aux < 0 or min(self.nei_k, self.semantic_cap, self.list_limit) < 1 or not 0 < self.hard_fraction <= 1:
            raise ValueError(f"need aux >= 0, nei_k and caps >= 1 and hard_fraction in (0, 1], got {self}")


class SgclSets(NamedTuple):
    """Padded sets of a batch.

    Attributes:
        spatial: S, neighbours on the slide, ascending.
        auxiliary: most similar first.
        propagated: M, semantic positives, ascending; may hold the anchor's own row, brought in by an auxiliary.
        positives: union of S and M, ascending.
        hard: H, by rank.
    """

    spatial: Tensor
    auxiliary: Tensor
    propagated: Tensor
    positives: Tensor
    hard: Tensor


@torch.no_grad()
@exactly
def select_exact(
    q: Tensor,
    backbone: Tensor,
    bank: Tensor,
    backbone_bank: Tensor,
    index: Tensor,
    indptr: Tensor,
    indices: Tensor,
    labels: Tensor,
    *,
    ranks: Tensor,
    rule: SetRule,
    chunk: int = 8192,
) -> SgclSets:
    """Sets by comparison with every row of the bank, chunk by chunk: O(B N D) time; for tests and small cohorts.

    Args:
        q: (B, D) anchors' projections, any scale, as all vectors here.
        backbone: (B, E) anchors' embeddings.
        bank: (N, D) stored projections.
        backbone_bank: (N, E) stored embeddings; pass q and bank again to rank by projections.
        index: (B,) int64 bank rows of the anchors.
        indptr, indices: (N + 1,) and (nnz,) integers, each tile's spatial neighbours (CSR), itself not among them.
        labels: (n_clusterings, N) integer cluster of each tile; semantic positives share all of them.
        ranks: (R,) int64 from 0, which candidates by falling similarity become hard negatives; see draw_ranks.
        rule: sizes.
        chunk: bank rows compared at a time.

    Returns:
        The sets. Similarity ties go to the lowest row.

    Raises:
        ValueError: shapes or rows do not fit, or a rank is outside the first `hard_candidates`.
    """
    _refuse(q, backbone, bank, backbone_bank, index, indptr)
    if labels.ndim != 2 or labels.shape[1] != len(bank):
        raise ValueError(f"labels must be (n_clusterings, {len(bank)}), got {tuple(labels.shape)}")
    spatial = spatial_neighbours(index, indptr, indices)
    auxiliary = auxiliary_anchors(q, bank, spatial, aux=rule.aux)
    seeds, vectors = _seeds(q, bank, index, auxiliary)
    _, found = nearest(vectors, bank, k=rule.nei_k, excluded=seeds[:, None], chunk=chunk)
    alike = (labels[:, found.clamp_min(0)] == labels[:, seeds.clamp_min(0)][:, :, None]).all(0)
    semantic = found.masked_fill(~alike | (seeds < 0)[:, None], _NONE)
    propagated = union(semantic.reshape(len(q), -1))
    positives = union(spatial, propagated)
    hard = _hard(backbone, backbone_bank, index, positives, ranks, rule.hard_fraction, None, chunk)
    return SgclSets(spatial, auxiliary, propagated, positives, hard)


@torch.no_grad()
@exactly
def select_scalable(
    q: Tensor,
    backbone: Tensor,
    bank: Tensor,
    backbone_bank: Tensor,
    index: Tensor,
    indptr: Tensor,
    indices: Tensor,
    lists: "ClusterLists",
    *,
    pool: Tensor,
    ranks: Tensor,
    rule: SetRule,
    phase: float = 0.5,
    chunk: int = 8192,
) -> SgclSets:
    """Sets from cluster lists and a pool of candidates; for a million tiles.

    Semantic positives are members of the anchor's list (same cluster in all clusterings) and of its auxiliaries' lists
    that are at least as similar as rank nei_k of N, estimated on the pool; the semantic_cap most similar are kept. Hard
    negatives are ranked within the pool. Peak memory is O(B (list_limit + chunk + hard_fraction * pool)) numbers and
    chunk rows of the banks, whatever N.

    Args:
        q, backbone, bank, backbone_bank, index, indptr, indices: as for select_exact.
        lists: of cluster_lists, made when the clusters were.
        pool: (P,) int64 bank rows, ascending, without repeats, the same on all ranks; see draw_pool.
        ranks: (R,) int64 below hard_candidates(hard_fraction, P); see draw_ranks.
        rule: sizes.
        phase: 0 to 1, where the thinning of long lists starts; draw it anew each step.
        chunk: bank rows compared at a time.

    Returns:
        The sets. Similarity ties go to the lowest row.

    Raises:
        ValueError: shapes or rows do not fit, the pool is not ascending (seen on the CPU), or a rank is too large.
    """
    _refuse(q, backbone, bank, backbone_bank, index, indptr)
    refuse_rows("pool", pool, len(bank), (None,))
    if not len(pool) or (pool.device.type == "cpu" and bool((pool.diff() <= 0).any())):
        raise ValueError("pool must be ascending, without repeats and not empty")
    if not 0 <= phase <= 1:
        raise ValueError(f"phase must lie in 0..1, got {phase}")
    spatial = spatial_neighbours(index, indptr, indices)
    auxiliary = auxiliary_anchors(q, bank, spatial, aux=rule.aux)
    seeds, vectors = _seeds(q, bank, index, auxiliary)
    k = math.ceil(rule.nei_k * len(pool) / len(bank))
    scores, _ = nearest(vectors, bank, k=k, excluded=seeds[:, None], rows=pool, chunk=chunk)
    # Fewer candidates than ranks: every row is among the nearest.
    threshold = scores[:, -1] if scores.shape[1] == k else scores.new_full((len(seeds),), -torch.inf)
    members = listed(seeds, lists, limit=rule.list_limit, phase=phase)
    members = members.masked_fill(members == seeds[:, None], _NONE)
    similarity = torch.cat(
        [bank_similarity(vectors, bank, block.clamp_min(0)) for block in members.split(_BLOCK, 1)], 1
    ).masked_fill(members < 0, -torch.inf)
    # The row at the threshold itself came by another product, which rounds otherwise.
    slack = 8 * torch.finfo(similarity.dtype).eps
    similarity = similarity.masked_fill(similarity < threshold[:, None] - slack, -torch.inf)
    best = _best(members.reshape(len(q), -1), similarity.reshape(len(q), -1), rule.semantic_cap)
    propagated = union(best)
    positives = union(spatial, propagated)
    hard = _hard(backbone, backbone_bank, index, positives, ranks, rule.hard_fraction, pool, chunk)
    return SgclSets(spatial, auxiliary, propagated, positives, hard)


def spatial_neighbours(index: Tensor, indptr: Tensor, indices: Tensor) -> Tensor:
    """Neighbours of some tiles out of a CSR of all tiles', ascending: (B, S) padded, S the most that one has."""
    start, stop = indptr[index].long(), indptr[index + 1].long()
    width = int((stop - start).max())
    if not width:
        return index.new_empty((len(index), 0), dtype=torch.int64)
    at = start[:, None] + torch.arange(width, device=index.device)
    found = indices[at.clamp_max(len(indices) - 1)].long()
    return union(found.masked_fill(at >= stop[:, None], _NONE))


@torch.no_grad()
@exactly
def auxiliary_anchors(q: Tensor, bank: Tensor, spatial: Tensor, *, aux: int) -> Tensor:
    """The spatial neighbours most like the anchor, best first: (B, min(aux, S)) padded; none for a tile without any."""
    v = unit(q, exact_dtype(q, bank))
    similarity = bank_similarity(v, bank, spatial.clamp_min(0)).masked_fill(spatial < 0, -torch.inf)
    return _best(spatial, similarity, aux)


@torch.no_grad()
@exactly
def nearest(
    vectors: Tensor, bank: Tensor, *, k: int, excluded: Tensor, rows: Tensor | None = None, chunk: int = 8192
) -> tuple[Tensor, Tensor]:
    """The k bank rows most similar to each vector, most similar first, ties to the lowest row.

    Args:
        vectors: (L, D), any scale.
        bank: (N, D), any scale.
        k: how many; all where there are fewer.
        excluded: (L, E) padded, rows that are no candidates.
        rows: (P,) ascending rows to look among; all by default.
        chunk: rows compared at a time: memory O(L (k + chunk)).

    Returns:
        Cosines (L, min(k, P)), -inf where candidates ran out, and rows, -1 there.
    """
    dtype = exact_dtype(vectors, bank)
    v, n = unit(vectors, dtype), len(bank) if rows is None else len(rows)
    scores, ids = v.new_empty((len(v), 0)), excluded.new_empty((len(v), 0))
    for start in range(0, n, chunk):
        if rows is None:
            some = torch.arange(start, min(start + chunk, n), device=v.device)
            here = unit(bank[start : start + chunk], dtype)
        else:
            some = rows[start : start + chunk]
            here = unit(bank[some], dtype)
        place = torch.searchsorted(some, excluded)
        hit = some[place.clamp_max(len(some) - 1)] == excluded
        # Whatever is not in this chunk marks a column too many.
        out = torch.zeros((len(v), len(some) + 1), dtype=torch.bool, device=v.device)
        out = out.scatter_(1, place.where(hit, len(some)), True)[:, :-1]
        fresh = (v @ here.T).masked_fill(out, -torch.inf)
        scores = torch.cat([scores, fresh], 1)
        ids = torch.cat([ids, some.expand(len(v), -1)], 1)
        # Kept rows come first and are lower: a stable sort leaves ties in order of rows.
        scores, order = torch.sort(scores, stable=True, dim=1, descending=True)
        scores, ids = scores[:, :k], ids.gather(1, order[:, :k])
    return scores, ids.masked_fill(scores.isneginf(), _NONE)


def union(*sets: Tensor) -> Tensor:
    """Union of padded sets, ascending, padded to the longest."""
    merged = torch.cat(sets, 1).sort(1).values
    again = torch.zeros_like(merged, dtype=torch.bool)
    again[:, 1:] = merged[:, 1:] == merged[:, :-1]
    last = torch.iinfo(merged.dtype).max
    merged = merged.masked_fill(again | (merged < 0), last).sort(1).values
    width = int((merged != last).sum(1).max()) if merged.numel() else 0
    merged = merged[:, :width]
    return merged.masked_fill(merged == last, _NONE)


@dataclass(frozen=True, slots=True)
class ClusterLists:
    """Inverted lists: tiles that share their cluster in all clusterings.

    Attributes:
        cell: (N,) int64, the list each tile is in.
        indptr: (n_cells + 1,) int64, where each list starts.
        members: (N,) int64, tiles list by list, ascending within.
    """

    cell: Tensor
    indptr: Tensor
    members: Tensor


def cluster_lists(labels: Tensor) -> ClusterLists:
    """Intersect clusterings into lists; the key is exact (mixed radix), so that no two intersections meet.

    Args:
        labels: (n_clusterings, N) integers >= 0.

    Raises:
        ValueError: labels are not such, or their clusters' product exceeds 2^63.
    """
    if labels.ndim != 2 or not labels.numel() or int(labels.min()) < 0:
        raise ValueError(f"labels must be (n_clusterings, N) and >= 0, got {tuple(labels.shape)}")
    sizes = [int(row.max()) + 1 for row in labels]
    if math.prod(sizes) >= 2**63:
        raise ValueError(f"the clusterings' sizes {sizes} multiply to 2^63 or more")
    key = functools.reduce(lambda key, part: key * part[1] + part[0].long(), zip(labels, sizes, strict=True), 0)
    _, cell, counts = torch.unique(key, return_inverse=True, return_counts=True)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return ClusterLists(cell, indptr, cell.argsort(stable=True))


def listed(seeds: Tensor, lists: ClusterLists, *, limit: int, phase: float) -> Tensor:
    """The cluster list of each seed, itself included, thinned evenly where longer than limit.

    Args:
        seeds: (L,) rows, -1 for none.
        lists: of the clusters.
        limit: most members taken of a list.
        phase: 0 to 1, where in each step of the thinning the member is taken.

    Returns:
        (L, M <= limit) padded.
    """
    cell = lists.cell[seeds.clamp_min(0)]
    start = lists.indptr[cell]
    count = (lists.indptr[cell + 1] - start).where(seeds >= 0, 0)
    width = min(limit, int(count.max())) if len(count) else 0
    at = torch.arange(width, device=seeds.device)
    thinned = ((at + phase).double() * count[:, None] / limit).long()
    place = torch.where(count[:, None] > limit, torch.minimum(thinned, count[:, None] - 1), at)
    found = lists.members[(start[:, None] + place).clamp(0, len(lists.members) - 1)]
    return found.masked_fill(at >= count[:, None], _NONE)


def draw_pool(rng: np.random.Generator, *, n_tiles: int, size: int) -> np.ndarray:
    """Candidates of a step: (min(size, n_tiles),) int64 rows, ascending, without repeats."""
    if size >= n_tiles:
        return np.arange(n_tiles)
    return np.sort(rng.choice(n_tiles, size, replace=False, shuffle=False))


def hard_candidates(fraction: float, n: int) -> int:
    """How many of n candidates, the most similar, hard negatives are drawn from: this share of them, at least one."""
    return max(1, int(fraction * n))


def draw_ranks(rng: np.random.Generator, *, n_ranks: int, top: int) -> np.ndarray:
    """Ranks of the hard negatives, the same for the whole batch: neither the hardest nor the easy ones.

    Without replacement from the density of Beta(5, 15) in 100 bins over the candidates. The authors' histogram spans
    the draws' extremes instead of 0..1, so that ranks centre at a third: mean .33, 5 to 95 % at .14 to .56.

    Args:
        rng: of the step.
        n_ranks: how many; all of them where top is smaller.
        top: ranks are below this: `hard_candidates`.

    Returns:
        (min(n_ranks, top),) int64, ascending.

    Raises:
        ValueError: n_ranks or top < 1.
    """
    if n_ranks < 1 or top < 1:
        raise ValueError(f"n_ranks and top must be >= 1, got {n_ranks}, {top}")
    (a, b), (low, high) = _BETA, _BETA_SPAN
    x = low + (np.arange(top) * _BETA_BINS // top + 0.5) / _BETA_BINS * (high - low)
    log_density = (a - 1) * np.log(x) + (b - 1) * np.log1p(-x)
    # Largest keys of log p + Gumbel noise are a draw without replacement.
    keys = log_density + rng.gumbel(size=top)
    return np.sort(np.argsort(-keys, kind="stable")[:n_ranks])


def _seeds(q: Tensor, bank: Tensor, index: Tensor, auxiliary: Tensor) -> tuple[Tensor, Tensor]:
    """The anchor and its auxiliaries as (L,) rows, -1 for none, and (L, D) unit vectors: L = B (1 + A)."""
    dtype = exact_dtype(q, bank)
    seeds = torch.cat([index.long()[:, None], auxiliary], 1)
    vectors = torch.cat([unit(q, dtype)[:, None], unit(bank[auxiliary.clamp_min(0)], dtype)], 1)
    return seeds.flatten(), vectors.flatten(0, 1)


def _hard(
    backbone: Tensor,
    bank: Tensor,
    index: Tensor,
    positives: Tensor,
    ranks: Tensor,
    fraction: float,
    rows: Tensor | None,
    chunk: int,
) -> Tensor:
    """Candidates at the ranks, the own row and positives left out before ranking: (B, R) padded."""
    top = hard_candidates(fraction, len(bank) if rows is None else len(rows))
    refuse_rows("ranks", ranks, top, (None,))
    if not len(ranks):
        return positives.new_empty((len(index), 0))
    excluded = torch.cat([positives, index.long()[:, None]], 1)
    _, found = nearest(backbone, bank, k=top, excluded=excluded, rows=rows, chunk=chunk)
    return found[:, ranks]


def _best(ids: Tensor, scores: Tensor, k: int) -> Tensor:
    """The k best-scored ids of each row, best first, each once, ties to the lowest id; -1 where scores are -inf."""
    scores, order = torch.sort(scores, stable=True, dim=1, descending=True)
    ids, order = torch.sort(ids.gather(1, order), stable=True, dim=1)  # equal ids together, the better first
    scores = scores.gather(1, order)
    again = torch.zeros_like(ids, dtype=torch.bool)
    again[:, 1:] = ids[:, 1:] == ids[:, :-1]
    scores, order = torch.sort(scores.masked_fill(again, -torch.inf), stable=True, dim=1, descending=True)
    return ids.gather(1, order).masked_fill(scores.isneginf(), _NONE)[:, :k]


def _refuse(q: Tensor, backbone: Tensor, bank: Tensor, backbone_bank: Tensor, index: Tensor, indptr: Tensor) -> None:
    refuse_bank(q, bank)
    refuse_bank(backbone, backbone_bank)
    if len(q) != len(backbone) or len(bank) != len(backbone_bank) or len(indptr) != len(bank) + 1:
        raise ValueError(
            f"need as many anchors, bank rows and neighbour lists in both, got {len(q)}, {len(backbone)} anchors, "
            f"{len(bank)}, {len(backbone_bank)} rows and {len(indptr) - 1} lists"
        )
    refuse_rows("index", index, len(bank), (len(q),))
