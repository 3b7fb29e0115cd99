from pathlib import Path

import pytest
from synthetic_run import RUN_ID, make_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished, sampled and evaluated run."""
    return make_run(tmp_path / "runs" / RUN_ID)
