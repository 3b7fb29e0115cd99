"""What a registry and a run's folder tell differently; each has it all, so this tells damage, or a kill in between."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from remask.runs.evaluation_folder import evaluations_in
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
    """A sentence for each evaluation whose record differs from the one in its folder, if that has one."""
    found = []
    kept = {record.id: record for record in evaluations_in(folder, run_id=folder.run_id)}
    for record in listed:
        other = kept.get(record.id)
        differing = "" if other is None else _differing(record.to_json(), {**other.to_json(), "run_id": record.run_id})
        if differing:
            found.append(f"the registry and the evaluation.json of {record.reference} differ in {differing}")
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
