"""Probes: what a plain predictor makes of frozen features when whole patients, sections or sites are held out."""

from histokin.evaluate.probes.certainty import Certainty, certainty, confusion_counts
from histokin.evaluate.probes.few_shot import FewShot, ShotDifference, ShotFigure, few_shot, simple_shot
from histokin.evaluate.probes.folds import Split, grouped_folds
from histokin.evaluate.probes.given import SplitProbed, SplitScores, probe_splits
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
    "Certainty",
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
    "SplitProbed",
    "SplitScores",
    "certainty",
    "compare_probes",
    "confusion_counts",
    "few_shot",
    "grouped_folds",
    "knn_probe",
    "linear_probe",
    "probe_splits",
    "ridge_probe",
    "simple_shot",
    "svm_probe",
]
