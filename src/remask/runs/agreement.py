"""What a registry and a run's folder tell differently; each has it all, so this tells damage, or a kill in between."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from remask.runs.evaluation_folder import EvaluationFolder
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.folder import RunFolder
from remask.runs.record import RunRecord
from remask.runs.rows import MEASUREMENT


def in_records(listed: RunRecord, kept: RunRecord | None, *, path: Path) -> list[str]:
    """A sentence if the run's record differs from the one in its folder (`path`; None: not to be read)."""
    if kept is None:
        return [f"{path} is missing or cannot be read"]
    differing = _differing(listed.to_json(), kept.to_json())
    return [f"the registry and {path} differ in {differing}"] if differing else []


def in_evaluations(listed: Iterable[EvaluationRecord], folder: RunFolder) -> list[str]:
    """A sentence for each evaluation with a folder whose record there differs, or of which something cannot be read."""
    found = []
    for record in listed:
        own = EvaluationFolder.of(folder, record.id)
        if not own.path.exists():  # figures of an older remask
            continue
        other = own.record(run_id=record.run_id)
        if other is None:
            found.append(f"{own.record_path} is missing or cannot be read")
        elif differing := _differing(record.to_json(), other.to_json()):
            found.append(f"the registry and {own.record_path} differ in {differing}")
        if own.examples_path.exists() and own.examples() is None:
            found.append(f"{own.examples_path} cannot be read: its figures are not compared example by example")
    return found


def in_figures(listed: Iterable[Mapping[str, Any]], folder: RunFolder) -> list[str]:
    """A sentence if figures of the registry are not in the run's evaluations.jsonl."""
    kept = [_same(row) for row in folder.evaluations()]
    lost = sum(_same(row) not in kept for row in listed)
    rows = "1 measurement" if lost == 1 else f"{lost} measurements"
    return [f"{rows} of the registry cannot be found in {folder.evaluations_path}"] if lost else []


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(sorted(name for name in one if one[name] != other[name]))


def _same(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in MEASUREMENT}
