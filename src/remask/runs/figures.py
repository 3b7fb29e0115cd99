"""Which evaluation a figure belongs to, and the evaluations of which only the figures were kept."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from remask.runs.evaluation_folder import evaluation_id
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.home import is_plain_name
from remask.runs.rows import is_figure

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
    # of figures that name none, something may have been noted since: their evaluation has a record of its own then
    unnamed = {(record.task, record.created): record.id for record in records.values() if record.id not in named}
    found = []
    for row in rows:
        evaluation = _named(row)
        if evaluation is None:
            moment = (str(row.get("task")), str(row.get("created")))
            if moment not in unnamed:
                unnamed[moment] = _free_id(*moment, taken=named | set(records))
            evaluation = unnamed[moment]
        if evaluation not in records:
            records[evaluation] = _finished(evaluation, row, run_id=run_id)
        found.append({**row, "run_id": run_id, "evaluation": evaluation})
    return found, sorted(records.values(), key=lambda record: record.created)


def without(
    rows: Sequence[Row], evaluation: str, *, run_id: str, recorded: Iterable[EvaluationRecord]
) -> list[dict[str, Any]]:
    """The lines of a run's evaluations.jsonl that are no figures of one of its evaluations.

    Args:
        rows: all lines, oldest first; some may be no figures.
        evaluation: the id of the evaluation that is left out.
        run_id: as `assigned`.
        recorded: as `assigned`.
    """
    figures = [row for row in rows if is_figure(row)]
    named, _ = assigned(figures, run_id=run_id, recorded=recorded)
    left_out = [row for row, found in zip(figures, named, strict=True) if found["evaluation"] == evaluation]
    return [dict(row) for row in rows if not any(row is other for other in left_out)]


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


def _free_id(task: str, created: str, *, taken: set[str]) -> str:
    try:
        moment = datetime.fromisoformat(created).astimezone(UTC)
    except ValueError:
        moment = datetime.fromtimestamp(0, UTC)
    first = evaluation_id(task, moment)
    for number in count(1):
        candidate = first if number == 1 else f"{first}-{number}"
        if candidate not in taken:
            return candidate
    raise AssertionError("count() has no end")
