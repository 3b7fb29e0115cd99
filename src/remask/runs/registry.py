"""The list of all runs in a home: an SQLite index over the run folders, each with its own record."""

import difflib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask.errors import RunError, UserError, did_you_mean
from remask.runs.database import Database, UnusableRegistry
from remask.runs.files import json_line, plain, write_atomic
from remask.runs.folder import RunFolder
from remask.runs.home import timestamp
from remask.runs.record import RunRecord

if TYPE_CHECKING:
    from remask.evaluation.measurement import Measurement

_COLUMNS = tuple(field.name for field in fields(RunRecord))
_JSON_COLUMNS = frozenset({"lineage", "links", "tags", "headline", "trivial"})
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM runs"
_STORE = (
    f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS)}"
)
_EVALUATION = ("name", "value", "unit", "n", "stderr", "trivial", "protocol", "task", "created")
_LISTED = 6  # candidates named in an error

# the name `list` is a method of Registry, so its annotations use these
Records = list[RunRecord]
Rows = list[dict[str, Any]]
Paths = list[Path]
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
    """All runs of a home. Opening one touches nothing; the file is created by the first write.

    Every run's record stands twice: here, and as `run.json` in its folder. Both are written within one
    transaction, so processes that update the same run do so one after the other. Where the file is
    missing, the records are read from the folders.

    A training takes its folder's lock before it creates its record or sets it to running, and ends its
    record before it gives the lock back: whoever reads a running record with a free lock marks it killed.

    Attributes:
        home: the folder that holds the run folders.
        path: the SQLite file.
    """

    def __init__(self, home: Path | str) -> None:
        self.home = Path(home)
        self.path = self.home / "registry.sqlite"
        self._database = Database(self.path, on_create=self._adopt)
        self._outside: dict[str, Path] = {}  # folders that `find` met outside the home and that are not listed

    def folder_of(self, record: RunRecord) -> RunFolder:
        """The run's folder, which may have been deleted since."""
        return RunFolder(self.home / record.folder)

    # -- writing ----------------------------------------------------------------------------------

    def create(self, record: RunRecord) -> RunRecord:
        """Adds a run; without a `folder` it is the one in the home named like the run.

        Raises:
            UserError: there is a run of that id, or the registry is corrupt.
            RunError: the registry or run.json cannot be written; neither is changed then.
        """
        record = replace(record, folder=self._relative(record.folder or record.id))
        with self._database.write() as connection:
            if _select(connection, record.id) is not None:
                raise UserError(f"there is a run {record.id} in {self.home} already: choose another id")
            self._store(connection, record)
        return record

    def update(self, run_id: str, **values: Any) -> RunRecord:
        """Changes fields of a run, here and in its run.json, and returns the new record.

        Raises:
            UserError: there is no such run, or the registry is corrupt.
            RunError: the registry or run.json cannot be written; neither is changed then.
            TypeError: a name is no field of `RunRecord`.
        """
        with self._database.write() as connection:
            record = replace(self._present(connection, run_id), **values)
            self._store(connection, record)
        return record

    def add_evaluations(self, run_id: str, measurements: "Iterable[Measurement]", *, task: str) -> None:
        """Adds measurements to a run, here and in its evaluations.jsonl.

        Args:
            run_id: the run that was measured.
            measurements: its figures.
            task: what was evaluated, e.g. `likelihood` or `quality`.

        Raises:
            UserError: there is no such run, or the registry is corrupt.
            RunError: the registry or the file cannot be written.
        """
        extra = {"task": task, "created": timestamp()}
        rows = [plain(measurement.to_json()) | extra for measurement in measurements]
        with self._database.write() as connection:
            record = self._present(connection, run_id)
            folder = self.folder_of(record)
            self._store(connection, record)
            _insert_evaluations(connection, run_id, rows)
            if folder.exists():
                for row in rows:
                    folder.append_evaluation(row)
                folder.close()

    def rebuild(self) -> Rebuilt:
        """Takes the records and evaluations of every run folder in the home into the registry again.

        A usable registry is updated in place, so that trainings may go on meanwhile, and keeps the runs
        whose folders are gone; an unusable one is kept as `registry.sqlite.bak` and made anew.

        Raises:
            RunError: the home cannot be written.
        """
        records, skipped = self._records_on_disk()
        kept = None
        if self.home.is_dir():
            try:
                with self._database.write() as connection:
                    self._database.check(connection)
                    self._adopt(connection)
            except UnusableRegistry:
                kept = self._database.replace()
        return Rebuilt(runs=len(records), skipped=tuple(skipped), kept=kept)

    # -- reading ----------------------------------------------------------------------------------

    def get(self, run_id: str) -> RunRecord:
        """The run of exactly this id.

        Raises:
            UserError: there is no such run, or the registry is corrupt.
        """
        by_id = {record.id: record for record in self._records()}
        record = self._read_outside(run_id) or by_id.get(run_id)
        if record is None:
            raise self._unknown(run_id, list(by_id))
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
            record = _by_prefix(reference, records) or self._by_folder(reference, records)
        if record is None:
            raise self._unknown(reference, list(by_id))
        return self._settle([record])[0]

    def evaluations(self, run_id: str) -> Rows:
        """A run's measurements, oldest first: `Measurement.to_json()` with `task` and `created`."""
        if run_id in self._outside or not self._database.exists():
            return RunFolder(self._outside.get(run_id, self.home / run_id)).evaluations()
        query = f"SELECT {', '.join(_EVALUATION)} FROM evaluations WHERE run_id = ? ORDER BY number"
        with self._database.read() as connection:
            rows = connection.execute(query, (run_id,)).fetchall()
        with self._understood():
            found = [dict(zip(_EVALUATION, row, strict=True)) for row in rows]
            return [row | {key: json.loads(row[key]) for key in ("trivial", "protocol")} for row in found]

    def disagreements(self, record: RunRecord) -> Names:
        """A sentence for each thing that this registry and the run's folder tell differently.

        Each is written to both within a moment, so this tells damage, or a process killed in that moment.
        """
        folder = self.folder_of(record)
        if record.id in self._outside or not self._database.exists() or not folder.exists():
            return []
        found = []
        other = self._read_record(folder.path)
        if other is None:
            found.append(f"{folder.record_path} is missing or cannot be read")
        else:
            ours, theirs = record.to_json(), other.to_json()
            differing = sorted(name for name in ours if ours[name] != theirs[name])
            if differing:
                found.append(f"the registry and {folder.record_path} differ in {', '.join(differing)}")
        kept = [_measured(row) for row in folder.evaluations()]
        lost = sum(_measured(row) not in kept for row in self.evaluations(record.id))
        if lost:
            rows = "1 measurement" if lost == 1 else f"{lost} measurements"
            found.append(f"{rows} of the registry cannot be found in {folder.evaluations_path}")
        return found

    # -- records, in and out ----------------------------------------------------------------------

    def _records(self) -> Records:
        """All records as they stand, newest first."""
        if not self._database.exists():
            return sorted(self._records_on_disk()[0], key=lambda record: record.created, reverse=True)
        with self._database.read() as connection:
            # by when they were listed, not by `created`: clocks are set back at times
            rows = connection.execute(f"{_SELECT} ORDER BY rowid DESC").fetchall()
        with self._understood():
            return [_from_row(row) for row in rows]

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Turns values that SQLite holds and nobody wrote into the line that says how the registry is made anew."""
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:
            raise self._database.unusable(str(error)) from error

    def _present(self, connection: sqlite3.Connection, run_id: str) -> RunRecord:
        with self._understood():
            listed = _select(connection, run_id)
        outside = self._read_outside(run_id)
        if listed and outside and listed.folder != outside.folder:
            raise UserError(
                f"{outside.folder} is a copy of a run in {self.home}: "
                f"set REMASK_HOME to {Path(outside.folder).parent} to store anything about it"
            )
        record = listed or outside or self._read_record(self.home / run_id)
        if record is None:
            ids = connection.execute("SELECT id FROM runs ORDER BY created DESC").fetchall()
            raise self._unknown(run_id, [name for (name,) in ids])
        return record

    def _store(self, connection: sqlite3.Connection, record: RunRecord) -> None:
        connection.execute(_STORE, _to_row(record))
        folder = self.folder_of(record)
        if folder.exists():  # a deleted folder is not made again
            write_atomic(folder.record_path, json_line(record.to_json()) + "\n")

    def _settle(self, records: Records) -> Records:
        """Marks as killed the runs that are recorded as running and whose process is gone."""
        dead = {record.folder: record.id for record in records if self._is_dead(record)}
        if not dead:
            return records
        settled: dict[str, RunRecord] = {}
        # a home without a registry, or one that may only be read, still shows the truth
        if self._database.exists():
            with suppress(RunError):
                settled = self._mark_killed(dead.values())
        return [
            settled.get(record.folder, replace(record, status="killed")) if record.folder in dead else record
            for record in records
        ]

    def _mark_killed(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """The records of these runs by folder, after the dead ones were marked."""
        settled = {}
        with self._database.write() as connection:
            for run_id in run_ids:
                # looked at again under the write lock: the run may have ended properly meanwhile
                record = _select(connection, run_id)
                if record is not None and self._is_dead(record):
                    record = replace(record, status="killed")
                    self._store(connection, record)
                if record is not None:
                    settled[record.folder] = record
        return settled

    def _is_dead(self, record: RunRecord) -> bool:
        return record.status == "running" and not self.folder_of(record).is_locked()

    def _read_record(self, folder: Path) -> RunRecord | None:
        """The record in a run folder, placed where the folder lies now; None if there is none to read."""
        try:
            values = json.loads((folder / "run.json").read_bytes())
            return replace(RunRecord.from_json(values), folder=self._relative(folder.resolve()))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def _read_outside(self, run_id: str) -> RunRecord | None:
        return self._read_record(self._outside[run_id]) if run_id in self._outside else None

    def _records_on_disk(self) -> tuple[Records, Paths]:
        found: dict[str, RunRecord] = {}
        skipped = []
        for path in sorted(self.home.glob("*/run.json")):
            record = self._read_record(path.parent)
            if record is None or record.id in found:
                skipped.append(path.parent)
            else:
                found[record.id] = record
        return list(found.values()), skipped

    def _adopt(self, connection: sqlite3.Connection) -> None:
        """Takes the run folders that lie in the home into the registry."""
        for record in sorted(self._records_on_disk()[0], key=lambda record: record.created):
            connection.execute(_STORE, _to_row(record))
            connection.execute("DELETE FROM evaluations WHERE run_id = ?", (record.id,))
            _insert_evaluations(connection, record.id, self.folder_of(record).evaluations())

    def _relative(self, folder: Path | str) -> str:
        home = self.home.resolve()
        path = (home / folder).resolve()
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    # -- references -------------------------------------------------------------------------------

    def _by_folder(self, reference: str, records: Records) -> RunRecord | None:
        path = Path(reference).expanduser()
        if not path.is_dir():
            return None
        path, home = path.resolve(), self.home.resolve()
        listed = next((record for record in records if home / record.folder == path), None)
        record = listed or self._read_record(path)
        if record is None:
            raise UserError(f"{path} is not a run's folder: it has no readable run.json")
        if listed is None:
            self._outside[record.id] = path
        return record

    def _unknown(self, reference: str, ids: Names) -> UserError:
        if not ids:
            return UserError(f"no run '{reference}': {self.home} holds no runs yet, `remask train` starts one")
        near = difflib.get_close_matches(reference, ids, n=_LISTED, cutoff=0.5) or ids[:_LISTED]
        hint = did_you_mean(reference, [*near, "last"])
        return UserError(f"no run '{reference}' in {self.home}: {hint} `remask runs` lists all {len(ids)}.")

    # `list` stands last: within the class its name hides the type
    def list(self) -> Records:
        """All runs, newest first; an empty home gives an empty list and stays empty.

        Raises:
            UserError: the registry is corrupt.
        """
        return self._settle(self._records())


def _to_row(record: RunRecord) -> tuple[Any, ...]:
    values = record.to_json()
    texts = {name: json.dumps(values[name]) for name in _JSON_COLUMNS}
    return tuple((values | texts)[name] for name in _COLUMNS)


def _from_row(row: tuple[Any, ...]) -> RunRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in _JSON_COLUMNS:
        values[name] = json.loads(values[name])
    if values["git_dirty"] is not None:
        values["git_dirty"] = bool(values["git_dirty"])
    return RunRecord(**values)


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in _EVALUATION}


def _by_prefix(reference: str, records: Records) -> RunRecord | None:
    matches = [record for record in records if reference and record.id.startswith(reference)]
    if len(matches) > 1:
        named = ", ".join(record.id for record in matches[:_LISTED])
        more = f" and {len(matches) - _LISTED} more" if len(matches) > _LISTED else ""
        raise UserError(f"'{reference}' begins the ids of {len(matches)} runs: {named}{more}. Write more of it.")
    return matches[0] if matches else None


def _select(connection: sqlite3.Connection, run_id: str) -> RunRecord | None:
    row = connection.execute(f"{_SELECT} WHERE id = ?", (run_id,)).fetchone()
    return None if row is None else _from_row(row)


def _insert_evaluations(connection: sqlite3.Connection, run_id: str, rows: Iterable[dict[str, Any]]) -> None:
    names = ("run_id", *_EVALUATION)
    insert = f"INSERT INTO evaluations ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for row in rows:
        if any(row.get(name) is None for name in ("name", "unit", "n", "task", "created")):
            continue  # a line of evaluations.jsonl that is no measurement
        texts = {key: json_line(row.get(key) or {}) for key in ("trivial", "protocol")}
        connection.execute(insert, [run_id, *((row | texts).get(name) for name in _EVALUATION)])
