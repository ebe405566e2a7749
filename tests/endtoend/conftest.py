"""One small generated cohort and one finished workspace, made by the program itself."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from program import histokin

from histokin.slides.generated import GeneratedCohortSpec, generate_cohort

COHORT = GeneratedCohortSpec(n_patients=6, slides_per_patient=1, size=768, n_scanners=2, seed=3)
OPTIONS = ("--tile-px", 64, "--tile-mpp", 1.0, "--stride", 32, "--steps", 24, "--set", "run.checkpoint_every=5",
           "--set", "run.monitor_every=8", "--set", "run.batch=16")  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A cohort, the folder that the program ran in, and what it printed."""

    table: Path
    cwd: Path
    stdout: str
    stderr: str
    returncode: int

    @property
    def work(self) -> Path:
        return self.cwd / "work"

    @property
    def arguments(self) -> tuple[object, ...]:
        return ("run", self.table, "--out", "work", *OPTIONS)


@pytest.fixture(scope="session")
def cohort_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_cohort(tmp_path_factory.mktemp("cohort"), COHORT)


@pytest.fixture(scope="session")
def finished(cohort_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    cwd = tmp_path_factory.mktemp("finished")
    done = histokin("run", cohort_table, "--out", "work", *OPTIONS, cwd=cwd)
    return Finished(cohort_table, cwd, done.stdout, done.stderr, done.returncode)
