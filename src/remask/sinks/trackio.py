"""Trackio: its local database, which `trackio show` displays and `trackio sync` sends to a Space."""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from remask.sinks.base import Naming, Record, preformatted

_ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Environment variables that send rows away at once; a server could not give up those that a crash doubled."""


class Trackio:
    """One row of a local Trackio project for each line of metrics.jsonl.

    Args:
        run_id: the run's id, which is its name there.
        project: Trackio's project; an older run of this name in it is replaced.
        config: the resolved recipe.
        known: lines of metrics.jsonl so far.
    """

    link = None

    def __init__(self, run_id: str, *, project: str, config: Mapping[str, Any], known: Iterable[Record]) -> None:
        import trackio

        self._markdown = trackio.Markdown
        with _quiet(), _local():
            _forget(run_id, project=project)
            self._run = trackio.init(
                project,
                name=run_id,
                config=dict(config),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._naming = Naming()
        for record in known:
            self.write(record)

    def write(self, record: Record) -> None:
        """Adds one row; Trackio's own thread stores it within a second."""
        entry = self._naming.entry(record)
        texts = {name: self._markdown(preformatted(text)) for name, text in entry.texts.items()}
        self._run.log({**entry.figures, **texts}, step=entry.step)

    def close(self, status: str) -> None:
        """Stores what is still to be stored."""
        import trackio

        del status  # Trackio knows none
        with _quiet():
            trackio.finish()  # not the run's own: Trackio would finish it again, and say so, at the process's end


def _forget(run_id: str, *, project: str) -> None:
    """Deletes what the project holds of a run."""
    import trackio

    try:
        runs = trackio.Api().runs(project)
    except ValueError:  # there is no such project yet
        return
    for run in runs:
        if run.name == run_id:
            run.delete()


@contextlib.contextmanager
def _local() -> Iterator[None]:
    """The environment without the variables that send rows away."""
    kept = {name: os.environ.pop(name) for name in _ELSEWHERE if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Keeps Trackio's greetings off standard output."""
    return contextlib.redirect_stdout(io.StringIO())
