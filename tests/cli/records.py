"""Homes with runs that nobody trained."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from remask.evaluation.measurement import Examples, Measurement
from remask.runs import EvaluationRecord, Registry, RunFolder, RunRecord


def add_run(home: Path, run_id: str, *, minutes: int = 1, **values) -> RunRecord:
    """A finished run with a folder, that began so many minutes ago."""
    RunFolder.create(home, run_id)
    created = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    defaults = {"recipe": "quickstart", "family": "token", "seed": 1, "status": "finished", "steps": 1000}
    return Registry(home).create(RunRecord(id=run_id, created=created, **(defaults | values)))


def add_evaluation(home: Path, run_id: str, *, task: str = "likelihood", value: float = 3.0) -> EvaluationRecord:
    """A finished evaluation of one figure with examples."""
    figure = Measurement(
        name="bits_per_byte",
        value=value,
        unit="bits/byte",
        n=3,
        stderr=0.25,
        trivial={"byte 2-gram": 3.81},
        protocol={"split": "validation"},
        examples=Examples(identity="i", values=[1.0, 2.0, 3.0]),
    )
    registry = Registry(home)
    with registry.evaluating(run_id, task=task, device="cpu") as judged:
        judged.keep([figure])
    return registry.find_evaluation(judged.record.reference)
