"""What a tracker of experiments is to a run, and the names that the lines of metrics.jsonl have there."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from remask.runs.files import plain

Record = Mapping[str, Any]
PLACE = ("kind", "step")
"""Keys of a record that say which it is; the others are its figures and texts."""


@runtime_checkable
class Sink(Protocol):
    """A tracker that gets every line of metrics.jsonl."""

    @property
    def link(self) -> tuple[str, str] | None:
        """The tracker's name and the address of the run's page there; None where it has none."""
        ...

    def write(self, record: Record) -> None:
        """Takes one line: its `kind`, its `step`, and figures or text."""
        ...

    def close(self, status: str) -> None:
        """Ends the tracker's run, with the run's own status (finished, failed, interrupted)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line in a tracker's words.

    Attributes:
        step: optimiser steps done.
        figures: name → number; nan where it was not finite.
        texts: name → text.
    """

    step: int
    figures: Mapping[str, float]
    texts: Mapping[str, str]


@dataclass
class Naming:
    """Turns lines into entries: `train/loss`, `validation/bits_per_byte`, `sample/text`, `alarm/explosion`, ….

    What trivial predictors get comes once, at step 0. Every validation repeats it under the same names
    (`trivial/bits_per_byte/uniform`), so that charts show constant lines for the curve to fall below.
    """

    trivial: Mapping[str, float] = field(default_factory=dict)

    def entry(self, record: Record) -> Entry:
        """The entry of one line; the same for a record as it is made and as it is read back from metrics.jsonl."""
        line = plain(record)
        kind, step = str(line["kind"]), int(line.get("step") or 0)
        if kind == "alarm":
            return Entry(step=step, figures={}, texts={f"alarm/{line.get('alarm')}": _alarm_text(line)})
        figures: dict[str, float] = {}
        texts: dict[str, str] = {}
        for name, value in _flat(kind, {key: value for key, value in line.items() if key not in PLACE}):
            if isinstance(value, str):
                texts[name] = value
            else:
                figures[name] = math.nan if value is None else float(value)
        if kind == "trivial":
            self.trivial = figures
        beside = self.trivial if kind == "validation" else {}
        return Entry(step=step, figures={**figures, **beside}, texts=texts)


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings under names joined by `/`; a list is one text."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}/{key}", inner)
    else:
        yield name, json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _alarm_text(line: Record) -> str:
    parts = {key: value for key, value in line.items() if key not in (*PLACE, "alarm", "name")}
    said = "; ".join(f"{key}: {value}" for key, value in parts.items())
    return f"{line.get('name')} at step {line.get('step')}. {said}"


def preformatted(text: str) -> str:
    """A text that trackers render as Markdown, marked as a block of code, so that its characters stay as they are."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


class Guarded:
    """A sink whose failures are said once, in one line, and never reach the run.

    After a failure nothing more is written to it: metrics.jsonl has every line, and can be fed to it afterwards.

    Args:
        name: the tracker's name in a recipe.
        begin: opens the sink.
        warn: is told of the failure.
        remedy: what to do afterwards.
    """

    def __init__(self, name: str, begin: Callable[[], Sink], *, warn: Callable[[str], None], remedy: str) -> None:
        self._name, self._warn, self._remedy = name, warn, remedy
        self._sink: Sink | None = None
        try:
            self._sink = begin()
        except Exception as error:
            self._give_up(error)

    @property
    def link(self) -> tuple[str, str] | None:
        """The tracker's own; None if it has failed."""
        return None if self._sink is None else self._sink.link

    def write(self, record: Record) -> None:
        """Hands the line on, unless the tracker has failed before."""
        try:
            if self._sink is not None:
                self._sink.write(record)
        except Exception as error:
            self._give_up(error)

    def close(self, status: str) -> None:
        """Ends the tracker's run, unless it has failed before."""
        try:
            if self._sink is not None:
                self._sink.close(status)
        except Exception as error:
            self._give_up(error)
        self._sink = None

    def _give_up(self, error: Exception) -> None:
        self._sink = None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        self._warn(
            f"tracking by {self._name} stopped: {reason}. The run goes on, metrics.jsonl has it all; {self._remedy}"
        )
