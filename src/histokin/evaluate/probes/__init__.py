"""Probes: what a plain predictor makes of frozen features when whole patients, sections or sites are held out."""

from histokin.evaluate.probes.few_shot import FewShot, ShotDifference, ShotFigure, few_shot, simple_shot
from histokin.evaluate.probes.folds import Split, grouped_folds
from histokin.evaluate.probes.linear import C_GRID, LinearProbe
from histokin.evaluate.probes.neighbours import NeighbourProbe
from histokin.evaluate.probes.outcome import Fold, Outcome, ProbeTask
from histokin.evaluate.probes.ridge import ALPHAS, RidgeProbe
from histokin.evaluate.probes.run import Probed, compare_probes, knn_probe, linear_probe, ridge_probe, svm_probe
from histokin.evaluate.probes.scores import ClassFigure, GroupFigure
from histokin.evaluate.probes.svm import SVMProbe

__all__ = [
    "ALPHAS",
    "C_GRID",
    "ClassFigure",
    "FewShot",
    "Fold",
    "GroupFigure",
    "LinearProbe",
    "NeighbourProbe",
    "Outcome",
    "ProbeTask",
    "Probed",
    "RidgeProbe",
    "SVMProbe",
    "ShotDifference",
    "ShotFigure",
    "Split",
    "compare_probes",
    "few_shot",
    "grouped_folds",
    "knn_probe",
    "linear_probe",
    "ridge_probe",
    "simple_shot",
    "svm_probe",
]
