"""Cohort: the table of slides, patients and labels; the inventory with each slide's state; folders of ready tiles.

Knows nothing of models.
"""

from histokin.cohort.groups import UNNAMED, LeaveOutUnits, leave_out_units
from histokin.cohort.inventory import take_inventory
from histokin.cohort.records import Cohort, SlideRecord, TileRow, file_name_of
from histokin.cohort.states import Kind, State

__all__ = [
    "UNNAMED",
    "Cohort",
    "Kind",
    "LeaveOutUnits",
    "SlideRecord",
    "State",
    "TileRow",
    "file_name_of",
    "leave_out_units",
    "take_inventory",
]
