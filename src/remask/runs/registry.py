"""The list of all runs and evaluations in a home: an SQLite index over the run folders, each with its own record."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask.errors import RunError, UserError
from remask.runs.agreement import in_evaluations, in_figures, in_records
from remask.runs.database import UnusableRegistry
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.evaluations import Evaluations, OpenEvaluation
from remask.runs.folder import RunFolder
from remask.runs.importing import TakenIn, take_in
from remask.runs.record import RunRecord
from remask.runs.references import by_prefix, unknown_run
from remask.runs.removal import remove_evaluation, remove_run
from remask.runs.rows import RUNS
from remask.runs.store import Store

if TYPE_CHECKING:
    from remask.evaluation.measurement import Measurement

# the name `list` is a method of Registry, so its annotations use these
Records = list[RunRecord]
Evaluated = list[EvaluationRecord]
Rows = list[dict[str, Any]]
Names = list[str]


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What `Registry.rebuild` found.

    Attributes:
        runs: the number of runs read from their folders.
        skipped: folders whose run.json cannot be read, or names a run that another folder holds.
        kept: where an unusable registry file is kept, or None if there was none.
    """

    runs: int
    skipped: tuple[Path, ...]
    kept: Path | None


class Registry:
    """All runs of a home, and their evaluations. Opening one touches nothing; the file is created by the first write.

    Every run's record stands twice: here, and as `run.json` in its folder. Both are written within one
    transaction, so processes that update the same run do so one after the other. Where the file is
    missing, the records are read from the folders.

    A training takes its folder's lock before it creates its record or sets it to running, and ends its
    record before it gives the lock back: whoever reads a running record with a free lock marks it killed.
    An evaluation does the same with a folder of its own.

    Attributes:
        home: the folder that holds the run folders.
        path: the SQLite file.
    """

    def __init__(self, home: Path | str) -> None:
        self.home = Path(home)
        self._store = Store(self.home)
        self._evaluations = Evaluations(self._store)
        self.path = self._store.database.path

    def folder_of(self, record: RunRecord) -> RunFolder:
        """The run's folder, which may have been deleted since."""
        return self._store.folder_of(record)

    # -- writing ----------------------------------------------------------------------------------

    def create(self, record: RunRecord) -> RunRecord:
        """Adds a run; without a `folder` it is the one in the home named like the run.

        Raises:
            UserError: there is a run of that id, or the registry is corrupt.
            RunError: the registry or run.json cannot be written; neither is changed then.
        """
        record = replace(record, folder=self._store.relative(record.folder or record.id))
        with self._store.database.write() as connection:
            if self._store.listed(connection, record.id) is not None:
                raise UserError(f"there is a run {record.id} in {self.home} already: choose another id")
            self._store.keep_run(connection, record)
        return record

    def update(self, run_id: str, **values: Any) -> RunRecord:
        """Changes fields of a run, here and in its run.json, and returns the new record.

        Raises:
            UserError: there is no such run, or the registry is corrupt.
            RunError: the registry or run.json cannot be written; neither is changed then.
            TypeError: a name is no field of `RunRecord`.
        """
        with self._store.database.write() as connection:
            record = replace(self._store.present(connection, run_id), **values)
            self._store.keep_run(connection, record)
        return record

    def evaluating(
        self, run_id: str, *, task: str, checkpoint: str | None = None, **facts: Any
    ) -> AbstractContextManager[OpenEvaluation]:
        """An evaluation of a run: its record is running within the block, and says afterwards how it ended.

        The record gets its id, times, status, code and machine here. What was kept stays, however it ends; an error
        goes on to the caller. A process that dies leaves a record that is marked killed by whoever reads it next.

        Args:
            run_id: the run that is evaluated.
            task: what is evaluated, e.g. `likelihood`.
            checkpoint: what is evaluated (default: `RUN/model`, which has the run's step, text and tokenizer).
            **facts: further fields of the `EvaluationRecord`.

        Raises:
            UserError: there is no such run, its folder is gone, or the registry is corrupt.
            RunError: the registry or the folder cannot be written.
            TypeError: a name is no field of `EvaluationRecord`.
        """
        run = self.get(run_id)
        own = {"step": run.step, "data_hash": run.data_hash, "tokenizer_hash": run.tokenizer_hash}
        known = {"checkpoint": f"{run_id}/model", **own} if checkpoint is None else {"checkpoint": checkpoint}
        return self._evaluations.going_on(run, task=task, **(known | facts))

    def add_evaluations(self, run_id: str, measurements: "Iterable[Measurement]", *, task: str) -> None:
        """Adds measurements to a run, here and in its evaluations.jsonl, without a record of where they come from.

        Args:
            run_id: the run that was measured.
            measurements: its figures.
            task: what was evaluated, e.g. `likelihood` or `quality`.

        Raises:
            UserError: there is no such run, or the registry is corrupt.
            RunError: the registry or the file cannot be written.
        """
        self._evaluations.keep(run_id, measurements, task=task)

    def update_evaluation(self, reference: str, **values: Any) -> EvaluationRecord:
        """Changes fields of an evaluation, here and in its evaluation.json, and returns the new record.

        Args:
            reference: as `find_evaluation` takes it.
            **values: fields of `EvaluationRecord`.

        Raises:
            UserError: as `find_evaluation`.
            RunError: the registry or evaluation.json cannot be written; neither is changed then.
            TypeError: a name is no field of `EvaluationRecord`.
        """
        return self._evaluations.update(self.find_evaluation(reference), **values)

    def take_in(self, folder: Path | str) -> TakenIn:
        """Copies a run folder, say of another machine, into the home, and lists it with its evaluations.

        It is there whole or not at all. What says that it is running is killed; all else stays as recorded. Locks, and
        what killed processes left, are not copied.

        Raises:
            UserError: it is no run's folder, lies in the home, has links that lead out of it, or has the id of
                another run of this home; or the registry is corrupt.
            RunError: it cannot be copied, or the registry cannot be written.
        """
        return take_in(self._store, Path(folder).expanduser())

    def forget(self, run_id: str) -> None:
        """Removes a run for good: its rows and evaluations, and its folder if that lies in the home.

        Raises:
            UserError: there is no such run, a process trains or evaluates it, or the registry is corrupt.
            RunError: the registry cannot be written, or the folder not be deleted.
        """
        remove_run(self._store, self.get(run_id))

    def forget_evaluation(self, reference: str) -> None:
        """Removes an evaluation for good: its rows, its lines of evaluations.jsonl, and its folder.

        Raises:
            UserError: as `find_evaluation`, or it is going on.
            RunError: the registry or the files cannot be changed.
        """
        remove_evaluation(self._store, self.find_evaluation(reference))

    def rebuild(self) -> Rebuilt:
        """Takes the records and evaluations of every run folder in the home into the registry again.

        A usable registry is updated in place, so that trainings may go on meanwhile, and keeps the runs
        whose folders are gone; an unusable one is kept as `registry.sqlite.bak` and made anew.

        Raises:
            RunError: the home cannot be written.
        """
        records, skipped = self._store.runs_on_disk()
        database, kept = self._store.database, None
        if self.home.is_dir():
            try:
                with database.write() as connection:
                    database.check(connection)
                    self._store.adopt(connection)
            except UnusableRegistry:
                kept = database.replace()
        return Rebuilt(runs=len(records), skipped=tuple(skipped), kept=kept)

    # -- reading ----------------------------------------------------------------------------------

    def get(self, run_id: str) -> RunRecord:
        """The run of exactly this id.

        Raises:
            UserError: there is no such run, or the registry is corrupt.
        """
        by_id = {record.id: record for record in self._records()}
        record = self._store.read_outside(run_id) or by_id.get(run_id)
        if record is None:
            raise unknown_run(run_id, list(by_id), home=self.home)
        return self._settle([record])[0]

    def find(self, reference: str) -> RunRecord:
        """The run that a reference names: a run id, `last` (the newest), a run folder, or a unique prefix.

        A folder may lie outside the home; its record then has an absolute `folder` and is read from its
        run.json. This registry lists it from when something is first stored about it.

        Raises:
            UserError: nothing or more than one run fits, or the registry is corrupt.
        """
        records = self._records()
        by_id = {record.id: record for record in records}
        record = by_id.get(reference) or (records[0] if reference == "last" and records else None)
        if record is None and reference != "last":
            record = by_prefix(reference, records, what="runs") or self._by_folder(reference, records)
        if record is None:
            raise unknown_run(reference, list(by_id), home=self.home)
        return self._settle([record])[0]

    def find_evaluation(self, reference: str) -> EvaluationRecord:
        """The evaluation that `RUN:EVALUATION` names: a run as `find` takes it, and an id, `last`, or a unique prefix.

        Raises:
            UserError: nothing or more than one fits, or the registry is corrupt.
        """
        run, colon, evaluation = reference.rpartition(":")
        if not colon:
            raise UserError(f"'{reference}' names no evaluation: write RUN:EVALUATION; `remask show RUN` lists them")
        return self._evaluations.find(self.find(run).id, evaluation)

    def evaluations(self, run_id: str) -> Rows:
        """A run's measurements as its evaluations.jsonl has them, oldest first.

        `Measurement.to_json()` with `task`, `created`, and `evaluation` where it is known.
        """
        return self._evaluations.lines(run_id)

    def evaluation_records(self, run_id: str | None = None) -> Evaluated:
        """The evaluations of a run, or of all runs, newest first; a dead one is marked killed.

        Figures that an older remask stored without a record are evaluations of their own, by task and moment.
        """
        return self._evaluations.records(run_id)

    def measurements(self, run_id: str | None = None) -> Rows:
        """The figures of a run, or of all runs, each run's oldest first.

        As `evaluations`, with `run_id` and with the `evaluation` that each belongs to.
        """
        return self._evaluations.figures(run_id)[0]

    def figures(self, run_id: str | None = None) -> tuple[Rows, Evaluated]:
        """`measurements` and `evaluation_records` of one reading, at half the cost of asking for both."""
        return self._evaluations.figures(run_id)

    def examples(self, run_id: str, evaluation_id: str) -> dict[str, dict[str, Any]]:
        """Name of a figure → what it is a sum or mean of, example by example: `identity`, `values`, `weights`.

        Figures that have none, or whose name the evaluation measured more than once, are left out.
        """
        return self._evaluations.examples(run_id, evaluation_id)

    def disagreements(self, record: RunRecord) -> Names:
        """A sentence for each thing that this registry and the run's folder tell differently.

        Each is written to both within a moment, so this tells damage, or a process killed in that moment.
        """
        folder = self.folder_of(record)
        if not folder.exists():
            return []
        found = in_evaluations(self.evaluation_records(record.id), folder)
        if record.id in self._store.outside or not self._store.database.exists():
            return found  # the folder alone tells of it
        in_record = in_records(record, self._store.read_run(folder.path), path=folder.record_path)
        return [*in_record, *found, *in_figures(self.evaluations(record.id), folder)]

    # -- records, in and out ----------------------------------------------------------------------

    def _records(self) -> Records:
        """All records as they stand, newest first."""
        if not self._store.database.exists():
            return sorted(self._store.runs_on_disk()[0], key=lambda record: record.created, reverse=True)
        with self._store.database.read() as connection, self._store.understood():
            return RUNS.select(connection)

    def _settle(self, records: Records) -> Records:
        """Marks as killed the runs that are recorded as running and whose process is gone."""
        dead = {record.folder: record.id for record in records if self._is_dead(record)}
        if not dead:
            return records
        settled: dict[str, RunRecord] = {}
        # a home without a registry, or one that may only be read, still shows the truth
        if self._store.database.exists():
            with suppress(RunError):
                settled = self._mark_killed(dead.values())
        return [
            settled.get(record.folder, replace(record, status="killed")) if record.folder in dead else record
            for record in records
        ]

    def _mark_killed(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """The records of these runs by folder, after the dead ones were marked."""
        settled = {}
        with self._store.database.write() as connection:
            for run_id in run_ids:
                # looked at again under the write lock: the run may have ended properly meanwhile
                record = self._store.listed(connection, run_id)
                if record is not None and self._is_dead(record):
                    record = replace(record, status="killed")
                    self._store.keep_run(connection, record)
                if record is not None:
                    settled[record.folder] = record
        return settled

    def _is_dead(self, record: RunRecord) -> bool:
        return record.status == "running" and not self.folder_of(record).is_locked()

    def _by_folder(self, reference: str, records: Records) -> RunRecord | None:
        path = Path(reference).expanduser()
        if not path.is_dir():
            return None
        path, home = path.resolve(), self.home.resolve()
        listed = next((record for record in records if home / record.folder == path), None)
        record = listed or self._store.read_run(path)
        if record is None:
            raise UserError(f"{path} is not a run's folder: it has no readable run.json")
        if listed is None:
            self._store.outside[record.id] = path
        return record

    # `list` stands last: within the class its name hides the type
    def list(self) -> Records:
        """All runs, newest first; an empty home gives an empty list and stays empty.

        Raises:
            UserError: the registry is corrupt.
        """
        return self._settle(self._records())
