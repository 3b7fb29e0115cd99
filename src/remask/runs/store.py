"""A home's SQLite file and its folders, which hold the same records: what reads and writes both."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from remask.errors import UserError
from remask.runs.database import Database
from remask.runs.evaluation_folder import EvaluationFolder, evaluations_in
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.files import json_line, write_atomic
from remask.runs.folder import RunFolder
from remask.runs.kinds import check_kinds
from remask.runs.record import RunRecord
from remask.runs.references import unknown_run
from remask.runs.rows import EVALUATIONS, RUNS, insert_measurements, remove_measurements


class Store:
    """The records of a home. Nothing is created before the first write.

    Attributes:
        home: the folder that holds the run folders.
        database: the SQLite file; where it is missing, the records are read from the folders.
        outside: run id → a folder that lies outside the home, and that the database does not list.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = Database(home / "registry.sqlite", on_create=self.adopt)
        self.outside: dict[str, Path] = {}

    def folder_of(self, record: RunRecord) -> RunFolder:
        """The run's folder, which may have been deleted since."""
        return RunFolder(self.home / record.folder)

    def relative(self, folder: Path | str) -> str:
        """A folder as records name it: relative to the home, absolute where it lies elsewhere."""
        home = self.home.resolve()
        path = (home / folder).resolve()
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Turns values that SQLite holds and nobody wrote into the line that says how the registry is made anew."""
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:
            raise self.database.unusable(str(error)) from error

    # -- one run, within a transaction ------------------------------------------------------------

    def listed(self, connection: sqlite3.Connection, run_id: str) -> RunRecord | None:
        """The run as the database has it."""
        with self.understood():
            return next(iter(RUNS.select(connection, id=run_id)), None)

    def present(self, connection: sqlite3.Connection, run_id: str) -> RunRecord:
        """The run, which is listed from now on with all that its folder holds, if it was not.

        Raises:
            UserError: there is none of this id, or it is a copy of another one.
        """
        listed, outside = self.listed(connection, run_id), self.read_outside(run_id)
        if listed and outside and listed.folder != outside.folder:
            raise UserError(
                f"{outside.folder} is a copy of a run in {self.home}: "
                f"set REMASK_HOME to {Path(outside.folder).parent} to store anything about it"
            )
        record = listed or outside or self.read_run(self.home / run_id)
        if record is None:
            ids = connection.execute("SELECT id FROM runs ORDER BY created DESC").fetchall()
            raise unknown_run(run_id, [name for (name,) in ids], home=self.home)
        if listed is None:
            self.adopt_run(connection, record)
        return record

    def keep_run(self, connection: sqlite3.Connection, record: RunRecord) -> None:
        """Puts a run's record in the database and in its folder; a deleted folder is not made again."""
        RUNS.put(connection, record)
        folder = self.folder_of(record)
        if folder.exists():
            write_atomic(folder.record_path, json_line(record.to_json()) + "\n")

    def keep_evaluation(self, connection: sqlite3.Connection, run: RunRecord, record: EvaluationRecord) -> None:
        """Puts an evaluation's record in the database and in its folder, unless the run's is gone."""
        EVALUATIONS.put(connection, record)
        folder = self.folder_of(run)
        if folder.exists():
            EvaluationFolder.of(folder, record.id).write(record)

    def forget(self, connection: sqlite3.Connection, run_id: str) -> None:
        """Takes a run and all that is known of it out of the database; its folder stays."""
        RUNS.remove(connection, id=run_id)
        EVALUATIONS.remove(connection, run_id=run_id)
        remove_measurements(connection, run_id=run_id)

    # -- records in folders -----------------------------------------------------------------------

    def read_run(self, folder: Path) -> RunRecord | None:
        """The record in a run folder, placed where the folder lies now; None if there is none to read."""
        try:
            values = json.loads((folder / "run.json").read_bytes())
            record = replace(RunRecord.from_json(values), folder=self.relative(folder.resolve()))
            check_kinds(record)
            return record
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def read_outside(self, run_id: str) -> RunRecord | None:
        """The record of a run that was found outside the home and is not listed."""
        return self.read_run(self.outside[run_id]) if run_id in self.outside else None

    def runs_on_disk(self) -> tuple[list[RunRecord], list[Path]]:
        """The records in the home's run folders, and the folders that are passed over."""
        found: dict[str, RunRecord] = {}
        skipped = []
        for path in sorted(self.home.glob("*/run.json")):
            if path.parent.name.startswith("."):  # on its way in or out
                continue
            record = self.read_run(path.parent)
            if record is None or record.id in found:
                skipped.append(path.parent)
            else:
                found[record.id] = record
        return list(found.values()), skipped

    def adopt(self, connection: sqlite3.Connection) -> None:
        """Takes the run folders that lie in the home into the database."""
        for record in sorted(self.runs_on_disk()[0], key=lambda record: record.created):
            self.adopt_run(connection, record)

    def adopt_run(self, connection: sqlite3.Connection, record: RunRecord) -> None:
        """Takes a run with all that its folder holds into the database, in the place of what that held of it."""
        folder = self.folder_of(record)
        RUNS.put(connection, record)
        EVALUATIONS.remove(connection, run_id=record.id)
        remove_measurements(connection, run_id=record.id)
        for evaluation in evaluations_in(folder, run_id=record.id):
            EVALUATIONS.put(connection, evaluation)
        insert_measurements(connection, record.id, folder.evaluations())
