"""The docs name what there is: every command, error code, slide state and recipe key."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import get_args

import pytest

import histokin
from histokin.cli.program import COMMANDS
from histokin.cohort.states import State
from histokin.errors import HistokinError

ROOT = Path(__file__).parents[1]


def _errors() -> set[type[HistokinError]]:
    for module in pkgutil.walk_packages(histokin.__path__, "histokin."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, todo = set(), [HistokinError]
    while todo:
        kind = todo.pop()
        found.add(kind)
        todo += kind.__subclasses__()
    return found - {HistokinError}


def test_every_error_code_is_explained_and_no_other() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
    assert documented == {kind.code for kind in _errors()}


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in _errors()]
    assert len(codes) == len(set(codes))


def test_every_state_is_named() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    assert set(get_args(State)) <= set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_of_it_exists_in_the_docs(name: str) -> None:
    text = (ROOT / "docs/commands.md").read_text() + (ROOT / "README.md").read_text()
    assert f"histokin {name}" in text
    command = importlib.import_module(f"histokin.cli.commands.{name}").command
    options = {o for p in command.params for o in p.opts if o.startswith("--")}
    common = {"--json", "--help"}
    assert [o for o in sorted(options - common) if o not in text] == []


def test_links_between_the_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_recipe_key_is_in_the_shipped_recipe() -> None:
    import yaml

    from histokin.artefacts import plain
    from histokin.learn.reading import shipped_recipes
    from histokin.learn.recipe import Recipe

    def keys(value: object, prefix: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {prefix}
        return {k for name, item in value.items() for k in keys(item, f"{prefix}.{name}")}

    for text in shipped_recipes().values():
        assert keys(yaml.safe_load(text)) == keys(plain(Recipe()))
