"""Reading weights files safely, and fitting their keys to a network's."""

import argparse
import collections
import pathlib
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from histokin.encoders import build_network
from histokin.encoders.card import weights_digest
from histokin.encoders.weights import KeyMap, fit_weights, read_weights
from histokin.errors import EncoderError

TINY = {"channels": (8, 8, 16, 24), "stem_width": 8, "layers": (1, 1, 1, 1)}


@pytest.mark.parametrize("prefix", ["", "module.", "encoder_q.", "model.resnet.", "backbone.", "module.encoder_q."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_published_layouts_of_weights_files_load_exactly(tmp_path, network, tiles, prefix, suffix):
    state = {prefix + key: value.contiguous() for key, value in network.state_dict().items()}
    state[prefix + "fc.weight"] = torch.zeros(2, 24)
    if prefix:
        state["queue"] = torch.zeros(4, 24)  # beside the network: unused
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 7}, path)
    else:
        save_file(state, path)
    loaded = build_network("resnet10t", TINY, seed=99, weights=path)
    assert weights_digest(loaded.state_dict()) == weights_digest(network.state_dict())


def test_a_key_that_holds_a_prefix_inside_its_name_is_not_damaged():
    wanted = {"a.model.b": torch.ones(1), "c": torch.ones(1)}
    fitted = fit_weights({f"model.{k}": v * 2 for k, v in wanted.items()}, wanted, where="x")
    assert {k: float(v) for k, v in fitted.state.items()} == {"a.model.b": 2.0, "c": 2.0}


def test_weights_of_another_network_are_refused_with_the_keys_named(tmp_path, network):
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    with pytest.raises(EncoderError, match=r"missing \(.*layer1\.0.*of another shape|missing \(") as caught:
        build_network("resnet18", seed=0, weights=path)
    assert "encoder-weights-mismatch" in str(caught.value)
    wider = {**TINY, "channels": (8, 8, 16, 32)}
    with pytest.raises(EncoderError, match=r"of another shape \(layer4.*\(24,\) instead of \(32,\)"):
        build_network("resnet10t", wider, seed=0, weights=path)


def test_left_over_weights_are_refused(network):
    wanted = network.state_dict()
    with pytest.raises(EncoderError, match=r"1 left over \(layer9\.weight\)"):
        fit_weights({**wanted, "layer9.weight": torch.ones(1)}, wanted, where="x")


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    path = tmp_path / "evil.pth"

    class Evil:
        def __reduce__(self):
            return (path.with_suffix(".ran").touch, ())

    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(EncoderError, match="cannot be read safely"):
        read_weights(path)
    assert not path.with_suffix(".ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights_files_are_errors(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match="cannot be read safely"):
        read_weights(path)


@pytest.fixture
def framework(monkeypatch):
    """Classes of a training framework that is not there when the file is read."""
    made = {}
    for name, kind in (("callbacks.Checkpoint", object), ("parsing.AttributeDict", dict)):
        module, _, plain = f"pytorch_lightning.{name}".rpartition(".")
        for part in ("pytorch_lightning", module):
            if part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        made[plain] = type(plain, (kind,), {"__module__": module, "__qualname__": plain})
        setattr(sys.modules[module], plain, made[plain])
    return made


def test_what_a_training_framework_saved_beside_the_tensors_is_passed_over(tmp_path, framework, monkeypatch):
    callback = framework["Checkpoint"]()
    callback.best = 0.5
    content = {
        "state_dict": collections.OrderedDict(a=torch.arange(3.0), b=torch.ones(2, 2)),
        "callbacks": {framework["Checkpoint"]: {"best": np.float64(3.5)}},
        "hyper_parameters": framework["AttributeDict"](lr=0.1, ns=argparse.Namespace(p=pathlib.PurePosixPath("a"))),
        "callback": callback,
        "counts": collections.defaultdict(list, {1: [2]}),
        "array": np.arange(4),
        "epoch": 7,
    }
    torch.save(content, tmp_path / "w.ckpt")
    for name in [name for name in sys.modules if name.startswith("pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)
    found = read_weights(tmp_path / "w.ckpt")
    assert {key: value.tolist() for key, value in found.items()} == {"a": [0, 1, 2], "b": [[1, 1], [1, 1]]}
    assert "pytorch_lightning" not in sys.modules
    allowed = {f"{kind.__module__}.{kind.__qualname__}" for kind in torch.serialization.get_safe_globals()}
    assert not any(name.startswith(("pytorch_lightning", "argparse", "numpy")) for name in allowed)


def test_a_pickle_that_hides_code_behind_an_allowed_name_runs_none(tmp_path):
    path = tmp_path / "evil.pth"

    class Evil:
        def __reduce__(self):
            return (np.save, (path.with_suffix(".ran"), 1))

    torch.save({"state_dict": {"a": torch.ones(1)}, "callback": Evil()}, path)
    assert list(read_weights(path)) == ["a"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__], ids=repr)
def test_a_pickle_that_names_other_code_is_refused_with_the_name(tmp_path, function):
    class Evil:
        def __reduce__(self):
            return (function, ("1",))

    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Evil()}, tmp_path / "w.pth")
    with pytest.raises(
        EncoderError, match=rf"cannot be read safely \(.*{function.__name__}.*Convert it where you trust it"
    ):
        read_weights(tmp_path / "w.pth")


WANTED = {"a.weight": torch.ones(2), "b.bias": torch.ones(1)}


def test_a_known_layout_takes_its_prefix_and_drops_only_what_it_names():
    keys = KeyMap(prefixes=("q.", ""), heads=("fc.",), beside=("queue",))
    given = {f"q.{key}": value * 2 for key, value in WANTED.items()}
    given |= {"q.fc.weight": torch.ones(1), "queue": torch.ones(1), "queue_ptr": torch.ones(1)}
    fitted = fit_weights(given, WANTED, where="x", keys=keys)
    assert {key: value.tolist() for key, value in fitted.state.items()} == {"a.weight": [2, 2], "b.bias": [2]}
    assert "2 tensors taken, prefix 'q.' stripped, 3 unused" in fitted.sentence


def test_a_known_layout_may_be_wrapped_for_parallel_training():
    keys = KeyMap(prefixes=("q.",), heads=("fc.",), beside=("queue", "k."))
    given = {f"module.q.{key}": value for key, value in WANTED.items()}
    given |= {key: torch.ones(1) for key in ("module.q.fc.weight", "module.queue", "module.k.a.weight")}
    assert "prefix 'module.q.' stripped, 3 unused" in fit_weights(given, WANTED, where="x", keys=keys).sentence


@pytest.mark.parametrize(
    "extra", ["q.head.weight", "k.a.weight", "fc.weight", "q.queue", "module.queue2.x", "other"], ids=str
)
def test_a_known_layout_refuses_what_it_does_not_name(extra):
    keys = KeyMap(prefixes=("q.",), heads=("fc.",), beside=("queue.",))
    given = {f"q.{key}": value for key, value in WANTED.items()} | {extra: torch.ones(1)}
    with pytest.raises(EncoderError, match=rf"1 left over \({extra.removeprefix('q.')}\)"):
        fit_weights(given, WANTED, where="x", keys=keys)


def test_a_known_layout_knows_no_other_prefix():
    given = {f"net.{key}": value for key, value in WANTED.items()}
    with pytest.raises(EncoderError, match=r"2 missing \(a\.weight, b\.bias\); 2 left over \(net\.a\.weight"):
        fit_weights(given, WANTED, where="x", keys=KeyMap(prefixes=("", "q.")))


def test_counters_of_batch_norm_may_be_missing():
    wanted = {**WANTED, "bn.num_batches_tracked": torch.tensor(5)}
    assert len(fit_weights(WANTED, wanted, where="x", keys=KeyMap(prefixes=("",))).state) == 3
