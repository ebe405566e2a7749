"""Recipes from YAML and from `--set a.b=value`; refusals name the key and the nearest known one."""

import dataclasses
import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from histokin.artefacts import plain
from histokin.errors import RecipeError
from histokin.learn.recipe import LossSpec, Recipe

DEFAULT_METHOD = "simclr"


def shipped_recipes() -> dict[str, str]:
    """Name to YAML text of the recipes that come with the package."""
    folder = resources.files("histokin.learn") / "recipes"
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".yaml")
    }


def read_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by the name of a shipped one or by its file.

    Raises:
        RecipeError: no such recipe, no YAML, an unknown key (the nearest known one is named), a value out of range.
    """
    shipped = shipped_recipes()
    if str(name_or_path) in shipped:
        return parse_recipe(shipped[str(name_or_path)], where=f"{name_or_path}.yaml")
    path = Path(name_or_path)
    if path.is_file() and not _is_text(path):
        raise RecipeError("it is not UTF-8 text", path, "Save it as UTF-8.")
    if not path.is_file():
        raise RecipeError(
            "there is no such recipe", name_or_path, f"Name a file, or one of the shipped: {', '.join(shipped)}."
        )
    return parse_recipe(path.read_text(encoding="utf-8"), where=path)


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def parse_recipe(text: str, *, where: Path | str) -> Recipe:
    """A recipe from YAML text; keys left out are those of the method's shipped recipe."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"it is no YAML ({' '.join(str(error).split())})", where, "Correct that line.") from error
    return recipe_from(content or {}, where=where)


def recipe_from(content: Any, *, where: Path | str) -> Recipe:
    """A recipe from nested mappings, validated; keys left out are those of the method's shipped recipe.

    Raises:
        RecipeError: unknown method or key, a value out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    from histokin.learn.methods import METHODS  # brings torch along: only where a recipe is read

    if not isinstance(content, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where, "Compare it with recipes/simclr.yaml.")
    method = content.get("method", DEFAULT_METHOD)
    if method not in METHODS:
        raise RecipeError(f"there is no method {method!r}", where, f"Known: {', '.join(sorted(METHODS))}.")
    shipped = shipped_recipes().get(method)
    below: dict[str, Any] = yaml.safe_load(shipped) if shipped else {"method": method}
    content = _over({"loss": {}, **below}, content)
    section = "loss"
    try:
        loss = TypeAdapter(METHODS[method].Settings).validate_python(content["loss"])
        section = ""
        return TypeAdapter(Recipe).validate_python({**content, "loss": loss})
    except ValidationError as error:
        raise _refusal(error.errors()[0], section, METHODS[method].Settings, where) from error


def _over(under: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """Mappings joined key by key; `backbone.args` and other free mappings are taken whole."""
    sections = {field.name for field in dataclasses.fields(Recipe)} | {"local"}
    joined = dict(under)
    for key, value in mine.items():
        below = joined.get(key)
        if key in sections and isinstance(below, dict) and isinstance(value, dict):
            value = _over(below, value)  # noqa: PLW2901 - the joined one takes its place
        joined[key] = value
    return joined


def _refusal(complaint: Any, section: str, settings: type[LossSpec], where: Path | str) -> RecipeError:
    """One sentence about the first thing pydantic found."""
    # Where a key may be `auto` or a value, pydantic adds the branch it tried to the place.
    place = [part for part in complaint["loc"] if isinstance(part, str) and not _is_branch(part)]
    key = ".".join([section, *place] if section else place)
    if complaint["type"] == "unexpected_keyword_argument":
        return _unknown_key(key, settings, where)
    message = complaint["msg"].removeprefix("Value error, ")
    given = "" if isinstance(complaint["input"], dict) else f", got {complaint['input']!r}"
    return RecipeError(f"{key or 'recipe'}: {message}{given}", where, "Correct the value.")


def _is_branch(part: str) -> bool:
    return part in {"int", "float", "str"} or part.startswith(("literal[", "tuple[", "dict[", "function-"))


def _unknown_key(key: str, settings: type[LossSpec], where: Path | str) -> RecipeError:
    known = known_keys(settings)
    last = key.rpartition(".")[2]
    by_last = {name.rpartition(".")[2]: name for name in known}
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    nearest += [by_last[name] for name in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.5)]
    remedy = f"The nearest known key is '{nearest[0]}'." if nearest else f"Known keys: {', '.join(known)}."
    return RecipeError(f"there is no key '{key}'", where, remedy)


def known_keys(settings: type[LossSpec]) -> list[str]:
    """All keys of a recipe whose `loss` section has the keys of a method, dotted."""
    return _keys(Recipe(method="", loss=settings()))


def _keys(spec: Any, prefix: str = "") -> list[str]:
    found: list[str] = []
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        found += _keys(value, f"{prefix}{field.name}.") if dataclasses.is_dataclass(value) else [prefix + field.name]
    return found


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """The recipe with `key=value` texts applied, as `--set loss.temperature=0.1` gives them.

    Raises:
        RecipeError: no `=`, an unknown key, a value out of range.
    """
    content = plain(recipe)
    for assignment in assignments:
        key, is_assignment, value = assignment.partition("=")
        if not is_assignment:
            raise RecipeError("an override is key=value", f"--set {assignment}", "Write loss.temperature=0.2.")
        if key.strip() == "method":
            raise RecipeError(
                "a method comes with a recipe of its own", f"--set {assignment}", f"Ask for --recipe {value.strip()}."
            )
        *parents, last = key.strip().split(".")
        target = content
        for parent in parents:
            target = target.get(parent)
            if not isinstance(target, dict):
                raise _unknown_key(key, type(recipe.loss), f"--set {assignment}")
        # `backbone.args.channels=...` adds to a free mapping; everything else must exist.
        if last not in target and parents != ["backbone", "args"]:
            raise _unknown_key(key, type(recipe.loss), f"--set {assignment}")
        try:
            target[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"{value!r} is no value", f"--set {assignment}", "Write it as YAML would.") from error
    return recipe_from(content, where=f"--set {' '.join(assignments)}")


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML, keys in the order of the dataclass; equal recipes give equal text."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=120)
