"""`demo`: a generated cohort with known truth, and everything run on it."""

from dataclasses import replace
from pathlib import Path

from histokin.pipeline.evaluation import EvaluationSpec
from histokin.pipeline.run import RunOutcome, RunSpec, run
from histokin.pipeline.stages import TileRequest
from histokin.progress import Reporter, silent

# Measured on two cores (docs/results.md): tiles of 80 um every 40 um, two minutes of SimCLR.
TILES = TileRequest(tile_px=80, tile_mpp=1.0, stride_px=40)
BUDGET = "2m"


def demo(
    out: Path,
    *,
    seed: int = 0,
    n_patients: int = 12,
    slides_per_patient: int = 2,
    size: int = 2048,
    budget: str = BUDGET,
    steps: int | None = None,
    report: Reporter = silent,
    command: str = "histokin demo",
) -> RunOutcome:
    """Generate slides of several patients and three diagnoses, then `run` on them.

    Args:
        out: folder; slides go to `out/cohort`, the workspace is `out/work`.
        seed: of slides, training and sampling.
        n_patients, slides_per_patient, size: of the cohort.
        budget: time for pretraining; or
        steps: a fixed number of steps, which makes the result repeatable byte for byte.
        report: progress.
        command: shown in the report.
    """
    from histokin.learn import override, read_recipe
    from histokin.slides.generated import GeneratedCohortSpec, generate_cohort

    cohort = GeneratedCohortSpec(
        seed=seed, n_patients=n_patients, slides_per_patient=slides_per_patient, size=size, pen_every=5
    )
    table = generate_cohort(out / "cohort", cohort, report)
    length = f"run.steps={steps}" if steps else f"run.budget={budget}"
    recipe = replace(override(read_recipe("simclr"), [length]), seed=seed)
    spec = RunSpec(tiles=TILES, recipe=recipe, evaluation=EvaluationSpec(seed=seed), title="histokin demo")
    return run(table, out / "work", spec, report=report, command=command)
