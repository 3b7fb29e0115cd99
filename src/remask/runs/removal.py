"""Taking runs and evaluations away for good: out of the registry, then out of sight, then off the disk."""

import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from remask.errors import RunError, UserError
from remask.runs.evaluation_folder import EvaluationFolder, evaluations_in
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.figures import without
from remask.runs.files import disk_error
from remask.runs.folder import RunFolder
from remask.runs.record import RunRecord
from remask.runs.rows import EVALUATIONS, insert_measurements, remove_measurements, select_measurements
from remask.runs.store import Store

_REMOVED = ".removed"  # ends the hidden name of a folder that is being deleted
_ABANDONED = 86400.0  # seconds; a large copy takes its time


def remove_run(store: Store, record: RunRecord) -> None:
    """Removes a run: its rows, and its folder if that lies in the home.

    Killed at any moment, it leaves a whole run or none: the rows go in one transaction, the folder is renamed before
    anything in it is deleted. A folder without rows is listed again by a rebuild, and removed by its path.

    Raises:
        UserError: a process trains or evaluates the run.
        RunError: the registry or the folder cannot be changed; then the run is listed as before.
    """
    folder = store.folder_of(record)
    if record.id in store.outside and not lies_in_home(record):
        raise UserError(f"{folder.path} is no folder of {store.home}, and not listed there: delete the folder itself")
    if not lies_in_home(record) or not folder.exists():
        with store.database.write() as connection:
            store.forget(connection, store.present(connection, record.id).id)
        return
    with folder.lock():
        _refuse_evaluating(folder, record.id)
        with store.database.write() as connection:
            store.forget(connection, store.present(connection, record.id).id)
        try:
            aside = _put_away(folder.path)
        except RunError:
            with store.database.write() as connection:
                store.adopt_run(connection, record)
            raise
    sweep(store.home)
    _delete(aside)


def remove_evaluation(store: Store, record: EvaluationRecord) -> None:
    """Removes an evaluation: its rows, its lines of the run's evaluations.jsonl, and its folder.

    Raises:
        UserError: it is going on.
        RunError: the registry or the files cannot be changed.
    """
    with store.database.write() as connection:
        run = store.present(connection, record.run_id)
        folder = store.folder_of(run)
        own = EvaluationFolder.of(folder, record.id)
        if own.is_locked():
            raise UserError(f"evaluation {record.reference} is going on. Wait for it, or stop it")
        lines = folder.evaluations()
        kept = without(lines, record.id, run_id=run.id, recorded=evaluations_in(folder, run_id=run.id))
        _forget_evaluation(store, connection, record)
        if len(kept) < len(lines):
            folder.replace_evaluations(kept)
    if own.path.exists():
        _delete(_put_away(own.path))


def lies_in_home(record: RunRecord) -> bool:
    """Whether the run's folder is one of the home's, and so the home's to delete."""
    return not Path(record.folder).is_absolute()


def _forget_evaluation(store: Store, connection: sqlite3.Connection, record: EvaluationRecord) -> None:
    with store.understood():
        rows = [row for _, row in select_measurements(connection, record.run_id)]
        recorded = EVALUATIONS.select(connection, run_id=record.run_id)
    kept = without(rows, record.id, run_id=record.run_id, recorded=recorded)
    EVALUATIONS.remove(connection, run_id=record.run_id, id=record.id)
    if len(kept) < len(rows):
        remove_measurements(connection, run_id=record.run_id)
        insert_measurements(connection, record.run_id, kept)


def _refuse_evaluating(folder: RunFolder, run_id: str) -> None:
    for evaluation in evaluations_in(folder, run_id=run_id):
        if evaluation.status == "running" and EvaluationFolder.of(folder, evaluation.id).is_locked():
            raise UserError(f"evaluation {evaluation.reference} is going on. Wait for it, or stop it")


def _put_away(folder: Path) -> Path:
    """Takes a folder out of sight in one step; returns where it lies now, beside its old place."""
    aside = folder.with_name(f".{folder.name[:200]}.{os.urandom(6).hex()}{_REMOVED}")
    try:
        os.replace(folder, aside)
    except OSError as error:
        raise disk_error(folder, error) from error
    return aside


def _delete(aside: Path) -> None:
    try:
        shutil.rmtree(aside)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot delete {error.filename or aside}: {reason}; what is left lies in {aside}") from error


def sweep(home: Path) -> None:
    """Deletes what removals and imports left in a home that were killed a day ago or more."""
    for suffix in (_REMOVED, ".import"):
        for folder in home.glob(f".*{suffix}"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(folder)
