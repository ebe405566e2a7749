"""What a protocol is: a name, what it asks and cannot show, and a function from a case to a chapter's figures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from histokin.pipeline.evaluation.case import Case, check_classes, counts_of, numbers_of, prevalence_of
from histokin.pipeline.evaluation.table import Level
from histokin.report import Chapter

Needs = Literal["classes", "numbers", "places", "vectors"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of judging embeddings.

    Attributes:
        name: on the command line, of its page in docs/evaluation, and in files.
        title: in headings.
        question: what it asks, in one sentence; `{unit}` stands for what is left out together.
        caution: what it cannot show, in one sentence.
        needs: a column of classes or of numbers, places in tissue, or vectors alone.
        levels: what it is carried out on.
        measure: gives the chapter's fields; raises EvaluationError with the reason where it cannot be carried out.
        most_rows: labelled rows it is given; of more, equally many a patient. None gives all.
        is_in_all: whether `all` includes it.
    """

    name: str
    title: str
    question: str
    caution: str
    needs: Needs
    levels: tuple[Level, ...]
    measure: Callable[[Case], dict[str, Any]]
    most_rows: int | None = None
    is_in_all: bool = True

    @property
    def is_labelled(self) -> bool:
        return self.needs in ("classes", "numbers")

    def suits(self, case: Case) -> bool:
        """Whether the column is of the kind that the protocol is about."""
        if not self.is_labelled:
            return True
        return any(case.texts) and (numbers_of(case.texts) is not None) == (self.needs == "numbers")

    def chapter(self, case: Case) -> tuple[Chapter, dict[str, list[dict[str, Any]]]]:
        """Carry it out.

        Returns:
            The figures, and by file name the rows of tables that they can be computed from again.

        Raises:
            EvaluationError, StoreError: it cannot be; says why and what to do.
        """
        if self.needs == "classes":
            check_classes(case.texts, case.column)
        given = case if self.most_rows is None else case.at_most(self.most_rows)
        n_given, n_labelled = (int(one.texts.astype(bool).sum()) for one in (given, case))
        found = self.measure(given)
        if n_given < n_labelled:
            drawn = f"{n_given} of {n_labelled} labelled {case.level}s were drawn, equally many a patient."
            found["notes"] = [drawn, *found.get("notes", [])]
        tables = found.pop("tables", {})
        of = f" of {case.column}" if case.column else ""
        counts = found.pop("counts", None) or counts_of(given)
        if self.needs == "classes":
            counts = {**counts, "classes": len({text for text in given.texts if text})}
        chapter = Chapter(
            protocol=self.name,
            title=f"{case.level.capitalize()}s: {self.title}{of}",
            question=self.question.format(unit=case.level if case.spec.leave_out == "self" else case.spec.leave_out),
            caution=self.caution,
            level=case.level,
            column=case.column,
            counts=counts,
            prevalence=found.pop("prevalence", None) or (prevalence_of(given.texts) if self.needs == "classes" else {}),
            twins={name: twin for name, twin in case.table.sources.twins.items() if twin in case.floors},
            **found,
        )
        return chapter, tables
