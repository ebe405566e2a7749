"""kill -9 at any point, then the same command again: the same bytes as never killed, nothing temporary left."""

from pathlib import Path

import pytest
from program import histokin, kill_when, leftovers, tree
from striking import striking_points


@pytest.mark.slow
def test_one_kill_a_stage_changes_nothing(finished, tmp_path: Path) -> None:
    assert finished.returncode == 0, finished.stderr
    work = tmp_path / "work"
    n_kills = 0
    for reached in striking_points(work, 2).values():
        n_kills += kill_when(reached, *finished.arguments, cwd=tmp_path)
    done = histokin(*finished.arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert n_kills >= 5  # a stage may be over before the test looks
    assert leftovers(work) == []
    assert tree(work) == tree(finished.work)
    assert done.stdout == finished.stdout


# The last moments of a run: it may end between two looks at the disk.
MAY_BE_OVER = {("report", n) for n in range(1, 6)} | {("evaluate", n) for n in range(3, 6)}


@pytest.mark.torture
@pytest.mark.parametrize("stage", ["inventory", "tiles", "cache", "pretrain", "embed", "evaluate", "report"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_kill_at_each_point_of_each_stage_changes_nothing(finished, tmp_path: Path, stage: str, n: int) -> None:
    work = tmp_path / "work"
    killed = kill_when(striking_points(work, n)[stage], *finished.arguments, cwd=tmp_path)
    assert killed or (stage, n) in MAY_BE_OVER
    done = histokin(*finished.arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert leftovers(work) == []
    assert tree(work) == tree(finished.work)
