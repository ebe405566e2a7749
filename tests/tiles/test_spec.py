import dataclasses

import pytest

from histokin.errors import RecipeError
from histokin.tiles import TileSpec


def test_defaults_are_those_of_the_design() -> None:
    spec = TileSpec()
    assert (spec.tile_px, spec.mpp, spec.step_px, spec.min_tissue, spec.tile_um) == (256, 1.0, 256, 0.5, 256.0)
    assert str(spec) == "256 px at 1 µm/px (256 µm)"


def test_the_id_is_readable_and_changes_with_every_field() -> None:
    spec = TileSpec(224, 0.5, 112)
    assert spec.spec_id.startswith("0.5mpp-224px-112ov-")
    changes = {"tile_px": 225, "mpp": 0.5000001, "stride_px": 113, "min_tissue": 0.4, "is_given": True}
    assert changes.keys() == {f.name for f in dataclasses.fields(TileSpec)}
    ids = {dataclasses.replace(spec, **{name: value}).spec_id for name, value in changes.items()}
    assert len(ids | {spec.spec_id}) == 6


@pytest.mark.parametrize(
    "wrong",
    [{"tile_px": 7}, {"tile_px": -256}, {"mpp": 0.0}, {"mpp": -1.0}, {"mpp": float("nan")}, {"mpp": float("inf")},
     {"stride_px": -1}, {"min_tissue": -0.1}, {"min_tissue": 1.1}, {"min_tissue": float("nan")}],
)  # fmt: skip
def test_an_impossible_tiling_is_refused(wrong: dict) -> None:
    with pytest.raises(RecipeError, match="cannot be"):
        TileSpec(**wrong)
