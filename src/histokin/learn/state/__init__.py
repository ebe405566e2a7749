"""What pretraining methods keep beside the encoder: queue, bank, momentum copy, clusters.

Lives here: modules whose buffers carry that state in a method's one state_dict, and the functions that move it on. All
are deterministic: equal inputs give equal state on every rank, device and thread count, so a trainer over several
processes gathers the inputs in rank order, and broadcasts what only one of them computed.
"""

from histokin.learn.state.bank import Bank
from histokin.learn.state.clusters import Clusters, ClusterState, assign, spherical_kmeans
from histokin.learn.state.momentum import momentum_copy, update_momentum
from histokin.learn.state.queue import Queue

__all__ = [
    "Bank",
    "ClusterState",
    "Clusters",
    "Queue",
    "assign",
    "momentum_copy",
    "spherical_kmeans",
    "update_momentum",
]
