"""The error tree: every failure a user can meet says what happened, where, and what to do.

    HistokinError
    ├── SlideError        a picture file cannot be used
    ├── CohortError       the table of slides cannot be used
    ├── TableError        a tile table cannot be used
    ├── StoreError        an embedding store cannot be used
    ├── SearchError       an index cannot be used, or a query cannot be answered
    ├── EncoderError      an encoder cannot be built or loaded
    ├── RecipeError       a recipe or a flag asks for something impossible
    ├── TrainingError     pretraining cannot go on
    ├── EvaluationError   a protocol cannot be carried out on these data
    └── WorkspaceError    the workspace cannot be used

Leaves add a `code`, never a constructor: a different signature does not survive unpickling.
"""

from pathlib import Path
from typing import ClassVar


class HistokinError(Exception):
    """A failure with a cause, a place and a remedy; `code` is explained in docs/errors.md."""

    code: ClassVar[str] = "error"

    def __init__(self, what: str, where: Path | str, remedy: str) -> None:
        super().__init__(what, where, remedy)  # all of it in args: worker processes pickle errors
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy} [{self.code}]"


class SlideError(HistokinError):
    """A picture file cannot be used."""

    code = "slide"


class SlideMissing(SlideError):
    """The file is not there."""

    code = "slide-missing"


class SlideUnreadable(SlideError):
    """The file is there, but no reader can open it, or its pixels cannot be decoded."""

    code = "slide-unreadable"


class SlideUnsupported(SlideError):
    """The file was recognised, but something in it is outside what histokin handles."""

    code = "slide-unsupported"


class NoResolution(SlideError):
    """The file states no believable pixel size and none was given."""

    code = "slide-no-mpp"


class CohortError(HistokinError):
    """The table or folder of slides cannot be used."""

    code = "cohort"


class NoUsableSlide(CohortError):
    """Not one slide of the cohort can be used."""

    code = "cohort-no-usable-slide"


class TableError(HistokinError):
    """A tile table cannot be used."""

    code = "table"


class StoreError(HistokinError):
    """An embedding store cannot be used."""

    code = "store"


class EncoderMismatch(StoreError):
    """Vectors of different encoders would be mixed."""

    code = "store-encoder-mismatch"


class SearchError(HistokinError):
    """An index cannot be used, or a query cannot be answered."""

    code = "search"


class IndexLocked(SearchError):
    """Another process is writing the index."""

    code = "search-index-locked"


class IndexDamaged(SearchError):
    """A file of an index is missing, or is not what its manifest says."""

    code = "search-index-damaged"


class EncoderError(HistokinError):
    """An encoder cannot be built or loaded."""

    code = "encoder"


class RecipeError(HistokinError):
    """A recipe or a flag asks for something that does not exist or cannot be."""

    code = "recipe"


class TrainingError(HistokinError):
    """Pretraining cannot start or go on."""

    code = "training"


class EvaluationError(HistokinError):
    """A protocol cannot be carried out on these data."""

    code = "evaluation"


class WorkspaceError(HistokinError):
    """The workspace cannot be used."""

    code = "workspace"
