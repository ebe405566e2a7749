"""The models against golden_mil.json: a NumPy float64 implementation that was compared with the authors' classes.

Parameter t of the listed order, flat index q, is s sin(1 + 3t + 0.61q), s = 0.3 for weights, 0.1 for biases; gains are
1 + 0.1 sin. Bag b is cos(0.5 + 0.9n + 0.23d + 1.3b)(1 + 0.05n).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from histokin.mil import Classes, MultiLabel, PackedBags, build_model
from histokin.mil.models.max import most_probable
from histokin.mil.models.nystrom import NystromAttention
from histokin.mil.models.rnn import most_suspicious

STORED = json.loads((Path(__file__).parent / "golden_mil.json").read_text(encoding="utf-8"))
GOLDEN, ORDER = STORED["golden"], STORED["meta"]["param_order"]
D, H, A, N = 6, 5, 4, 7

# The file's names of the parameters and the models' own, by the start of the name; the rest is W -> weight, b -> bias.
EMBED = {"fc": "embed.0", "cls": "head"}
ATTENTION = EMBED | {"V": "attention.V", "U": "attention.U", "w": "attention.w"}
CLAM = ATTENTION | {f"inst{c}": f"instance.{c}" for c in range(3)}
NAMES = {
    "mean": {"cls": "head"},
    "max": EMBED,
    "abmil": ATTENTION,
    "clam": CLAM,
    "dsmil": {"inst": "tile_head", "q1": "query.0", "q2": "query.2", "fcc": "bag_head"},
    "rnn": {"fc1": "aggregator.fc1", "fc2": "aggregator.fc2", "fc3": "aggregator.fc3"},
    "tile": {"fc": "tile_head.0.0", "cls": "tile_head.1"},
    "nystrom": {"qkv": "qkv", "out": "out", "conv": "conv"},
    "transmil": {"fc": "embed.0", "cls": "class_token", "head": "head", "ln": "norm"}
    | {f"p{k}": f"ppeg.dw{k}" for k in (3, 5, 7)}
    | {f"l{i}.ln": f"norm{i}" for i in (1, 2)}
    | {f"l{i}.{part}": f"attention{i}.{part}" for i in (1, 2) for part in ("qkv", "out", "conv")},
}


def bag(b=0, n=N, d=D):
    rows, columns = np.mgrid[:n, :d]
    return torch.from_numpy(np.cos(0.5 + 0.9 * rows + 0.23 * columns + 1.3 * b) * (1 + 0.05 * rows))


def bags(*sizes):
    return PackedBags.of([bag(b, n) for b, n in enumerate(sizes)])


def set_weights(module, order, names):
    own = dict(module.named_parameters())
    for t, (key, shape, kind) in enumerate(ORDER[order]):
        wave = np.sin(1 + 3 * t + 0.61 * np.arange(np.prod(shape)))
        values = 1 + 0.1 * wave if kind == "g" else {"w": 0.3, "b": 0.1}[kind] * wave
        part, _, leaf = key.rpartition(".")
        name = names[part or leaf] + {"W": ".weight", "g": ".weight", "b": ".bias"}.get(leaf if part else "", "")
        parameter = own.pop(name)
        parameter.data = torch.from_numpy(values).reshape(parameter.shape)
        assert np.prod(shape) == parameter.numel()
    return own


def build(name, order, names, objective, **options):
    model = build_model(name, dim=D, objective=objective, seed=0, **options).double().eval()
    assert not set_weights(model, order, NAMES[names]), "every parameter is set"
    return model


def close(got, expected, tolerance=1e-9):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    expected = np.asarray(expected, dtype=np.float64)
    assert got.shape == expected.shape
    assert (np.abs(got - expected) <= tolerance * np.maximum(1, np.abs(expected))).all(), (got, expected)


@pytest.mark.parametrize("C", [2, 3])
def test_mean(C):
    output = build("mean", f"mean_logistic_C{C}", "mean", Classes(C))(bags(N))
    close(output.logits[0], GOLDEN[f"mean_logistic_C{C}"]["logits"])


@pytest.mark.parametrize("C", [2, 3])
def test_max_by_class_and_by_the_rules_of_clams_repository(C):
    golden = GOLDEN[f"max_pool_C{C}"]
    output = build("max", f"max_pool_C{C}", "max", Classes(C), hidden=(H,))(bags(N))
    close(output.tile_logits, golden["instance_logits"])
    close(output.logits[0], golden["bag_logits_classwise_max"])
    rule = "binary" if C == 2 else "mc"
    faithful = build("max", f"max_pool_C{C}", "max", Classes(C), hidden=(H,), preset="faithful")(bags(N))
    close(faithful.logits[0], golden[f"clam_milfc_{rule}_logits"])
    assert most_probable(faithful.tile_logits, bags(N)).tolist() == [golden[f"clam_milfc_{rule}_top"]]


@pytest.mark.parametrize("kind", ["plain", "gated"])
def test_abmil(kind):
    model = build("abmil", f"abmil_{kind}", "abmil", Classes(2), hidden=(H,), attention=A, gated=kind == "gated")
    output, golden = model(bags(N)), GOLDEN[f"abmil_{kind}"]
    close(output.attention.T, golden["raw"])
    close(output.weights.T, golden["weights"])
    close(output.slide_embedding, golden["bag"])
    close(output.logits[0], golden["logits"])


def test_abmil_of_one_tile_and_of_several_bags():
    model = build("abmil", "abmil_gated", "abmil", Classes(2), hidden=(H,), attention=A)
    one = model(PackedBags.of([bag(0, 1)]))
    close(one.weights.T, GOLDEN["abmil_gated_one_tile"]["weights"])
    close(one.logits[0], GOLDEN["abmil_gated_one_tile"]["logits"])
    close(model(bags(7, 1, 12)).logits, GOLDEN["abmil_gated_batch_7_1_12"]["logits"])


def clam(name, C, case, **options):
    kind = {"hidden": (H,), "attention": A, "k": 2, "subtyping": "_sub_" in case}
    loss = {"instance_loss": "svm" if case.endswith("svm") else "ce"}
    return build(name, f"{name}_C{C}", "clam", Classes(C), **kind, **loss, **options)


CLAM_CASES = [
    (name, C, case) for name in ("clam_sb", "clam_mb") for C in (2, 3) for case in GOLDEN[f"{name}_C{C}"]["cases"]
]


@pytest.mark.parametrize(("name", "C", "case"), CLAM_CASES)
def test_clam(name, C, case):
    golden = GOLDEN[f"{name}_C{C}"]
    model, label = clam(name, C, case), int(case[1])
    output = model(bags(N), torch.tensor([label]))
    close(output.attention.T, golden["raw_attention"])
    close(output.logits[0], golden["logits"])
    expected = golden["cases"][case]
    close(output.losses["bag"] / 0.7, expected["bag_loss"])
    close(output.losses["instance"] / 0.3, expected["instance_loss"])
    close(output.loss, expected["total"])
    for c, ids in expected["ids"].items():
        scores = output.attention[:, int(c) % output.attention.shape[1]]
        top, bottom = model.extremes(scores, both=int(c) == label)
        assert (top.tolist(), bottom.tolist()) == (ids["top"], ids.get("bottom", []))


@pytest.mark.parametrize("n", [1, 3])
def test_clam_of_fewer_tiles_than_both_ends_need(n):
    golden = GOLDEN[f"clam_sb_C2_small_bag_N{n}_y1_sub_svm_k2"]
    model = clam("clam_sb", 2, "y1_sub_svm")
    output = model(PackedBags.of([bag(0, n)]), torch.tensor([1]))
    close(output.logits[0], golden["logits"])
    close(output.losses["instance"] / 0.3, golden["instance_loss"])
    for c, ids in golden["ids"].items():
        top, bottom = model.extremes(output.attention[:, 0], both=c == "1")
        assert (top.tolist(), bottom.tolist()) == (ids["top"], ids.get("bottom", []))


@pytest.mark.parametrize("C", [1, 2])
def test_dsmil(C):
    golden = GOLDEN[f"dsmil_C{C}_y1"]
    objective, target = (MultiLabel(1), torch.ones(1, 1)) if C == 1 else (Classes(2), torch.tensor([1]))
    model = build("dsmil", f"dsmil_C{C}", "dsmil", objective, query_dim=A, preset="faithful")
    output = model(bags(N), target)
    close(output.tile_logits, golden["instance_logits"])
    assert output.tile_logits.argmax(0).tolist() == golden["critical"]
    close(output.weights, golden["attention"])
    close(output.slide_embedding, np.reshape(golden["bag_vectors"], (1, -1)))
    close(output.logits[0], golden["bag_logits"])
    close(output.tile_logits.amax(0), golden["max_logits"])
    close(output.losses["bag"] / 0.5, golden["bce_bag"])
    close(output.losses["max"] / 0.5, golden["bce_max"])
    close(output.loss, golden["loss"])
    both = build("dsmil", f"dsmil_C{C}", "dsmil", MultiLabel(C), query_dim=A, preset="faithful", logits="mean")
    close(MultiLabel(C).predict(both(bags(N)).logits)[0], golden["prob_average"])


def test_mil_rnn():
    golden = GOLDEN["mil_rnn_s3"]
    model = build_model("mil_rnn", dim=D, objective=Classes(2), hidden=(H,), steps=3, state=4, seed=0).double().eval()
    rest = set_weights(model, "max_pool_C2", NAMES["tile"])
    assert set(rest) == set(dict(model.aggregator.named_parameters(prefix="aggregator")))
    set_weights(model, "mil_rnn", NAMES["rnn"])
    output = model(bags(N))
    suspicion = model.suspicion(output.tile_logits)
    close(suspicion.sigmoid(), golden["tile_prob"])
    rows, counts = most_suspicious(suspicion, bags(N), 3)
    assert (rows.tolist(), counts.tolist()) == ([golden["order"]], [3])
    for t, logits in enumerate(golden["logits_each_step"], start=1):
        close(model.aggregator(bag()[rows], torch.tensor([t]))[0][0], logits)
    close(output.logits[0], golden["logits_each_step"][-1])
    close(output.slide_embedding[0], golden["state"])


def transmil(preset):
    return build("transmil", "transmil", "transmil", Classes(2), width=16, landmarks=8, preset=preset)


@pytest.mark.parametrize("n", [1, 2, 7, 9, 20])
def test_faithful_transmil(n):
    close(transmil("faithful")(PackedBags.of([bag(0, n)])).logits[0], GOLDEN[f"transmil_N{n}"]["logits"])


def test_faithful_transmil_depends_on_the_order_of_tiles():
    output = transmil("faithful")(PackedBags.of([bag(0, 20).roll(10, 0)]))
    close(output.logits[0], GOLDEN["transmil_N20_permuted_by_roll10"]["logits"])


@pytest.mark.parametrize("n", [1, 7, 20])
def test_default_transmil(n):
    close(transmil("default")(PackedBags.of([bag(0, n)])).logits[0], GOLDEN[f"transmil_default_N{n}"]["logits"])


def nystrom(heads, **options):
    attention = NystromAttention(4, heads=heads, landmarks=4, **options).double().eval()
    assert not set_weights(attention, "nystrom" if heads == 2 else "nystrom_1head", NAMES["nystrom"])
    return attention(bag(2, 10, 4))[0]


def test_nystrom_attention_of_one_head():
    close(nystrom(1), GOLDEN["nystrom_masked_n10_d4_h1_m4"])


def test_nystrom_attention_of_two_heads_with_and_without_the_padding_in_the_softmax():
    golden = GOLDEN["nystrom_n10_d4_h2_m4"]
    close(nystrom(2), golden["batch_free_pinv_masked"])
    close(nystrom(2, per_head=False), golden["masked_padding"])
    close(nystrom(2, is_padded=True, per_head=False), golden["unmasked_zero_padding"])
