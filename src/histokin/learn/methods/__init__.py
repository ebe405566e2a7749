"""Pretraining methods by name; each is a module over an encoder, a class and a file of its own."""

from histokin.learn.methods.barlow import BarlowTwins
from histokin.learn.methods.byol import BYOL
from histokin.learn.methods.ccl import CCL
from histokin.learn.methods.dino import DINO
from histokin.learn.methods.method import Batch, Method
from histokin.learn.methods.mocov2 import MoCoV2
from histokin.learn.methods.npid import NPID
from histokin.learn.methods.sgcl import SGCL
from histokin.learn.methods.simclr import SimCLR
from histokin.learn.methods.similarity import Similarity
from histokin.learn.methods.supervised import Supervised
from histokin.learn.methods.vicreg import VICReg

METHODS: dict[str, type[Method]] = {
    "barlow": BarlowTwins,
    "byol": BYOL,
    "ccl": CCL,
    "dino": DINO,
    "mocov2": MoCoV2,
    "npid": NPID,
    "sgcl": SGCL,
    "simclr": SimCLR,
    "similarity": Similarity,
    "supervised": Supervised,
    "vicreg": VICReg,
}

__all__ = ["METHODS", "Batch", "Method"]
