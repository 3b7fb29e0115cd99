"""One run's folder: its files, its lock and its logs."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remask.runs.files import JsonLines, new_folder, unreadable_lines
from remask.runs.lock import FolderLock


class RunFolder:
    """The files of one run.

    Attributes:
        path: the folder.
        recipe_path: the resolved recipe, which runs again as it is.
        record_path: the registry's record of the run.
        metrics_path: one line for each logged, validated or sampled step.
        samples_path: one line for each sample.
        evaluations_path: one line for each measurement.
        trajectory_path: one denoising, step by step.
        checkpoints_path: the folder of `step-N` folders.
        model_path: the folder of the finished model.
        report_path: the run's page.
        evaluation_folders_path: the folder of the evaluations' own folders.
        lock_path: locked while a process trains into the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe_path = self.path / "recipe.yaml"
        self.record_path = self.path / "run.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.samples_path = self.path / "samples.jsonl"
        self.evaluations_path = self.path / "evaluations.jsonl"
        self.trajectory_path = self.path / "trajectory.json"
        self.checkpoints_path = self.path / "checkpoints"
        self.model_path = self.path / "model"
        self.report_path = self.path / "report.html"
        self.evaluation_folders_path = self.path / "evaluations"
        self._lock = FolderLock(self.path)
        self.lock_path = self._lock.path
        self._metrics = JsonLines(self.metrics_path, sync_interval=1.0)
        self._samples = JsonLines(self.samples_path, sync_interval=1.0)
        self._evaluations = JsonLines(self.evaluations_path, sync_interval=0.0)

    @classmethod
    def create(cls, home: Path | str, run_id: str) -> "RunFolder":
        """Makes a new folder in the home of runs (made too): `run_id`, or `run_id-2`, … where that is taken.

        Raises:
            RunError: the folder cannot be made.
        """
        return cls(new_folder(Path(home), run_id))

    @property
    def run_id(self) -> str:
        """The folder's name, which is the run's id."""
        return self.path.resolve().name

    def exists(self) -> bool:
        """Whether the folder is still there."""
        return self.path.is_dir()

    # -- the lock ---------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for one training; the system lets go when the process dies, even by SIGKILL.

        Raises:
            UserError: another process trains into this folder.
            RunError: the lock file cannot be written.
        """
        with self._lock.hold(in_use=self._in_use):
            try:
                yield
            finally:
                self.close()

    def is_locked(self) -> bool:
        """Whether a process trains into this folder. True too where the lock may not be tried (read-only)."""
        return self._lock.is_held()

    def holder(self) -> dict[str, Any] | None:
        """Who took the lock last and did not give it back: `pid`, `host`, `since`; None if nobody did."""
        return self._lock.holder()

    def _in_use(self) -> str:
        holder = self.holder()
        who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
        since = f" since {holder.get('since')}" if holder else ""
        return (
            f"run {self.run_id} is in use: {who} has been training into {self.path}{since}. "
            "Wait for it or stop it, or start a new run."
        )

    # -- the logs ---------------------------------------------------------------------------------

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl; it has `kind` and `step`, and non-finite numbers become null.

        Raises:
            RunError: the disk is full or the file cannot be written.
        """
        self._metrics.append(record)

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl, oldest first; a line cut short by a kill is skipped."""
        return self._metrics.records()

    def trim_metrics(self, after_step: int) -> None:
        """Drops, atomically, the metrics of steps after `after_step`, as a resume from there must."""
        self._metrics.trim(after_step=after_step)

    def append_sample(self, record: Mapping[str, Any]) -> None:
        """Adds a line to samples.jsonl.

        Raises:
            RunError: the disk is full or the file cannot be written.
        """
        self._samples.append(record)

    def samples(self) -> list[dict[str, Any]]:
        """All lines of samples.jsonl, oldest first; a line cut short by a kill is skipped."""
        return self._samples.records()

    def trim_samples(self, after_step: int) -> None:
        """Drops, atomically, the samples of steps after `after_step`."""
        self._samples.trim(after_step=after_step)

    def append_evaluation(self, record: Mapping[str, Any]) -> None:
        """Adds a line to evaluations.jsonl; `Registry.add_evaluations` calls this, and lists it as well.

        Raises:
            RunError: the disk is full or the file cannot be written.
        """
        self._evaluations.append(record)

    def evaluations(self) -> list[dict[str, Any]]:
        """All lines of evaluations.jsonl, oldest first; a line cut short by a kill is skipped."""
        return self._evaluations.records()

    def replace_evaluations(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Puts these lines in the place of evaluations.jsonl's, atomically, as a removal must.

        Raises:
            RunError: the file cannot be replaced; it is unchanged then.
        """
        self._evaluations.replace(records)

    def complaints(self, *, steps: int) -> list[str]:
        """A sentence for each log of which something cannot be read (a line cut short by a kill, or damage).

        Args:
            steps: that the run has done, by its record; after the first one its metrics cannot be empty.
        """
        found = [] if not steps or self.metrics() else [f"{self.metrics_path} is missing, or holds no line"]
        for path in (self.metrics_path, self.samples_path, self.evaluations_path):
            lost = unreadable_lines(path)
            if lost:
                lines = "1 line" if lost == 1 else f"{lost} lines"
                found.append(f"{lines} of {path} cannot be read and {'is' if lost == 1 else 'are'} left out")
        return found

    def close(self) -> None:
        """Flushes the logs to the disk and closes them; a later append opens them again."""
        for log in (self._metrics, self._samples, self._evaluations):
            log.close()
