"""`torchrun ... -m histokin pretrain`: two processes on this host do what one does, killed or not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from program import ENVIRONMENT, histokin, leftovers, tree

from histokin.artefacts import read_lines
from histokin.pipeline.stages import tile

# gloo asks the host's name for an address and may abort where there is no network; loopback is always there.
ALONE = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "lo"}
TINY = (
    "precision=fp32",
    "backbone.name=resnet10t",
    "backbone.args={channels: [8, 8, 16, 24], stem_width: 8, layers: [1, 1, 1, 1], drop_rate: 0.0}",
    "views.train_px=32",
    "projector.hidden=16",
    "projector.out=8",
    "run.batch=8",
    "run.monitor_tiles=12",
    "run.checkpoint_every=2",
    # With the shipped rate the first steps of so small a network make 1e-3 of 1e-6.
    "optimiser.lr=0.0005",
)
OPTIONS = ("--device", "cpu", *(part for setting in TINY for part in ("--set", setting)))
LIMIT_S = 300


@dataclass(frozen=True)
class Group:
    """A torchrun that is under way, in a folder of its own for what it says."""

    agent: subprocess.Popen[str]

    def kill(self) -> None:
        """Kill -9 the agent and its processes, which it puts into sessions of their own, at once."""
        for pid in (*_children(self.agent.pid), self.agent.pid):
            os.kill(pid, signal.SIGKILL)
        self.agent.communicate()


def _children(pid: int) -> list[int]:
    own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [below for child in own for below in _children(child)]


def start_two(*arguments: object, cwd: Path) -> Group:
    """The program in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "histokin"]
    return Group(
        subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=cwd,
            env=ALONE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


def run_two(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    """The same to its end: exit code, stdout, stderr."""
    group = start_two(*arguments, cwd=cwd)
    try:
        stdout, stderr = group.agent.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        group.kill()
        raise
    return group.agent.returncode, stdout, stderr


def kill_two_when(reached: Callable[[], bool], *arguments: object, cwd: Path) -> bool:
    """Kill both processes as soon as `reached`; False if they ended before."""
    group = start_two(*arguments, cwd=cwd)
    until = time.monotonic() + LIMIT_S
    while group.agent.poll() is None and time.monotonic() < until:
        if reached():
            group.kill()
            return True
        time.sleep(0.002)
    group.agent.communicate()
    return False


def make_workspace(cwd: Path) -> Path:
    """24 tile files of 32 px in `work`."""
    rng = np.random.default_rng(0)
    folder = cwd / "in" / "kind"
    folder.mkdir(parents=True)
    for number in range(24):
        coarse = rng.normal(0, 40, (8, 8, 3)).repeat(4, 0).repeat(4, 1) + np.array([190, 150, 180])
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.clip(coarse, 0, 255).astype(np.uint8))
    tile(cwd / "in", cwd / "work", mpp=1.0)
    return cwd / "work"


def losses(work: Path, name: str = "main") -> list[float]:
    return [line["loss"] for line in read_lines(work / "runs" / name / "metrics.jsonl") if "loss" in line]


def test_two_processes_give_the_run_of_one(tmp_path: Path) -> None:
    work = make_workspace(tmp_path)
    code, stdout, stderr = run_two("pretrain", "work", "--steps", 4, "--name", "two", *OPTIONS, cwd=tmp_path)
    assert code == 0, stderr
    assert stdout.count("4 steps, 64 views, loss") == 1  # said once
    alone = histokin("pretrain", "work", "--steps", 4, "--name", "one", *OPTIONS, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert sorted(p.name for p in (work / "runs").iterdir()) == ["one", "two"]
    one, two = (tree(work / "runs" / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert one["recipe.yaml"] == two["recipe.yaml"]
    np.testing.assert_allclose(losses(work, "two"), losses(work, "one"), rtol=1e-3)
    first, second = (json.loads((work / "runs" / name / "result.json").read_text()) for name in ("one", "two"))
    assert first["inputs"] == second["inputs"]
    for key, value in first["monitors"].items():
        if isinstance(value, float):
            assert second["monitors"][key] == pytest.approx(value, rel=1e-2), key
    assert leftovers(work) == []


@pytest.mark.slow
def test_a_second_call_returns_the_finished_run(tmp_path: Path) -> None:
    work = make_workspace(tmp_path)
    arguments = ("pretrain", "work", "--steps", 4, *OPTIONS)
    code, stdout, stderr = run_two(*arguments, cwd=tmp_path)
    assert code == 0, stderr
    before = {path: path.stat().st_mtime_ns for path in (work / "runs").rglob("*")}
    again = run_two(*arguments, cwd=tmp_path)
    assert again[:2] == (0, stdout), again[2]
    alone = histokin(*arguments, cwd=tmp_path)  # nor does it matter how many ask
    assert alone.stdout == stdout
    assert {path: path.stat().st_mtime_ns for path in (work / "runs").rglob("*")} == before


@pytest.mark.slow
def test_killed_and_repeated_equals_never_stopped(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ("pretrain", "work", "--steps", 40, "--set", "run.monitor_every=8", *OPTIONS)
    for cwd in (whole, killed):
        make_workspace(cwd)
    code, _, stderr = run_two(*arguments, cwd=whole)
    assert code == 0, stderr
    metrics = killed / "work/runs/main/metrics.jsonl"
    n_kills = 0
    for n_lines in (1, 9, 25):
        n_kills += kill_two_when(
            lambda n=n_lines: metrics.exists() and metrics.read_bytes().count(b"\n") >= n, *arguments, cwd=killed
        )
    assert n_kills == 3
    assert not (killed / "work/runs/main/result.json").exists()
    code, _, stderr = run_two(*arguments, cwd=killed)
    assert code == 0, stderr
    assert leftovers(killed / "work") == []
    assert tree(killed / "work/runs") == tree(whole / "work/runs")


@pytest.mark.slow
def test_a_run_of_two_killed_goes_on_in_one(tmp_path: Path) -> None:
    work = make_workspace(tmp_path)
    arguments = ("pretrain", "work", "--steps", 40, *OPTIONS)
    metrics = work / "runs/main/metrics.jsonl"
    assert kill_two_when(lambda: metrics.exists() and len(read_lines(metrics)) >= 8, *arguments, cwd=tmp_path)
    before = losses(work)
    alone = histokin(*arguments, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert len(losses(work)) == 40
    assert losses(work)[:2] == before[:2]
    whole = histokin(*arguments, "--name", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    np.testing.assert_allclose(losses(work)[:10], losses(work, "whole")[:10], rtol=1e-2)


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_is_one_sentence(tmp_path: Path) -> None:
    work = make_workspace(tmp_path)
    code, stdout, stderr = run_two("pretrain", "work", "--steps", 4, *OPTIONS, "--set", "run.batch=9", cwd=tmp_path)
    assert code != 0
    sentence = "a batch of 9 cannot be divided among 2 processes. Take a multiple of 2"
    ours = [line for line in stderr.splitlines() if line.startswith("histokin, ")]
    assert {line.partition(":")[0] for line in ours} <= {"histokin, process 0", "histokin, process 1"}
    assert ours
    assert all(sentence in line for line in ours)
    assert stdout == ""
    assert not (work / "runs/main/recipe.yaml").exists()
