"""`histokin demo`."""

from pathlib import Path

import click

from histokin.cli.options import FOLDER, exit_code, json_option, show_json, show_outcome


@click.command()
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Slides and workspace go here.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--patients", type=click.IntRange(1, 999), default=12, show_default=True)
@click.option(
    "--slides", "slides_each", type=click.IntRange(1, 26), default=2, show_default=True, help="Slides a patient."
)
@click.option(
    "--size",
    type=click.IntRange(256, 40_000),
    default=2048,
    show_default=True,
    help="Side of a slide in px (0.5 um each).",
)
@click.option("--budget", help="Time for pretraining [default: 2m].")
@click.option("--steps", type=click.IntRange(1), help="Steps instead: repeatable byte for byte.")
@json_option
def command(
    out: Path,
    seed: int,
    patients: int,
    slides_each: int,
    size: int,
    budget: str | None,
    steps: int | None,
    as_json: bool,
) -> None:
    """Make a generated cohort with known truth and run everything on it (about 5 minutes on two cores)."""
    from histokin.pipeline.demo import BUDGET, demo
    from histokin.progress import on_stderr

    if budget and steps:
        raise click.UsageError("Give --budget or --steps, not both.")
    budget = budget or BUDGET
    outcome = demo(
        out,
        seed=seed,
        n_patients=patients,
        slides_per_patient=slides_each,
        size=size,
        budget=budget,
        steps=steps,
        report=on_stderr(),
        command=f"histokin demo --seed {seed} --patients {patients} --slides {slides_each} --size {size} "
        + (f"--steps {steps}" if steps else f"--budget {budget}"),
    )
    if as_json:
        show_json({"page": outcome.page, "encoder": outcome.encoder, "evaluation": outcome.assessment.document})
    else:
        show_outcome(outcome)
    raise SystemExit(exit_code(outcome.tiling.cohort))
