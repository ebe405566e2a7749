"""Evaluation: metrics, floors, intervals, chance, protocols.

Takes arrays and gives results that carry their protocol; nothing here reads or writes a file, draws a picture or
knows a network.
"""

from histokin.evaluate.controls import Control, shuffled_labels_control
from histokin.evaluate.floors import FLOORS, floor_distance
from histokin.evaluate.intervals import Difference, Interval
from histokin.evaluate.items import Items, LeaveOut
from histokin.evaluate.label_free import LabelFree, label_free
from histokin.evaluate.protocol import evaluate_retrieval, evaluate_slides
from histokin.evaluate.results import ClassResult, Evaluation, Result
from histokin.evaluate.retrieval import Retrieved
from histokin.evaluate.votes import VoteRule

__all__ = [
    "FLOORS",
    "ClassResult",
    "Control",
    "Difference",
    "Evaluation",
    "Interval",
    "Items",
    "LabelFree",
    "LeaveOut",
    "Result",
    "Retrieved",
    "VoteRule",
    "evaluate_retrieval",
    "evaluate_slides",
    "floor_distance",
    "label_free",
    "shuffled_labels_control",
]
