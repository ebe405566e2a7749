"""What a comparison is asked for: tasks to judge on, entries to judge; from YAML or from a command's options."""

import math
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from histokin.errors import RecipeError
from histokin.evaluate import FLOORS

RANDOM = "random"
"""Begins the names of the floors of random weights."""
FEWEST_TILES = 8
_STRICT: dict[str, str] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Something known of the tiles of a workspace, that encoders are judged by.

    Attributes:
        work: folder of the workspace.
        label: column of classes; "" takes `label`, then `diagnosis`. Or:
        value: column of numbers, predicted by ridge regression.
        leave_out: whose tiles neither answer nor are fitted on.
        cluster: what is resampled for intervals: patient, slide, site or a column of the tiles; "" takes
            patients, sites where these are left out, and slides where there is one patient only.
        only: rows with `COLUMN=VALUE` alone are judged, such as label_agree3=1.
        spatial: also measure how distance in tissue shows in distance of embeddings (ADDR); alone where no label is
            named and neither `label` nor `diagnosis` is there.
        name: in tables; "" makes one of workspace, column and leave_out.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    work: str
    label: str = ""
    value: str = ""
    leave_out: Literal["patient", "slide", "site", "self"] = "patient"
    cluster: str = ""
    only: tuple[str, ...] = ()
    spatial: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if self.label and self.value:
            raise ValueError("a task has a label or a value, not both")
        if any("=" not in condition for condition in self.only):
            raise ValueError("`only` is COLUMN=VALUE")

    @property
    def title(self) -> str:
        """Its name in tables."""
        column = self.value or self.label or "label"
        return self.name or f"{Path(self.work).resolve().name}: {column}, leaving the {self.leave_out} out"


@dataclass(frozen=True, slots=True)
class EntrySpec:
    """One encoder to be trained and judged.

    Attributes:
        name: of its row.
        recipe: a shipped recipe or a file.
        settings: `key=value` changes to it.
        train: workspaces whose tiles it learns from; () for all of the plan's.
        at_most: so many of these tiles, drawn evenly; None for all.
        mpp: pixel size of the tiles it learns from and is judged on; None as the workspaces are tiled.
        without: `UNIT=NAME,NAME`, slides, patients or sites kept out of training; () for none.
        against: entries it is also compared with directly, such as the method it builds on.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    name: str
    recipe: str = "simclr"
    settings: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    at_most: int | None = None
    mpp: float | None = None
    without: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("an entry needs a name")
        if self.name in FLOORS or self.name.split()[0] == RANDOM:
            raise ValueError(f"an entry cannot be called {self.name!r}: that is a floor")
        if self.at_most is not None and self.at_most < FEWEST_TILES:
            raise ValueError(f"{self.name}: at_most is at least {FEWEST_TILES}, not {self.at_most}")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise ValueError(f"{self.name}: mpp is a positive number, not {self.mpp}")


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """Entries, judged on tasks.

    Attributes:
        tasks, entries: see there; the order is that of the tables.
        train: workspaces to learn from; () for those of the tasks.
        settings: `key=value` changes to every recipe: the common budget above all.
        device: torch's name of a device.
        seed: of training, sampling and bootstrap.
        title: of the page.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    tasks: tuple[TaskSpec, ...]
    entries: tuple[EntrySpec, ...]
    train: tuple[str, ...] = ()
    settings: tuple[str, ...] = field(default=())
    device: str = "auto"
    seed: int = 0
    title: str = ""

    def __post_init__(self) -> None:
        if not self.tasks or not self.entries:
            raise ValueError("a comparison needs at least one task and one entry")
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise ValueError(f"two entries have one name, name each once: {', '.join(sorted(names))}")
        titles = [task.title for task in self.tasks]
        if len(set(titles)) < len(titles):
            raise ValueError(f"two tasks have one name, give them others: {', '.join(sorted(titles))}")
        unknown = sorted({other for entry in self.entries for other in entry.against} - set(names))
        if unknown:
            raise ValueError(f"`against` names no entry: {', '.join(unknown)}")

    def train_of(self, entry: EntrySpec) -> tuple[str, ...]:
        """The workspaces an entry learns from."""
        return entry.train or self.train or tuple(dict.fromkeys(task.work for task in self.tasks))


def read_plan(path: Path) -> ComparisonPlan:
    """A plan from its YAML file; workspaces in it are relative to the file.

    Raises:
        RecipeError: no such file, no YAML, an unknown key, a value out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    if not path.is_file():
        raise RecipeError("there is no such plan", path, "See docs/comparing.md for an example.")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        plan = TypeAdapter(ComparisonPlan).validate_python(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"it is no YAML ({' '.join(str(error).split())})", path, "Correct that line.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{place}: {first['msg'].removeprefix('Value error, ')}", path, "Correct it.") from error
    return _placed(plan, path.parent)


def _placed(plan: ComparisonPlan, folder: Path) -> ComparisonPlan:
    """The plan with its workspaces and recipe files as paths from here."""
    from dataclasses import replace

    def here(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(folder / name) for name in names)

    return replace(
        plan,
        tasks=tuple(replace(task, work=str(folder / task.work)) for task in plan.tasks),
        entries=tuple(
            replace(
                entry,
                train=here(entry.train),
                recipe=str(folder / entry.recipe) if entry.recipe.endswith((".yaml", ".yml")) else entry.recipe,
            )
            for entry in plan.entries
        ),
        train=here(plan.train),
    )


def simple_plan(
    works: tuple[str, ...],
    recipes: tuple[str, ...],
    *,
    task: dict[str, Any],
    settings: tuple[str, ...],
    train: tuple[str, ...] = (),
    mpps: tuple[float, ...] = (),
    counts: tuple[int, ...] = (),
    each_cohort: bool = False,
    device: str = "auto",
    seed: int = 0,
) -> ComparisonPlan:
    """The plan that a command's options make: recipes times what is varied.

    Args:
        works: workspaces; a task each.
        recipes: shipped names or files.
        task: further fields of each task.
        settings: changes to every recipe.
        train: workspaces to learn from; () for `works`.
        mpps: pixel sizes to try; () as the workspaces are tiled.
        counts: numbers of tiles to try; () for all.
        each_cohort: also train on each workspace alone.
        device, seed: see `ComparisonPlan`.

    Raises:
        RecipeError: nothing to compare.
    """
    trained_on: list[tuple[str, ...]] = [()]
    learned_from = train or works
    if each_cohort:
        trained_on += [(work,) for work in learned_from]
    if not recipes:
        raise RecipeError("there is nothing to compare", "compare", "Name recipes with --recipes simclr,byol.")
    try:
        varied = product(recipes, mpps or (None,), counts or (None,), trained_on)
        entries = tuple(_named(*one) for one in varied)
        tasks = tuple(TaskSpec(work=work, **task) for work in works)
        return ComparisonPlan(tasks, entries, train, settings, device, seed)
    except ValueError as error:
        raise RecipeError(str(error), "compare", "Correct the options, or write a --plan.") from error


def _named(recipe: str, mpp: float | None, count: int | None, cohort: tuple[str, ...]) -> EntrySpec:
    """An entry called after what is varied."""
    parts = [Path(recipe).stem]
    parts += [] if mpp is None else [f"{mpp:g} mpp"]
    parts += [] if count is None else [f"{count} tiles"]
    parts += [f"on {Path(cohort[0]).resolve().name}"] if cohort else []
    return EntrySpec(", ".join(parts), recipe, train=cohort, at_most=count, mpp=mpp)
