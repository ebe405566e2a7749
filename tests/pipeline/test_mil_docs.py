"""The pages on slide classification: every model has one, what they name exists, their numbers are the code's."""

import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path

import click
import pytest

from histokin.cli.commands.mil import command
from histokin.mil import MODELS, Classes, build_model
from histokin.mil.training import MilSpec
from histokin.pipeline.mil.asking import TARGETS

DOCS = Path(__file__).parents[2] / "docs"
OVERVIEW = (DOCS / "mil.md").read_text(encoding="utf-8")
PAGES = sorted((DOCS / "mil").glob("*.md"))
PAGE_OF = {"clam_sb": "clam", "clam_mb": "clam"}


def test_every_model_has_a_page_that_the_overview_links() -> None:
    linked = set(re.findall(r"\]\(mil/([\w-]+)\.md\)", OVERVIEW))
    assert linked == {PAGE_OF.get(name, name) for name in MODELS} == {page.stem for page in PAGES}
    for name in MODELS:
        text = (DOCS / "mil" / f"{PAGE_OF.get(name, name)}.md").read_text(encoding="utf-8")
        assert f"`{name}`" in text
        assert f"`{name}`" in OVERVIEW
        for part in ("**Source.**", "**When.**"):
            assert part in text


def test_every_target_is_explained() -> None:
    assert all(f"`{target}`" in OVERVIEW for target in TARGETS)


@pytest.mark.parametrize("page", [DOCS / "mil.md", *PAGES], ids=lambda page: page.stem)
def test_options_settings_and_links_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {name for model in MODELS.values() for name in inspect.signature(model).parameters}
    assert set(re.findall(r"options\.([a-z_]+)", text)) <= known
    settings = set(re.findall(r"--set ([a-z_]+)=", text))
    assert settings <= {one.name for one in fields(MilSpec)}
    said = {word for one in (command, *command.commands.values()) for option in one.params for word in option.opts}
    assert set(re.findall(r"(--[a-z][a-z-]+)", text)) <= said | {"--shuffle"}  # that of MIL-RNN's published code
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link


def test_the_commands_of_the_overview_are_parsed_with_nothing_left_over() -> None:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", OVERVIEW, re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        program, verb, name, *arguments = shlex.split(line, comments=True)
        assert (program, verb) == ("histokin", "mil")
        one = command.commands[name]
        assert isinstance(one, click.Command)
        one.make_parser(click.Context(one)).parse_args(args=arguments)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "max"])
def test_the_number_of_parameters_on_a_page_is_the_models(name: str) -> None:
    text = (DOCS / "mil" / f"{PAGE_OF.get(name, name)}.md").read_text(encoding="utf-8")
    preset = "faithful" if name == "dsmil" else "default"
    model = build_model(name, dim=1024, objective=Classes(2), preset=preset, seed=0)
    part = model.aggregator if name == "mil_rnn" else model
    count = sum(one.numel() for one in part.parameters())  # pyright: ignore[reportAttributeAccessIssue]
    assert f"{count:,}" in text or f" {count} parameters" in text
