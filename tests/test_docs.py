"""The docs name what there is: every command, error code, slide state, method and recipe key; what they show runs."""

import importlib
import json
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pytest
import yaml

import histokin
from histokin.cli.program import COMMANDS
from histokin.cohort.states import State
from histokin.errors import HistokinError

ROOT = Path(__file__).parents[1]
PROTOCOL_PAGES = sorted((ROOT / "docs/evaluation").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *PROTOCOL_PAGES]


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
    commands = [command, *getattr(command, "commands", {}).values()]
    options = {o for one in commands for p in one.params for o in p.opts if o.startswith("--")}
    common = {"--json", "--help"}
    assert [o for o in sorted(options - common) if o not in text] == []


def test_links_between_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_links_to_headings_lead_to_one() -> None:
    for page in PAGES:
        for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            target = page.parent / name if name else page
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {name}#{anchor}"


def test_every_shared_recipe_key_is_in_the_recipe_of_simclr() -> None:
    from histokin.learn.methods import METHODS
    from histokin.learn.reading import known_keys, shipped_recipes

    said = _keys(yaml.safe_load(shipped_recipes()["simclr"]))
    assert sorted(said) == sorted(known_keys(METHODS["simclr"].Settings))


def test_every_method_has_a_recipe_with_all_keys_of_its_loss_and_no_unknown_one() -> None:
    from histokin.learn.methods import METHODS
    from histokin.learn.reading import known_keys, shipped_recipes

    shipped = shipped_recipes()
    assert sorted(shipped) == sorted(METHODS)
    for name, text in shipped.items():
        content = yaml.safe_load(text)
        known = set(known_keys(METHODS[name].Settings))
        assert content["method"] == name
        assert _keys(content) - known == set(), name
        assert {key for key in known if key.startswith("loss.")} == _keys({"loss": content["loss"]}), name


def test_every_method_has_a_section_a_row_and_a_cost() -> None:
    from histokin.learn.methods import METHODS

    text = (ROOT / "docs/methods.md").read_text()
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == sorted([*METHODS, "Costs"])
    for name in METHODS:
        assert f"| [{name}](#{name}) |" in text
        assert re.search(rf"^\| {name} \|.*\| \d\.\d\d \|", text, re.MULTILINE), name


def test_the_papers_settings_in_the_docs_are_recipes() -> None:
    from histokin.learn import parse_recipe
    from histokin.learn.methods import METHODS

    found = [parse_recipe(text, where="docs/methods.md").method for text in _blocks("docs/methods.md", "yaml")]
    assert sorted(found) == sorted(set(METHODS) - {"supervised"})


def test_recipe_keys_that_the_docs_name_exist() -> None:
    from histokin.learn.methods import METHODS
    from histokin.learn.reading import known_keys

    keys = {name: set(known_keys(method.Settings)) for name, method in METHODS.items()}
    known = set().union(*keys.values()) | {"views.local"}
    sections = "backbone|views|loss|projector|optimiser|sampling|run"
    for page in PAGES:
        named = set(re.findall(rf"`((?:{sections})\.[a-z_.]+)", page.read_text()))
        assert named - known == set(), page.name
    for section in (ROOT / "docs/methods.md").read_text().split("\n## ")[1:]:
        name = section.split("\n")[0]
        if name in METHODS:
            assert set(re.findall(r"`(loss\.[a-z_]+)", section)) - keys[name] == set(), name


def test_every_published_encoder_is_in_the_docs_with_its_file_and_licence() -> None:
    from histokin.encoders import PUBLISHED

    text = (ROOT / "docs/encoders.md").read_text()
    for name, entry in PUBLISHED.items():
        assert f"`{name}`" in text
        assert entry.source.split(" ")[0].removeprefix("https://github.com/") in text
        assert any(word in text for word in (entry.licence, entry.licence.split(", ")[0]))
        assert str(entry.dim) in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_in_the_docs_is_one(page: Path) -> None:
    from histokin.learn import override, read_recipe

    for line in _command_lines(page):
        name, *arguments = shlex.split(line, comments=True)
        command = importlib.import_module(f"histokin.cli.commands.{name}").command
        if isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
        context = click.Context(command, info_name=name)
        options, rest, _ = command.make_parser(context).parse_args(args=arguments)  # unknown ones are refused
        assert len(rest) <= sum(
            p.nargs if p.nargs > 0 else 99 for p in command.params if p.param_type_name == "argument"
        )
        for recipe in str(options.get("recipes") or options.get("recipe", "simclr")).split(","):
            if recipe != "FILE":
                override(read_recipe(recipe), list(options.get("settings", [])))


def test_the_plan_of_the_docs_is_read_and_all_it_asks_for_exists(tmp_path: Path) -> None:
    from histokin.pipeline.comparison.plan import read_plan
    from histokin.pipeline.comparison.tasks import recipe_of
    from histokin.pipeline.packing import Without

    (text,) = _blocks("docs/comparing.md", "yaml")
    (tmp_path / "plan.yaml").write_text(text)
    plan = read_plan(tmp_path / "plan.yaml")
    assert [task.title for task in plan.tasks] == ["lab-a: diagnosis, leaving the patient out", "epithelium of spots"]
    assert {Path(task.work) for task in plan.tasks} == {tmp_path / "work/lab-a", tmp_path / "work/spots"}
    recipes = {entry.name: recipe_of(plan, entry) for entry in plan.entries}
    assert {name: (r.method, r.run.steps, r.run.batch) for name, r in recipes.items()} == {
        "npid": ("npid", 2000, 128),
        "sgcl": ("sgcl", 2000, 64),
        "sgcl, half the tiles": ("sgcl", 2000, 64),
        "sgcl without three patients": ("sgcl", 2000, 64),
        "sgcl at 2 um, lab a": ("sgcl", 2000, 64),
    }
    assert [Without.parse(entry.without) for entry in plan.entries if entry.without] == [
        Without("patient", frozenset({"P01", "P02", "P03"}))
    ]
    assert plan.train_of(plan.entries[4]) == (str(tmp_path / "work/lab-a"),)


def test_the_snippet_for_timm_gives_the_vectors_of_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from histokin.encoders import EncoderCard, build_network, load_encoder, save_encoder

    args = {"channels": (8, 8, 16, 24), "stem_width": 8, "layers": (1, 1, 1, 1)}
    card = EncoderCard(
        name="small",
        architecture="resnet10t",
        model_args=args,
        weights_sha256="",
        mean=(0.75, 0.6, 0.72),
        std=(0.18, 0.22, 0.16),
        mpp=1.0,
        tile_px=48,
        input_px=48,
        embed_dim=24,
        pooling="pooled",
        method="simclr",
        run="",
    )
    folder = tmp_path / "work/runs/main/encoder"
    save_encoder(folder, build_network("resnet10t", args, seed=1), card)
    monkeypatch.chdir(tmp_path)
    (snippet,) = _blocks("docs/encoders.md", "python")
    names: dict[str, Any] = {}
    exec(snippet, names)
    expected = load_encoder(folder, device="cpu").embed(names["tile"][None])
    np.testing.assert_allclose(names["vector"].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_snippet_for_failed_steps_meets_one_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from histokin.errors import TrainingError
    from histokin.learn import ArrayPixels, override, pretrain, read_recipe

    tiles = np.random.default_rng(3).integers(90, 220, (20, 32, 32, 3), dtype=np.uint8)
    settings = ["precision=fp32", "backbone.args={channels: [8, 8, 16, 24], stem_width: 8, layers: [1, 1, 1, 1]}"]
    settings += ["backbone.name=resnet10t", "views.train_px=32", "run.batch=8", "run.steps=7", "run.monitor_tiles=8"]
    recipe = override(read_recipe("simclr"), [*settings, "optimiser.lr=1e30", "optimiser.warmup=0"])
    with pytest.raises(TrainingError):
        pretrain(ArrayPixels(tiles, mpp=1.0), recipe, tmp_path / "runs/main", device="cpu")
    (folder,) = (tmp_path / "runs/main/failures").iterdir()
    folder.rename(folder.with_name("step-0001234"))
    monkeypatch.chdir(tmp_path)
    (snippet,) = _blocks("docs/training.md", "python")
    with pytest.raises(TrainingError, match="loss became nan"):
        exec(snippet, {})


@pytest.mark.parametrize("page", PROTOCOL_PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_the_pages_on_evaluation_run_and_print(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for snippet in _blocks(f"docs/evaluation/{page.name}", "python"):
        exec(snippet, {})
        assert capsys.readouterr().out.strip(), snippet


def test_every_page_on_evaluation_is_linked_by_the_overview() -> None:
    linked = re.findall(r"\]\(evaluation/([\w-]+)\.md", (ROOT / "docs/evaluation.md").read_text())
    assert {page.stem for page in PROTOCOL_PAGES} <= set(linked)


def test_every_protocol_stands_in_the_overview_with_its_page_and_a_command_line() -> None:
    from histokin.pipeline.evaluation.protocols import PROTOCOLS

    rows = re.findall(r"^\| \[(`.+`)\]\((.+?\.md)[#)]", (ROOT / "docs/evaluation.md").read_text(), re.MULTILINE)
    page_of = {name: page for names, page in rows for name in re.findall(r"`([\w-]+)`", names)}
    assert sorted(page_of) == sorted(PROTOCOLS)
    for name, page in page_of.items():
        shown = re.findall(r"--protocol (\S+)", (ROOT / "docs" / page).read_text())
        assert name in {one for names in shown for one in names.split(",")}, f"{page}: {name}"


def test_the_coverage_of_intervals_in_the_docs_is_that_of_the_benchmark() -> None:
    text = (ROOT / "docs/evaluation/statistics.md").read_text()
    results = ROOT / "benchmarks/results/coverage.json"
    if not results.exists():
        pytest.skip("benchmarks/bench_coverage.py has not been run here")
    measured: dict[str, list[float]] = {}
    for cell in json.loads(results.read_text())["found"]:
        measured.setdefault(cell["interval"], []).append(cell["coverage"])
    for name, values in measured.items():
        (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)
        assert [float(cell) for cell in row.split("|") if cell.strip()] == [float(f"{value:.2f}") for value in values]


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def _command_lines(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [found[1] for line in lines if (found := re.match(r"(?:torchrun .*-m )?histokin (.*)", line))]


def _keys(value: object, prefix: str = "") -> set[str]:
    """Dotted keys of nested mappings."""
    if not isinstance(value, dict):
        return {prefix}
    return {key for name, item in value.items() for key in _keys(item, f"{prefix}.{name}" if prefix else name)}
