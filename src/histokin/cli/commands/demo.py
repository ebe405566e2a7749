"""`histokin demo`."""

from pathlib import Path

import click

from histokin.cli.options import FOLDER, json_option, show_json, show_outcome


@click.command()
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Slides and workspace go here.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--patients", type=int, default=12, show_default=True)
@click.option("--slides", "slides_each", type=int, default=2, show_default=True, help="Slides a patient.")
@click.option("--size", type=int, default=2048, show_default=True, help="Side of a slide in px (0.5 um each).")
@click.option("--budget", default="2m", show_default=True, help="Time for pretraining.")
@click.option("--steps", type=int, help="Steps instead: repeatable byte for byte.")
@json_option
def command(
    out: Path, seed: int, patients: int, slides_each: int, size: int, budget: str, steps: int | None, as_json: bool
) -> None:
    """Make a generated cohort with known truth and run everything on it (about 5 minutes on two cores)."""
    from histokin.pipeline.demo import demo
    from histokin.progress import on_stderr

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
