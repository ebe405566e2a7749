"""Probes: what a plain predictor makes of frozen features when whole patients, sections or sites are held out."""

from histokin.evaluate.probes.folds import Split, grouped_folds
from histokin.evaluate.probes.linear import C_GRID, LinearProbe
from histokin.evaluate.probes.neighbours import NeighbourProbe
from histokin.evaluate.probes.outcome import Fold, Outcome, ProbeTask
from histokin.evaluate.probes.ridge import ALPHAS, RidgeProbe
from histokin.evaluate.probes.run import Probed, compare_probes, knn_probe, linear_probe, ridge_probe
from histokin.evaluate.probes.scores import ClassFigure, GroupFigure

__all__ = [
    "ALPHAS",
    "C_GRID",
    "ClassFigure",
    "Fold",
    "GroupFigure",
    "LinearProbe",
    "NeighbourProbe",
    "Outcome",
    "ProbeTask",
    "Probed",
    "RidgeProbe",
    "Split",
    "compare_probes",
    "grouped_folds",
    "knn_probe",
    "linear_probe",
    "ridge_probe",
]
