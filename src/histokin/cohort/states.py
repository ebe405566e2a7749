"""The words for what a cohort is and what state a slide is in."""

from typing import Literal

Kind = Literal["slides", "tiles"]

State = Literal[
    "ok",
    "missing",  # the file is not there
    "unreadable",  # no reader opens it, or its pixels cannot be decoded
    "unsupported",  # recognised, but outside what histokin handles
    "no_mpp",  # no believable pixel size
    "no_tissue",  # nothing on it to look at
    "damaged",  # opened, but tiles could not be read
    "duplicate",  # another row has the same id
]
