"""One painted archive for all that only ask it."""

import pytest
from pipeline.painted import Painted


@pytest.fixture(scope="session")
def painted_archive(tmp_path_factory: pytest.TempPathFactory) -> Painted:
    """Not to be written into."""
    return Painted.make(tmp_path_factory.mktemp("painted") / "archive")
