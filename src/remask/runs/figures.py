"""Which evaluation a figure belongs to, and the evaluations of which only the figures were kept."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from remask.runs.evaluation_folder import evaluation_id
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.home import is_plain_name

Row = Mapping[str, Any]


def assigned(
    rows: Sequence[Row], *, run_id: str, recorded: Iterable[EvaluationRecord]
) -> tuple[list[dict[str, Any]], list[EvaluationRecord]]:
    """A run's figures, each with its evaluation, and all of the run's evaluations.

    Figures of an older remask name no evaluation: those of one task and one moment are one, which is taken to have
    finished. Its id depends on the order of the figures alone, so that it is the same whenever it is asked for.

    Args:
        rows: the run's figures, oldest first.
        run_id: the run's id.
        recorded: its evaluations that have a record.

    Returns:
        The rows with `run_id` and `evaluation`, and the records, oldest first.
    """
    records = {record.id: record for record in recorded}
    named = {name for row in rows if (name := _named(row))}
    unnamed: dict[tuple[str, str], str] = {}
    found = []
    for row in rows:
        evaluation = _named(row)
        if evaluation is None:
            key = (str(row.get("task")), str(row.get("created")))
            if key not in unnamed:
                unnamed[key] = _free_id(*key, records=records, taken=named | set(unnamed.values()))
            evaluation = unnamed[key]
        if evaluation not in records:
            records[evaluation] = _finished(evaluation, row, run_id=run_id)
        found.append({**row, "run_id": run_id, "evaluation": evaluation})
    return found, sorted(records.values(), key=lambda record: record.created)


def _named(row: Row) -> str | None:
    """The evaluation that a figure names, if it can be a folder's name."""
    name = row.get("evaluation")
    return name if isinstance(name, str) and is_plain_name(name) else None


def _finished(evaluation: str, row: Row, *, run_id: str) -> EvaluationRecord:
    created = str(row.get("created"))
    return EvaluationRecord(
        id=evaluation,
        run_id=run_id,
        task=str(row.get("task")),
        created=created,
        status="finished",
        finished=created,
    )


def _free_id(task: str, created: str, *, records: Mapping[str, EvaluationRecord], taken: set[str]) -> str:
    try:
        moment = datetime.fromisoformat(created).astimezone(UTC)
    except ValueError:
        moment = datetime.fromtimestamp(0, UTC)
    first = evaluation_id(task, moment)
    for number in count(1):
        candidate = first if number == 1 else f"{first}-{number}"
        # a record of that very moment is the evaluation's own: something was noted of it since
        own = candidate not in records or records[candidate].created == created
        if candidate not in taken and own:
            return candidate
    raise AssertionError("count() has no end")
