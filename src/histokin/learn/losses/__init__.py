"""Losses: pure functions of tensors, one module each, with the paper's equation in the docstring.

Features come first, settings are keyword-only. All compute in float32 or better with autocast off. nt_xent, byol,
simsiam, koleo, kde and npid_proximal return a 0-d tensor; the others a named tuple whose first field is `loss` and
whose other fields are detached.
"""

from histokin.learn.losses.barlow_twins import BarlowLoss, barlow_twins
from histokin.learn.losses.byol import byol
from histokin.learn.losses.dino import DinoLoss, dino, updated_center
from histokin.learn.losses.group_info_nce import GroupLoss, group_info_nce
from histokin.learn.losses.info_nce_queue import info_nce_queue
from histokin.learn.losses.kde import kde
from histokin.learn.losses.koleo import koleo
from histokin.learn.losses.npid import estimate_z, npid_nce, npid_proximal, npid_sampled_ce, npid_softmax
from histokin.learn.losses.nt_xent import nt_xent
from histokin.learn.losses.pair_contrastive import PairLoss, pair_contrastive
from histokin.learn.losses.rows import Contrast, unit
from histokin.learn.losses.sgcl import SpatialLoss, sgcl_inner, sgcl_ramp, sgcl_spatial
from histokin.learn.losses.sgcl_sets import (
    ClusterLists,
    SetRule,
    SgclSets,
    cluster_lists,
    draw_pool,
    draw_ranks,
    hard_candidates,
    select_exact,
    select_scalable,
)
from histokin.learn.losses.simsiam import simsiam
from histokin.learn.losses.vicreg import VicregLoss, vicreg
from histokin.learn.losses.weighted_info_nce import cluster_weights, hardness_weights, weighted_info_nce

__all__ = [
    "BarlowLoss",
    "ClusterLists",
    "Contrast",
    "DinoLoss",
    "GroupLoss",
    "PairLoss",
    "SetRule",
    "SgclSets",
    "SpatialLoss",
    "VicregLoss",
    "barlow_twins",
    "byol",
    "cluster_lists",
    "cluster_weights",
    "dino",
    "draw_pool",
    "draw_ranks",
    "estimate_z",
    "group_info_nce",
    "hard_candidates",
    "hardness_weights",
    "info_nce_queue",
    "kde",
    "koleo",
    "npid_nce",
    "npid_proximal",
    "npid_sampled_ce",
    "npid_softmax",
    "nt_xent",
    "pair_contrastive",
    "select_exact",
    "select_scalable",
    "sgcl_inner",
    "sgcl_ramp",
    "sgcl_spatial",
    "simsiam",
    "unit",
    "updated_center",
    "vicreg",
    "weighted_info_nce",
]
