"""What every test may use: a hypothesis profile that does not depend on luck, and one small generated cohort."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from histokin.slides.generated import GeneratedCohortSpec, generate_cohort

settings.register_profile(
    "histokin",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("histokin")

SMALL = GeneratedCohortSpec(n_patients=4, slides_per_patient=1, size=640, n_scanners=2, seed=5)


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cohort.csv` of four generated slides of 640 px at 0.5 um, one a patient. Not to be written into."""
    return generate_cohort(tmp_path_factory.mktemp("small"), SMALL)
