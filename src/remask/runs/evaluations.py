"""The evaluations of a home's runs: begun, filled, ended, found, and noticed where their process died."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remask.errors import RunError, UserError
from remask.runs.evaluation_folder import EvaluationFolder, evaluations_in
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.figures import assigned
from remask.runs.files import plain
from remask.runs.folder import RunFolder
from remask.runs.home import is_plain_name, timestamp
from remask.runs.provenance import collect_provenance
from remask.runs.record import RunRecord
from remask.runs.references import by_prefix, unknown_evaluation
from remask.runs.rows import (
    EVALUATIONS,
    Lines,
    insert_measurements,
    is_figure,
    select_measurements,
    select_moments,
)
from remask.runs.store import Store

if TYPE_CHECKING:
    from remask.evaluation.measurement import Measurement

Rows = list[dict[str, Any]]
Figures = tuple[Rows, list[EvaluationRecord]]
Select = Callable[[sqlite3.Connection, str | None], Lines]


class OpenEvaluation:
    """An evaluation that goes on: what it measures is stored as it comes, and stays if it is killed.

    Attributes:
        record: what is known of it so far.
    """

    def __init__(self, evaluations: "Evaluations", record: EvaluationRecord) -> None:
        self._evaluations, self.record = evaluations, record

    def keep(self, measurements: "Iterable[Measurement]") -> None:
        """Stores figures, and the examples that they are sums or means of.

        Examples are found by a figure's name: where one evaluation measures a name more than once, none are kept of it.

        Raises:
            RunError: they cannot be written.
        """
        self._evaluations.keep(self.record.run_id, measurements, task=self.record.task, evaluation=self.record.id)

    def note(self, **changes: Any) -> None:
        """Changes fields of the record, e.g. `peak_memory_bytes`.

        Raises:
            RunError: they cannot be written.
            TypeError: a name is no field of `EvaluationRecord`.
        """
        self.record = self._evaluations.update(self.record, **changes)


class Evaluations:
    """The evaluations of all runs.

    Args:
        store: the home's records.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- writing ----------------------------------------------------------------------------------

    @contextmanager
    def going_on(self, run: RunRecord, *, task: str, **facts: Any) -> Iterator[OpenEvaluation]:
        """An evaluation from its beginning to its end, however it ends; see `Registry.evaluating`."""
        run_folder = self._store.folder_of(run)
        if not run_folder.exists():
            raise UserError(f"{run_folder.path} is gone: without its folder, run {run.id} cannot be evaluated")
        folder = EvaluationFolder.create(run_folder, task=task, moment=datetime.now(UTC))
        known = collect_provenance().record_fields() | facts
        record = EvaluationRecord(id=folder.path.name, run_id=run.id, task=task, created=timestamp(), **known)
        began = time.monotonic()
        with folder.lock():
            opened = OpenEvaluation(self, self.update(record))
            try:
                yield opened
            except BaseException as error:
                with suppress(RunError, UserError):  # the first failure counts
                    opened.note(**_end(error), seconds=time.monotonic() - began, finished=timestamp())
                raise
            opened.note(status="finished", seconds=time.monotonic() - began, finished=timestamp())

    def update(self, record: EvaluationRecord, **values: Any) -> EvaluationRecord:
        """Changes fields of an evaluation as it stands now, or adds it, here and in its evaluation.json."""
        with self._store.database.write() as connection:
            run = self._store.present(connection, record.run_id)
            with self._store.understood():
                known = EVALUATIONS.select(connection, run_id=record.run_id, id=record.id)
            record = replace(known[0] if known else record, **values)
            self._store.keep_evaluation(connection, run, record)
        return record

    def keep(
        self, run_id: str, measurements: "Iterable[Measurement]", *, task: str, evaluation: str | None = None
    ) -> None:
        """Adds figures, in the database and in evaluations.jsonl; see `Registry.add_evaluations`."""
        measurements = list(measurements)
        extra = {"task": task, "created": timestamp()} | ({"evaluation": evaluation} if evaluation else {})
        rows = [plain(measurement.to_json()) | extra for measurement in measurements]
        with self._store.database.write() as connection:
            run = self._store.present(connection, run_id)
            folder = self._store.folder_of(run)
            insert_measurements(connection, run_id, rows)
            if folder.exists():
                if evaluation:
                    _keep_examples(EvaluationFolder.of(folder, evaluation), measurements, known=folder.evaluations())
                for row in rows:
                    folder.append_evaluation(row)
                folder.close()

    # -- reading ----------------------------------------------------------------------------------

    def lines(self, run_id: str) -> Rows:
        """A run's figures as evaluations.jsonl has them, oldest first."""
        if self._is_on_disk_only(run_id):
            return self._folder(run_id).evaluations()
        with self._store.database.read() as connection, self._store.understood():
            return [row for _, row in select_measurements(connection, run_id)]

    def figures(self, run_id: str | None) -> Figures:
        """The figures and records of a run, or of all runs: figures oldest first, records newest first and settled."""
        found = self._assigned(run_id, select_measurements)
        return [row for rows, _ in found for row in rows], self._newest_first(found)

    def records(self, run_id: str | None) -> list[EvaluationRecord]:
        """The records alone, for which the figures themselves need not be read."""
        return self._newest_first(self._assigned(run_id, select_moments))

    def find(self, run_id: str, reference: str) -> EvaluationRecord:
        """An evaluation of a run by its id, `last`, or a unique prefix.

        Raises:
            UserError: nothing or more than one fits.
        """
        records = self.records(run_id)
        exact = {record.id: record for record in records}.get(reference)
        record = exact or (records[0] if reference == "last" and records else None)
        if record is None and reference != "last":
            record = by_prefix(reference, records, what=f"evaluations of {run_id}")
        if record is None:
            raise unknown_evaluation(reference, [record.id for record in records], run_id=run_id)
        return record

    def examples(self, run_id: str, evaluation: str) -> dict[str, dict[str, Any]]:
        """Name of a figure → its examples; see `Registry.examples`."""
        if not is_plain_name(evaluation):
            return {}
        return EvaluationFolder.of(self._folder(run_id), evaluation).examples() or {}

    def _is_on_disk_only(self, run_id: str | None) -> bool:
        return run_id in self._store.outside or not self._store.database.exists()

    def _folder(self, run_id: str) -> RunFolder:
        if self._is_on_disk_only(run_id):
            return RunFolder(self._store.outside.get(run_id, self._store.home / run_id))
        with self._store.database.read() as connection:
            listed = self._store.listed(connection, run_id)
        return RunFolder(self._store.home / (listed.folder if listed else run_id))

    def _newest_first(self, found: Iterable[Figures]) -> list[EvaluationRecord]:
        records = [record for _, records in found for record in records]
        return self._settle(sorted(records, key=lambda record: record.created, reverse=True))

    def _assigned(self, run_id: str | None, select: Select) -> list[Figures]:
        kept = self._all_of(run_id, select)
        return [assigned(rows, run_id=name, recorded=recorded) for name, (rows, recorded) in kept.items()]

    def _all_of(self, run_id: str | None, select: Select) -> Mapping[str, Figures]:
        """Run id → the figures, as `select` has them, and the records that are kept of it."""
        if self._is_on_disk_only(run_id):
            ids = [record.id for record in self._store.runs_on_disk()[0]] if run_id is None else [run_id]
            return {name: self._in_folder(name) for name in ids}
        found: dict[str, Figures] = {}
        with self._store.database.read() as connection, self._store.understood():
            for name, row in select(connection, run_id):
                found.setdefault(name, ([], []))[0].append(row)
            equal = {} if run_id is None else {"run_id": run_id}
            for record in EVALUATIONS.select(connection, **equal):
                found.setdefault(record.run_id, ([], []))[1].append(record)
        return found

    def _in_folder(self, run_id: str) -> Figures:
        folder = self._folder(run_id)
        return [row for row in folder.evaluations() if is_figure(row)], evaluations_in(folder, run_id=run_id)

    # -- dead processes ---------------------------------------------------------------------------

    def _settle(self, records: list[EvaluationRecord]) -> list[EvaluationRecord]:
        """Marks as killed the evaluations that are recorded as running and whose process is gone."""
        return [self._killed(record) if self._is_dead(record) else record for record in records]

    def _is_dead(self, record: EvaluationRecord) -> bool:
        return record.status == "running" and not self._own_folder(record).is_locked()

    def _own_folder(self, record: EvaluationRecord) -> EvaluationFolder:
        return EvaluationFolder.of(self._folder(record.run_id), record.id)

    def _killed(self, record: EvaluationRecord) -> EvaluationRecord:
        # a home without a registry, or one that may only be read, still shows the truth
        if not self._is_on_disk_only(record.run_id):
            with suppress(RunError):
                return self._mark_killed(record)
        return replace(record, status="killed")

    def _mark_killed(self, record: EvaluationRecord) -> EvaluationRecord:
        with self._store.database.write() as connection:
            # looked at again under the write lock: the evaluation may have ended properly meanwhile
            now = next(iter(EVALUATIONS.select(connection, run_id=record.run_id, id=record.id)), record)
            run = self._store.listed(connection, record.run_id)
            if run is not None and now.status == "running":
                now = replace(now, status="killed")
                self._store.keep_evaluation(connection, run, now)
        return now


def _end(error: BaseException) -> dict[str, str]:
    """The status and the one line for what ended an evaluation early."""
    if not isinstance(error, Exception):
        return {"status": "interrupted", "error": "stopped by the user"}
    said = str(error).splitlines()
    return {"status": "failed", "error": said[0] if said else type(error).__name__}


def _keep_examples(folder: EvaluationFolder, measurements: "Iterable[Measurement]", *, known: Rows) -> None:
    """Adds the examples of new figures to those of the figures that are known already."""
    before = folder.examples() or {}
    new = {m.name: examples for m in measurements if (examples := m.examples) is not None}
    if not new and not before:
        return
    counts = Counter(row.get("name") for row in known if row.get("evaluation") == folder.path.name)
    counts.update(measurement.name for measurement in measurements)
    kept = {name: values for name, values in before.items() if counts[name] == 1}
    kept |= {name: plain(examples.to_json()) for name, examples in new.items() if counts[name] == 1}
    folder.write_examples(kept)
