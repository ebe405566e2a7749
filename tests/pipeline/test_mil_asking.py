"""What can be asked of slide classifiers, and what is refused before anything is read."""

import pytest

from histokin.errors import RecipeError
from histokin.mil.training import MilSpec, faithful_spec
from histokin.pipeline.mil import MilRequest, spec_of


def test_settings_are_typed_and_go_before_the_presets_own() -> None:
    found = spec_of(
        "clam_sb",
        "faithful",
        ["lr=1e-3", "patience=none", "balance=none", "options.k=4", "options.hidden=[64, 32]", "tile_cap=100"],
        epochs=7,
        n_folds=None,
    )
    assert found == faithful_spec(
        "clam_sb",
        lr=0.001,
        patience=None,
        balance="none",
        options={"k": 4, "hidden": (64, 32)},
        tile_cap=100,
        epochs=7,
    )
    assert spec_of("mean", settings=["weight_decay=1"]) == MilSpec(model="mean", weight_decay=1.0)


@pytest.mark.parametrize(
    ("model", "setting", "sentence"),
    [
        ("abmill", "lr=1", r"there is no such model. Did you mean abmil\?"),
        ("abmil", "epoch=1", r"there is no key 'epoch'. Did you mean epochs\?"),
        ("abmil", "epochs=many", "'many' is no int"),
        ("abmil", "epochs=1.5", "1.5 is no int"),
        ("abmil", "lr=true", "True is no float"),
        ("abmil", "batch=none", "'none' is no int"),
        ("abmil", "balance=sometimes", "Known: weights, sampler, none"),
        ("abmil", "model=mean", "there is no key 'model'"),
        ("abmil", "lr", "a setting is key=value"),
        ("abmil", "lr=[", "is no value"),
        ("abmil", "lr=-1", "lr must be > 0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(model: str, setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        spec_of(model, settings=[setting])


@pytest.mark.parametrize(
    ("label", "target", "n"),
    [
        ("", "classes", 0),
        ("a,b", "classes", 2),
        ("time", "survival", 1),
        ("a,b,c", "survival", 3),
        ("", "multilabel", 0),
    ],
)
def test_a_target_needs_its_number_of_columns(label: str, target: str, n: int) -> None:
    with pytest.raises(RecipeError, match=f"{n} columns are named for {target}"):
        MilRequest(label, target)  # pyright: ignore[reportArgumentType]
    assert MilRequest("a, b", "multilabel").columns == ("a", "b")
