"""Numbers of parameters: the authors' classes, counted, and the formulas of their layers."""

import pytest
import torch

from histokin.errors import RecipeError
from histokin.mil import MODELS, Classes, MultiLabel, Regression, build_model

TWO, THREE, ONE = Classes(2), Classes(3), MultiLabel(1)
DSMIL = {"hidden": ()}

# Of mahmoodlab/CLAM 53e2409, AMLab-Amsterdam/AttentionDeepMIL eb0434b, binli123/dsmil-wsi 80465ed, szc19990412/TransMIL
# 9d6aee5, dazhangyu123/ACMIL: D = 512, 768, 1024, 2048 with two outputs, and D = 1024 with three.
TABLE = [
    ("mean", {}, (1026, 1538, 2050, 4098, 3075)),
    ("max", {}, (263_682, 394_754, 525_826, 1_050_114, 526_339)),
    ("abmil", {"attention": 128}, (395_139, 526_211, 657_283, 1_181_571, 657_796)),
    ("abmil", {"attention": 128, "gated": False}, (329_475, 460_547, 591_619, 1_115_907, 592_132)),
    ("abmil", {}, (526_595, 657_667, 788_739, 1_313_027, 789_252)),
    ("abmil", {"attention": 384}, (658_051, 789_123, 920_195, 1_444_483, 920_708)),
    ("clam_sb", {}, (528_647, 659_719, 790_791, 1_315_079, 792_330)),
    ("clam_sb", {"gated": False}, (397_319, 528_391, 659_463, 1_183_751, 661_002)),
    ("clam_sb", {"attention": 384}, (660_103, 791_175, 922_247, 1_446_535, 923_786)),
    ("clam_mb", {}, (528_904, 659_976, 791_048, 1_315_336, 792_844)),
    ("clam_mb", {"attention": 384}, (660_488, 791_560, 922_632, 1_446_920, 924_556)),
    ("dsmil", DSMIL, (85_252, 119_556, 153_860, 291_076, 160_006)),
    ("dsmil", DSMIL | {"query": "linear"}, (68_740, 103_044, 137_348, 274_564, 143_494)),
    ("dsmil", DSMIL | {"passing_v": True}, (347_908, 710_148, 1_203_460, 4_487_428, 1_209_606)),
    ("transmil", {}, (2_410_002, 2_541_074, 2_672_146, 3_196_434, 2_672_659)),
    ("acmil", {}, (400_273, None, 662_417, 1_186_705, None)),
]
COLUMNS = [(512, TWO), (768, TWO), (1024, TWO), (2048, TWO), (1024, THREE)]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "options", "row"), TABLE)
def test_equals_the_authors_class(name, options, row):
    with torch.device("meta"):  # sizes without values
        built = [
            None if number is None else count(build_model(name, dim=dim, objective=objective, seed=0, **options))
            for number, (dim, objective) in zip(row, COLUMNS, strict=True)
        ]
    assert tuple(built) == row


@pytest.mark.parametrize(("dim", "number"), [(512, 83_202), (1024, 149_762)])
def test_dsmil_with_one_output_equals_the_authors_class(dim, number):
    assert count(build_model("dsmil", dim=dim, objective=ONE, preset="faithful", seed=0)) == number


@pytest.mark.parametrize(("dim", "number"), [(512, 82_434), (768, 115_202), (1024, 147_970), (2048, 279_042)])
def test_the_second_stage_of_mil_rnn_equals_the_authors_class(dim, number):
    assert count(build_model("mil_rnn", dim=dim, objective=TWO, seed=0).aggregator) == number


@pytest.mark.parametrize(
    ("dim", "hidden", "attention", "before", "plain", "gated"),
    [
        (166, (256, 128, 64), 64, 0, 88_194, 92_354),
        (230, (256, 128, 64), 64, 0, 104_578, 108_738),
        (800, (500,), 128, 25_570, 490_828, 554_956),  # MNIST bags: two convolutions before
        (1200, (512, 512), 128, 17_364, 961_238, 1_026_902),  # colon nuclei: two convolutions before
    ],
)
def test_abmil_with_one_output_equals_the_networks_of_the_classic_data(dim, hidden, attention, before, plain, gated):
    options = {"dim": dim, "objective": ONE, "hidden": hidden, "attention": attention, "seed": 0}
    assert before + count(build_model("abmil", gated=False, **options)) == plain
    assert before + count(build_model("abmil", gated=True, **options)) == gated


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    for name in MODELS:
        first, again, other = (build_model(name, dim=8, objective=TWO, seed=seed).state_dict() for seed in (3, 3, 4))
        assert all(first[key].equal(again[key]) for key in first), name
        assert not all(first[key].equal(other[key]) for key in first), name


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("abml", {}, "no such model. Did you mean abmil"),
        ("abmil", {"preset": "authors"}, "no preset 'authors'. Known: default, faithful"),
        ("abmil", {"atention": 3}, "no option 'atention'. Did you mean attention"),
        ("abmil", {"activation": "tanh"}, "no activation 'tanh'. Known: gelu, relu"),
        ("max", {"rule": "best"}, "rule 'best'"),
        ("max", {"preset": "faithful", "objective": Regression()}, "Use it with Classes"),
        ("clam_sb", {"instance_loss": "hinge"}, "instance_loss='hinge'"),
        ("dsmil", {"query": "deep"}, "query='deep'"),
        ("dsmil", {"loss": "bce", "objective": Regression()}, "binary cross-entropy needs classes"),
        ("transmil", {"width": 100}, "width 100 and 8 heads"),
        ("mil_rnn", {"objective": Regression()}, "ranked by a probability"),
        ("mil_rnn", {"negative": 2}, "one of 2 classes"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_with_a_remedy(name, options, match):
    with pytest.raises(RecipeError, match=match):
        build_model(name, **{"dim": 8, "objective": TWO, "seed": 0, **options})
