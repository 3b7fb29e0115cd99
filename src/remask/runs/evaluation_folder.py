"""One evaluation's folder within a run's: its record, its examples and its lock."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.files import json_line, new_folder, write_atomic
from remask.runs.folder import RunFolder
from remask.runs.home import folder_name, is_plain_name
from remask.runs.kinds import check_kinds
from remask.runs.lock import FolderLock


class EvaluationFolder:
    """The files of one evaluation; its figures stand in the run's evaluations.jsonl.

    Attributes:
        path: the folder, `RUN/evaluations/ID`.
        record_path: the registry's record of the evaluation.
        examples_path: what the figures are sums or means of, example by example.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_path = path / "evaluation.json"
        self.examples_path = path / "examples.json"
        self._lock = FolderLock(path)

    @classmethod
    def create(cls, run: RunFolder, *, task: str, moment: datetime) -> "EvaluationFolder":
        """Makes a new one in a run's folder, `{task}_{YYYYMMDD_HHMMSS}`, or that with `-2`, … where it is taken.

        Raises:
            RunError: the folder cannot be made.
        """
        return cls(new_folder(run.evaluation_folders_path, evaluation_id(task, moment)))

    @classmethod
    def of(cls, run: RunFolder, evaluation: str) -> "EvaluationFolder":
        """The one of a given id, which may not be there."""
        return cls(run.evaluation_folders_path / evaluation)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder while the evaluation goes on.

        Raises:
            UserError: another process holds it.
            RunError: the lock file cannot be written.
        """
        with self._lock.hold(in_use=lambda: f"evaluation {self.path.name} in {self.path} is going on: wait for it"):
            yield

    def is_locked(self) -> bool:
        """Whether the evaluation goes on in some process. True too where the lock may not be tried (read-only)."""
        return self._lock.is_held()

    def record(self, *, run_id: str) -> EvaluationRecord | None:
        """The record that lies here, taken as that of this run's; None if there is none to read."""
        try:
            values = json.loads(self.record_path.read_bytes())
            record = EvaluationRecord.from_json(values | {"id": self.path.name, "run_id": run_id})
            check_kinds(record)
            return record
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, record: EvaluationRecord) -> None:
        """Puts the record here, in a folder that is made where it is missing.

        Raises:
            RunError: it cannot be written; the old one is untouched.
        """
        if not self.path.exists():
            new_folder(self.path.parent, self.path.name)
        write_atomic(self.record_path, json_line(record.to_json()) + "\n")

    def examples(self) -> dict[str, dict[str, Any]] | None:
        """Name of a figure → its examples; empty where there are none, None where they cannot be read."""
        try:
            values = json.loads(self.examples_path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            return None
        whole = isinstance(values, dict) and all(_are_examples(kept) for kept in values.values())
        return values if whole else None

    def write_examples(self, examples: Mapping[str, Mapping[str, Any]]) -> None:
        """Puts the examples here, in the place of those that there are.

        Raises:
            RunError: they cannot be written; the old ones are untouched.
        """
        write_atomic(self.examples_path, json_line(examples) + "\n")


def _are_examples(values: Any) -> bool:
    return isinstance(values, dict) and isinstance(values.get("values"), list) and "identity" in values


def evaluation_id(task: str, moment: datetime) -> str:
    """`{task}_{YYYYMMDD_HHMMSS}`, with characters unfit for a folder replaced by `-`."""
    return f"{folder_name(task)}_{moment.strftime('%Y%m%d_%H%M%S')}"


def evaluations_in(run: RunFolder, *, run_id: str) -> list[EvaluationRecord]:
    """The records of a run's evaluation folders, oldest first."""
    paths = [path.parent for path in sorted(run.evaluation_folders_path.glob("*/evaluation.json"))]
    found = [EvaluationFolder(path).record(run_id=run_id) for path in paths if is_plain_name(path.name)]
    return sorted((record for record in found if record is not None), key=lambda record: record.created)
