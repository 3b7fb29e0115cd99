"""A short version of `benchmarks/reliability`: a run killed twice, and killed writers of one registry."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RELIABILITY = Path(__file__).parents[1] / "benchmarks" / "reliability"
PATIENCE = 400.0  # seconds until a hung proof is given up; no statement about speed

sys.path.append(str(RELIABILITY))


def prove(proof: str, *arguments: object) -> dict:
    """What a proof prints; it runs in a process of its own, because it forks."""
    command = [sys.executable, str(RELIABILITY), proof, "--json", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_run_killed_at_two_moments_ends_as_the_run_that_was_never_killed():
    found = prove("kills", "--count", 2, "--only", "mdlm", "--seed", 3)
    assert found["lost"] == []
    assert found["resumed_bit_identical"] == found["kills"] == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_writers_of_one_registry_that_are_killed_lose_no_row_that_was_acknowledged():
    found = prove("registry", "--writers", 4, "--seconds", 2)
    assert found["lost"] == []
    assert found["acknowledged"] > 0
    assert found["kills"] >= 4


def test_a_weight_a_figure_or_a_line_that_differs_is_seen():
    from kills import difference

    whole = {"weights": {"model": "a"}, "metrics": [{"step": 1, "loss": 2.0}], "samples": [{"text": "x"}]}
    assert difference(whole, whole) == []
    assert len(difference({**whole, "weights": {"model": "b"}}, whole)) == 1
    assert len(difference({**whole, "metrics": [{"step": 1, "loss": 2.5}]}, whole)) == 1
    assert len(difference({**whole, "samples": [*whole["samples"], *whole["samples"]]}, whole)) == 1


def test_a_row_that_was_acknowledged_and_is_not_there_is_seen(tmp_path):
    from writers import compare

    from remask.runs import Registry, RunFolder, RunRecord, timestamp

    folder = RunFolder.create(tmp_path, "a")
    registry = Registry(tmp_path)
    record = RunRecord(id="a", recipe="r", family="token", seed=1, created=timestamp(), status="finished", step=3)
    registry.create(record)
    assert folder.exists()
    assert compare(tmp_path, [{"run": "a", "kind": "created"}, {"run": "a", "kind": "step", "step": 3}])["lost"] == []
    for told in (
        {"run": "b", "kind": "created"},
        {"run": "a", "kind": "step", "step": 4},
        {"run": "a", "kind": "evaluated", "name": "bits_5"},
        {"run": "a", "kind": "judged", "name": "quality_20260101_000000"},
    ):
        assert compare(tmp_path, [told])["lost"], told
