"""Every golden value, gradient and hand case of the losses; a case that no function here answers fails."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from histokin.learn import losses
from histokin.learn.losses import SetRule, cluster_weights, select_exact

GOLDEN = json.loads((Path(__file__).parents[1] / "golden_methods.json").read_text(encoding="utf-8"))
# What other rooms answer for.
ELSEWHERE = {
    "bank_update", "queue", "lars", "ema_momentum", "spherical_kmeans", "rankme", "alignment", "uniformity",
    "feature_std",
}  # fmt: skip
HANDS_ELSEWHERE = ("rankme", "alignment", "uniformity", "sph_kmeans")
DESCRIPTION = {"id", "function", "inputs", "agreed", "rtol", "agreed_as_released"}
CASES = {case["id"]: case for case in GOLDEN["cases"] if case["function"] not in ELSEWHERE}


def chirp(n, d, s):
    i, j = np.mgrid[:n, :d]
    return torch.from_numpy(np.sin(0.37 * (i * d + j + 1.0) ** 2 + s))


class Inputs(dict):
    """A case's inputs: tensors where the JSON has a chirp, a formula or integers."""

    def __init__(self, raw, dtype):
        super().__init__({name: self.read(value, dtype) for name, value in raw.items()})

    def read(self, value, dtype):
        if isinstance(value, dict):
            return chirp(*value["chirp"]).to(dtype)
        if isinstance(value, str) and "chirp" in value:
            return eval(value, {"chirp": chirp}).to(dtype)
        if isinstance(value, str) and re.search(r"\bi\b", value):
            return eval(value, {"i": torch.arange(50)})
        if isinstance(value, list) and value and isinstance(value[0], (dict, str)):
            return [self.read(item, dtype) for item in value]
        if isinstance(value, list):
            return torch.tensor(value)
        return value

    def pick(self, *names):
        return [self[name] for name in names]


def nt_xent(x):
    if "ranks" not in x:
        return {"expected": losses.nt_xent(x["z1"], x["z2"], temperature=x["temperature"])}
    if "note" in x:  # wrong on purpose: what two ranks that do not gather would compute
        halves = zip(x["z1"].chunk(2), x["z2"].chunk(2), strict=True)
        return {"expected": sum(losses.nt_xent(a, b, temperature=x["temperature"]) for a, b in halves) / 2}
    gathered = [torch.cat(x[name].chunk(2)) for name in ("z1", "z2")]
    return {"expected": losses.nt_xent(*gathered, temperature=x["temperature"])}


def info_nce_queue(x):
    return {"expected": losses.info_nce_queue(*x.pick("q", "k", "queue"), temperature=x["temperature"]).loss}


def weights_of(x):
    if "cluster_q" in x:
        beta = {"1 - 0.75*[same cluster]": 0.75, "1 - [same cluster]": 1.0}[x["weights"]]
        return cluster_weights(x["cluster_q"], x["cluster_queue"], beta=beta)
    return torch.ones(len(x["q"]), len(x["queue"])) if isinstance(x["weights"], str) else x["weights"]


def weighted_info_nce(x):
    result = losses.weighted_info_nce(*x.pick("q", "k", "queue"), weights_of(x), temperature=x["temperature"])
    return {"expected": result.loss}


def group_info_nce(x):
    settings = {name: x[name] for name in ("clusters", "iterations", "temperature", "centroid")}
    loss, first, second = losses.group_info_nce(x["f1"], x["f2"], **settings)
    return {"expected": loss, "labels1": first, "labels2": second}


def pair_contrastive(x):
    settings = {name: x[name] for name in ("margin", "power", "normalise")}
    return {"expected": losses.pair_contrastive(x["a"], x["b"], x["near"].bool(), **settings).loss}


def npid_softmax(x):
    return {"expected": losses.npid_softmax(*x.pick("v", "bank", "index"), temperature=x["temperature"], chunk=7).loss}


def npid_nce(x):
    sample, temperature = x.pick("v", "bank", "index", "negatives"), x["temperature"]
    estimated = {}
    if x["Z"] == "first batch":
        estimated["Z"] = x["Z"] = losses.estimate_z(*sample, temperature=temperature)
    return {"expected": losses.npid_nce(*sample, temperature=temperature, Z=x["Z"], eps=x["eps"]).loss, **estimated}


def npid_sampled_ce(x):
    sample = x.pick("v", "bank", "index", "negatives")
    return {"expected": losses.npid_sampled_ce(*sample, temperature=x["temperature"]).loss}


def npid_proximal(x):
    return {"expected": losses.npid_proximal(*x.pick("v", "bank", "index"))}


def sgcl_sets(x):
    xy, same_slide = torch.stack(x["xy"], 1).double(), x["slide"][:, None] == x["slide"]
    near = same_slide & (torch.cdist(xy, xy) < x["distance"]) & ~torch.eye(50, dtype=torch.bool)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), near.sum(1).cumsum(0)])
    indices = near.nonzero()[:, 1].int()
    rule = SetRule(aux=x["aux"], nei_k=x["semantic_k"], hard_fraction=x["hard_fraction"])
    banks = x.pick("q", "backbone", "bank", "bank_backbone", "index")
    return select_exact(*banks, indptr, indices, torch.stack(x["clusters"]), ranks=x["hard_ranks"], rule=rule, chunk=13)


def sgcl_spatial(x):
    sets = sgcl_sets(x)
    terms = x["q"], x["bank"], sets.positives, sets.hard
    return {
        "expected": losses.sgcl_spatial(*terms, temperature=x["temperature"]).loss,
        "expected_as_released": losses.sgcl_spatial(*terms, temperature=x["temperature"], as_released=True).loss,
        "spatial_neighbours": sets.spatial,
        "aux": sets.auxiliary,
        "propagated": sets.propagated,
        "hard_clean": sets.hard,
    }


def sgcl_inner(x):
    terms = x.pick("q_local", "banks", "index", "negatives")
    return {"expected": losses.sgcl_inner(*terms, temperature=x["temperature"]).loss}


def sgcl_ramp(x):
    return {"expected": np.array([losses.sgcl_ramp(int(epoch), length=x["length"]) for epoch in x["epochs"]])}


def barlow_twins(x):
    loss, on, off = losses.barlow_twins(x["z1"], x["z2"], off_diagonal=x["lambd"], eps=x["eps"])
    return {"expected": loss, "on": on, "off": off}


def vicreg(x):
    settings = {"invariance": x["sim"], "variance": x["std"], "covariance": x["cov"], "eps": x["eps"]}
    loss, inv, var, cov = losses.vicreg(x["z1"], x["z2"], **settings)
    return {"expected": loss, "inv": inv, "var": var, "covariance": cov}


def byol(x):
    return {"expected": losses.byol(*x.pick("p1", "z2", "p2", "z1"))}


def simsiam(x):
    return {"expected": losses.simsiam(*x.pick("p1", "z2", "p2", "z1"))}


def dino(x):
    student, teacher = torch.stack(x["student"]), torch.stack(x["teacher"])
    temperatures = {"student_temperature": x["student_temp"], "teacher_temperature": x["teacher_temp"]}
    return {
        "expected": losses.dino(student, teacher, center=x["centre"], **temperatures).loss,
        "new_centre": losses.updated_center(x["centre"], teacher, momentum=x["centre_momentum"])[0],
    }


def koleo(x):
    return {"expected": losses.koleo(x["x"], eps=x["eps"])}


def kde(x):
    return {"expected": losses.kde(x["x"], kappa=x["kappa"], include_self=x["include_self"])}


def plain(value):
    """Padded sets as ragged lists, tensors as arrays."""
    if isinstance(value, torch.Tensor) and value.ndim == 2:
        return [[item for item in row if item >= 0] for row in value.tolist()]
    return value.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case_id", CASES)
def test_a_golden_case_and_all_its_further_keys(case_id, dtype):
    case = CASES[case_id]
    results = globals()[case["function"]](Inputs(case["inputs"], dtype))
    asked = set(case) - DESCRIPTION
    assert asked <= set(results)  # a key that nothing is compared with is a hole
    for key in asked:
        expected, got = case[key], plain(results[key])
        rel = (1e-6 if key == "expected_as_released" else 1e-9) if dtype == torch.float64 else 1e-5
        if isinstance(expected, list) and isinstance(expected[0], (list, int)):
            assert got == expected, key
        else:
            np.testing.assert_allclose(got, expected, rtol=rel, atol=0, err_msg=key)


def test_every_case_is_answered_here_or_known_to_be_elsewhere():
    functions = {case["function"] for case in GOLDEN["cases"]}
    assert {name for name in functions - ELSEWHERE if name not in globals()} == set()
    assert functions >= ELSEWHERE
    assert len(CASES) == 51


def spatial_gradient(q):
    raw = CASES["sgcl_spatial"]["inputs"]
    sets = sgcl_sets(Inputs(raw, q.dtype))
    return losses.sgcl_spatial(q, chirp(50, 5, 6).to(q.dtype), sets.positives, sets.hard, temperature=0.5).loss


def npid_gradient(v):
    x = Inputs(CASES["npid_softmax_t0.07"]["inputs"], v.dtype)
    return losses.npid_softmax(v, x["bank"], x["index"], temperature=0.07, chunk=6).loss


def dino_gradient(first_view):
    x = Inputs(CASES["dino"]["inputs"], first_view.dtype)
    student = torch.stack([first_view, *x["student"][1:]])
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.04}
    return losses.dino(student, torch.stack(x["teacher"]), center=x["centre"], **temperatures).loss


def group_gradient(f1, *, detach):
    second = (chirp(12, 5, 0) + 0.3 * chirp(12, 5, 4)).to(f1.dtype)
    return losses.group_info_nce(f1, second, clusters=4, iterations=5, temperature=0.4, detach=detach).loss


NEAR = torch.tensor([1, 0, 1, 0, 1, 0]).bool()
A, X1 = (6, 5, 0), (12, 5, 0)


def second_of(a):
    return chirp(6, 5, 1).to(a.dtype)


def queue_of(a):
    return chirp(8, 5, 2).to(a.dtype)


GRADIENTS = {
    "ntxent t=0.5 wrt A": (A, lambda a: losses.nt_xent(a, second_of(a), temperature=0.5)),
    "ntxent t=0.07 wrt A": (A, lambda a: losses.nt_xent(a, second_of(a), temperature=0.07)),
    "infonce_queue t=0.2 wrt A": (
        A,
        lambda a: losses.info_nce_queue(a, second_of(a), queue_of(a), temperature=0.2).loss,
    ),
    "weighted_infonce formula t=0.2 wrt A": (
        A,
        lambda a: (
            losses.weighted_info_nce(a, second_of(a), queue_of(a), 1 + 0.5 * chirp(6, 8, 3), temperature=0.2).loss
        ),
    ),
    "cld K=4 iters=5 t=0.4 wrt X1 (through centroids)": (X1, lambda a: group_gradient(a, detach=False)),
    "cld same, centroids and labels detached": (X1, lambda a: group_gradient(a, detach=True)),
    "siamese linear m=2 wrt A": (
        A,
        lambda a: losses.pair_contrastive(a, second_of(a), NEAR, margin=2, power=1, normalise=False).loss,
    ),
    "siamese squared m=2 wrt A": (
        A,
        lambda a: losses.pair_contrastive(a, second_of(a), NEAR, margin=2, power=2, normalise=False).loss,
    ),
    "npid softmax t=0.07 wrt A": (A, npid_gradient),
    "barlow wrt A": (A, lambda a: losses.barlow_twins(a, second_of(a)).loss),
    "vicreg wrt A": (A, lambda a: losses.vicreg(a, second_of(a)).loss),
    "kde kappa=5 wrt A": (A, losses.kde),
    "koleo wrt A": (A, losses.koleo),
    "dino wrt first student view": ((3, 7, 0), dino_gradient),
    "sgcl_spatial clean T=0.5 wrt q": ((4, 5, 8), spatial_gradient),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", GOLDEN["gradients"])
def test_golden_gradients(name, dtype):
    shape, function = GRADIENTS[name]
    features = chirp(*shape).to(dtype).requires_grad_()
    function(features).backward()
    expected, rel = GOLDEN["gradients"][name], 1e-8 if dtype == torch.float64 else 1e-4
    np.testing.assert_allclose(features.grad.norm(), expected["norm"], rtol=rel)
    np.testing.assert_allclose(features.grad[0], expected["first_row"], rtol=rel, atol=rel * expected["norm"])


E3, ZERO = torch.eye(3).double(), torch.tensor([0])
SQUARE = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
LINE = torch.tensor([[1.0, 1], [-1, -1]]).double()
PAIR = torch.zeros(2, 2).double(), torch.tensor([[3.0, 4], [3, 4]]).double(), torch.tensor([True, False])
I2 = torch.eye(2).double()


def pair_by_hand(power):
    return losses.pair_contrastive(*PAIR, margin=6, power=power, normalise=False).loss


def spatial_by_hand(as_released):
    sets = torch.tensor([[0]]), torch.tensor([[1]])
    return losses.sgcl_spatial(E3[:1], E3, *sets, temperature=1, as_released=as_released).loss


HANDS = {
    "ntxent I2/I2 t=1": lambda: losses.nt_xent(I2, I2, temperature=1),
    "ntxent I2/I2 t=0.5": lambda: losses.nt_xent(I2, I2, temperature=0.5),
    "infonce q=k=e1, queue=[e2,e3] t=1": lambda: losses.info_nce_queue(E3[:1], E3[:1], E3[1:], temperature=1).loss,
    "weighted q=k=e1, queue=[e2,e3], w=[0.5,0] t=1": lambda: (
        losses.weighted_info_nce(E3[:1], E3[:1], E3[1:], torch.tensor([[0.5, 0]]), temperature=1).loss
    ),
    "cld 4 pts 2 clusters, both views same, t=1": lambda: (
        losses.group_info_nce(I2.repeat(2, 1), I2.repeat(2, 1), clusters=2, iterations=3, temperature=1).loss
    ),
    "siamese linear d=[5,5], y=[1,0], m=6": lambda: pair_by_hand(1),
    "siamese squared same": lambda: pair_by_hand(2),
    "npid softmax v=e1, bank=I3, idx 0, t=1": lambda: losses.npid_softmax(E3[:1], E3, ZERO, temperature=1).loss,
    "npid nce v=e1 bank=I3 idx0 neg=[1] t=1 Z=3 eps=0": lambda: (
        losses.npid_nce(E3[:1], E3, ZERO, torch.tensor([[1]]), temperature=1, Z=3, eps=0).loss
    ),
    "barlow a=b=[[1,1],[1,-1],[-1,1],[-1,-1]] eps=0": lambda: losses.barlow_twins(SQUARE, SQUARE, eps=0).loss,
    "barlow a=[[1,1],[-1,-1]] b=same eps=0": lambda: losses.barlow_twins(LINE, LINE, eps=0).loss,
    "vicreg a=b=[[1,1],[-1,-1]]": lambda: losses.vicreg(LINE, LINE).loss,
    "byol p=z": lambda: torch.stack([losses.byol(I2, I2, I2, I2), losses.byol(I2, I2.flip(0), I2, I2.flip(0))]),
    "simsiam p=z": lambda: losses.simsiam(I2, I2, I2, I2),
    "dino all-zero logits K=4": lambda: (
        losses.dino(
            torch.zeros(3, 2, 4).double(),
            torch.zeros(2, 2, 4),
            center=torch.zeros(4),
            student_temperature=0.1,
            teacher_temperature=0.04,
        ).loss
    ),
    "koleo e1,e2": lambda: losses.koleo(I2),
    "kde I2 kappa=1 self": lambda: losses.kde(I2, kappa=1),
    "kde collapsed kappa=1": lambda: losses.kde(torch.ones(4, 3).double(), kappa=1),
    "sgcl_spatial q=e1 bank=I3 positives {0} hard {1} t=1": lambda: spatial_by_hand(as_released=False),
    "same, as released (N=3)": lambda: spatial_by_hand(as_released=True),
    "sgcl_inner B=1, 4 locals = e1 = positives, one negative index e2 per bank, t=1": lambda: (
        losses.sgcl_inner(E3[:1].repeat(4, 1), [E3] * 4, ZERO, torch.tensor([[1, 1, 1, 1]]), temperature=1).loss
    ),
}


@pytest.mark.parametrize("hand", GOLDEN["hand"], ids=lambda hand: hand["case"])
def test_hand_cases(hand):
    if hand["case"].startswith(HANDS_ELSEWHERE):
        assert hand["case"] not in HANDS
        return
    # KoLeo and "as released" carry constants of 1e-8 and 1e-7 that the closed forms leave out.
    rel = 3e-7 if hand["case"].startswith(("koleo", "same, as")) else 1e-9
    np.testing.assert_allclose(HANDS[hand["case"]]().numpy(), hand["expected"], rtol=rel, atol=1e-11)


def test_no_hand_case_is_answered_twice_or_unknown():
    assert set(HANDS) == {h["case"] for h in GOLDEN["hand"] if not h["case"].startswith(HANDS_ELSEWHERE)}
    assert set(GRADIENTS) == set(GOLDEN["gradients"])


def test_the_generator_is_the_references():
    np.testing.assert_allclose(chirp(2, 3, 0), GOLDEN["generator_check"]["chirp(2,3,0)"], rtol=1e-13)
    assert math.isclose(CASES["ntxent_t1.0"]["expected"], 2.037021708, rel_tol=1e-9)
