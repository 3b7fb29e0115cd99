"""What a run leaves behind while it goes on, and who is told: written by one process, whatever the number of others."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from remask.drawing import Drawing
from remask.runs import Registry, RunFolder, RunRecord, write_atomic
from remask.sinks import Sink

Records = Sequence[Mapping[str, Any]]


class Book:
    """The book of a run in progress as a process has it that writes nothing, because another one does.

    Attributes:
        record: the run's record so far; here, as it was when the process came to the run.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record

    def open(self, *, step: int, trivial: Mapping[str, Any]) -> None:
        """Begins, or goes on from `step`: what was logged after it is dropped."""

    def emit(self, line: Mapping[str, Any]) -> None:
        """A line for metrics.jsonl, the trackers and whoever watches."""

    def note(self, **changes: Any) -> None:
        """Changes fields of the record."""

    def say(self, message: str) -> None:
        """A line for whoever watches."""

    def keep_samples(self, drawn: Drawing, *, step: int) -> None:
        """The samples of the finished model, in the place of any of an earlier end."""

    def close(self, status: str) -> None:
        """The last thing, however the run ended."""


class RunBook(Book):
    """The book of the process that writes.

    Args:
        folder: locked by this process.
        registry: keeps the record.
        record: the run's record so far.
        logged: is handed every line of metrics.jsonl, to show it.
        said: is handed every message.
        open_sinks: lines that metrics.jsonl holds already → trackers that know them and get all further ones.
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        registry: Registry,
        record: RunRecord,
        logged: Callable[[Mapping[str, Any]], None],
        said: Callable[[str], None],
        open_sinks: Callable[[Records], Sequence[Sink]],
    ) -> None:
        super().__init__(record)
        self.folder, self.registry = folder, registry
        self._logged, self._said, self._open_sinks = logged, said, open_sinks
        self._sinks: Sequence[Sink] = ()

    def open(self, *, step: int, trivial: Mapping[str, Any]) -> None:
        """Begins, or goes on from `step`: what was logged after it is dropped."""
        self._close_sinks("running")
        self.folder.trim_metrics(step)
        self.folder.trim_samples(step)
        if not any(line["kind"] == "trivial" for line in self.folder.metrics()):
            self.folder.append_metrics({"kind": "trivial", "step": 0, **trivial})
        self._sinks = self._open_sinks(self.folder.metrics())
        found = dict(sink.link for sink in self._sinks if sink.link)
        if found:
            self.note(links={**self.record.links, **found})

    def emit(self, line: Mapping[str, Any]) -> None:
        """A line for metrics.jsonl first, then for the trackers and whoever watches."""
        self.folder.append_metrics(line)
        for sink in self._sinks:
            sink.write(line)
        self._logged(line)

    def note(self, **changes: Any) -> None:
        """Changes fields of the record."""
        self.record = self.registry.update(self.record.id, **changes)

    def say(self, message: str) -> None:
        """A line for whoever watches."""
        self._said(message)

    def keep_samples(self, drawn: Drawing, *, step: int) -> None:
        """The samples of the finished model, in the place of any of an earlier end."""
        write_atomic(self.folder.trajectory_path, json.dumps(drawn.course, ensure_ascii=False))
        self.folder.trim_samples(step - 1)
        for line in drawn.records:
            self.folder.append_sample(line)

    def close(self, status: str) -> None:
        """Flushes the logs, and ends the trackers' run with its status."""
        self.folder.close()
        self._close_sinks(status)

    def _close_sinks(self, status: str) -> None:
        sinks, self._sinks = self._sinks, ()
        for sink in sinks:
            sink.close(status)
