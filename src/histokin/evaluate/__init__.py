"""Evaluation: metrics, floors, intervals, chance, protocols.

Takes arrays and gives results that carry their protocol; nothing here reads or writes a file, draws a picture or
knows a network.
"""

from histokin.evaluate.class_retrieval import ClassRetrieval, retrieve_classes
from histokin.evaluate.comparison import Figure
from histokin.evaluate.controls import Control, shuffled_labels_control
from histokin.evaluate.floors import FLOORS, floor_distance
from histokin.evaluate.intervals import Difference, Interval
from histokin.evaluate.items import Items, LeaveOut, Task, make_task
from histokin.evaluate.kather import KatherProtocol, kather2016
from histokin.evaluate.label_free import LabelFree, label_free
from histokin.evaluate.probes import (
    Certainty,
    LinearProbe,
    NeighbourProbe,
    Probed,
    RidgeProbe,
    Split,
    SplitProbed,
    SVMProbe,
    certainty,
    compare_probes,
    confusion_counts,
    few_shot,
    knn_probe,
    linear_probe,
    probe_splits,
    ridge_probe,
    svm_probe,
)
from histokin.evaluate.protocol import evaluate_found, evaluate_retrieval, evaluate_slides, nearest_bags
from histokin.evaluate.results import ClassResult, Evaluation, Result
from histokin.evaluate.retrieval import Retrieved
from histokin.evaluate.robustness import RobustnessComparison, compare_robustness
from histokin.evaluate.spatial import Spatial, compare_spatial
from histokin.evaluate.spatial_pairs import PairLimits, pair_limits
from histokin.search.votes import VoteRule

__all__ = [
    "FLOORS",
    "Certainty",
    "ClassResult",
    "ClassRetrieval",
    "Control",
    "Difference",
    "Evaluation",
    "Figure",
    "Interval",
    "Items",
    "KatherProtocol",
    "LabelFree",
    "LeaveOut",
    "LinearProbe",
    "NeighbourProbe",
    "PairLimits",
    "Probed",
    "Result",
    "Retrieved",
    "RidgeProbe",
    "RobustnessComparison",
    "SVMProbe",
    "Spatial",
    "Split",
    "SplitProbed",
    "Task",
    "VoteRule",
    "certainty",
    "compare_probes",
    "compare_robustness",
    "compare_spatial",
    "confusion_counts",
    "evaluate_found",
    "evaluate_retrieval",
    "evaluate_slides",
    "few_shot",
    "floor_distance",
    "kather2016",
    "knn_probe",
    "label_free",
    "linear_probe",
    "make_task",
    "nearest_bags",
    "pair_limits",
    "probe_splits",
    "retrieve_classes",
    "ridge_probe",
    "shuffled_labels_control",
    "svm_probe",
]
