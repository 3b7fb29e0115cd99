"""Weights & Biases: its files in the run folder, or its server."""

import hashlib
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from remask.sinks.base import Naming, Record

_LONGEST_ID = 64  # characters that the server takes
_PATIENCE = 5.0  # seconds
_FAILED = 1  # the exit code by which W&B calls a run failed


class WeightsAndBiases:
    """One row of W&B's history for each line of metrics.jsonl; the charts' axis is `step`, optimiser steps.

    The number of a line is W&B's own step of its row. Offline files are written anew, from the first line. A server
    says at which row it stands, and gets the rows that a crash lost; a row cannot be taken back, so what was sent after
    the checkpoint from which a run goes on stands there beside what the run makes of the same steps.

    Args:
        run_id: the run's id, which is its name there too.
        project: W&B's project.
        folder: the run folder; W&B's files are put in `wandb` within it.
        mode: offline keeps the files for `wandb sync`; online sends the rows as they come.
        config: the resolved recipe.
        known: lines of metrics.jsonl so far.

    Attributes:
        link: the run's page, where the server has one.
    """

    def __init__(
        self,
        run_id: str,
        *,
        project: str,
        folder: Path,
        mode: Literal["offline", "online"],
        config: Mapping[str, Any],
        known: Iterable[Record],
    ) -> None:
        import wandb

        identifier = wandb_id(run_id)
        for left in folder.glob(f"wandb/offline-run-*-{identifier}"):
            _remove(left)
        self._run = wandb.init(
            project=project,
            id=identifier,
            name=run_id,
            dir=str(folder),
            mode=mode,
            config=dict(config),
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        address = self._run.url if mode == "online" else None  # W&B complains when asked for it offline
        self.link = ("wandb", address) if address else None
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self._naming, self._row = Naming(), 0
        for record in known:
            self._add(record)
        self._row = max(self._row, self._run.starting_step)

    def write(self, record: Record) -> None:
        """Adds one row."""
        self._add(record)

    def close(self, status: str) -> None:
        """Ends W&B's run. Its service writes offline files to their end within a second, at the latest at exit."""
        self._run.finish(exit_code=0 if status == "finished" else _FAILED)

    def _add(self, record: Record) -> None:
        entry = self._naming.entry(record)
        if self._row >= self._run.starting_step:  # else the server has it
            self._run.log({"step": entry.step, **entry.figures, **entry.texts}, step=self._row, commit=True)
        self._row += 1


def _remove(folder: Path) -> None:
    """Removes a folder into which W&B's service may still write the end of a run."""
    last = time.monotonic() + _PATIENCE
    while True:
        try:
            return shutil.rmtree(folder)
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > last:
                raise
            time.sleep(0.1)


def wandb_id(run_id: str) -> str:
    """A run's id as W&B takes it: the id itself, or its beginning and a digest of it where it is too long."""
    if len(run_id) <= _LONGEST_ID:
        return run_id
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:12]
    return f"{run_id[: _LONGEST_ID - len(digest) - 1]}-{digest}"
