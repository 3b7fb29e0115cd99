"""What a person sees while a run trains: a panel that redraws in a terminal, plain lines elsewhere."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from remask.cli.tables import predictor_label
from remask.health.evidence import OWN_FIGURES, own_figure

if TYPE_CHECKING:
    from remask.runs import RunRecord
    from remask.trainer import Run

SAMPLE_CHARACTERS = 100


class TextMeter:
    """How far a long work on text has come, in lines: one at its start, then one every so many seconds.

    Args:
        name: of the work.
        note: what the first line says beside it.
        every: seconds between lines.
        clock: gives seconds; never goes back.
    """

    def __init__(self, name: str, *, note: str, every: float = 10.0, clock: Callable[[], float] = monotonic) -> None:
        self.name, self.note = name, note
        self._every, self._clock = every, clock
        self._first: tuple[float, int] | None = None
        self._said = 0.0

    def line(self, done: int, total: int | None) -> str | None:
        """What to say when so many bytes of text are done, of so many (None: not known); mostly nothing."""
        now = self._clock()
        if self._first is None or done < self._first[1]:  # a work of the same name begins anew
            self._first, self._said = (now, done), now
            return f"{self.name} ({self.note})"
        if now - self._said < self._every:
            return None
        self._said = now
        since, before = self._first
        return f"{self.name}: {amount_done(done, total, speed=(done - before) / max(now - since, 1e-9))}"


def amount_done(done: int, total: int | None, *, speed: float) -> str:
    """Bytes done, of how many where that is known, bytes a second, and the time left."""
    if total is None or done > total:
        return f"{done / 1e6:,.0f} MB, {speed / 1e6:.1f} MB/s"
    left = f", {timedelta(seconds=round((total - done) / speed))} left" if speed > 0 else ""
    return f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {speed / 1e6:.1f} MB/s{left}"


class TimeLeft:
    """How long a training goes on, from its pace since this process took it up, validations and checkpoints included.

    Args:
        steps: in all.
        step: those made before.
        seconds: they took.
    """

    def __init__(self, steps: int, *, step: int, seconds: float) -> None:
        self._steps, self._first = steps, (step, seconds)

    def words(self, record: Mapping[str, Any]) -> str:
        """`1 h 12 min left` behind a training line; nothing at the end, or behind a run that went back."""
        made, took = record["step"] - self._first[0], record["seconds"] - self._first[1]
        left = self._steps - record["step"]
        return f"  {in_words(left * took / made)} left" if made > 0 and left > 0 else ""


def in_words(seconds: float) -> str:
    """A length of time in its two largest units: `48 s`, `12 min 31 s`, `1 h 12 min`, `3 d 4 h`."""
    whole = round(seconds)
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((k for k, (_, count) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {name}" for name, count in units[first : first + 2])


class PlainWatcher:
    """Prints a line for each logged record; for pipes, files and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.reference = ""
        self.prompt = ""
        self.left: TimeLeft | None = None
        self._learning = TextMeter("learning a vocabulary", note="once; it is cached")
        self._tokenizing = TextMeter("tokenizing the text", note="once; the tokens are cached")

    def learning(self, done: int, total: int | None) -> None:
        """Says now and then how much of the text a vocabulary has been learned from."""
        self._meter(self._learning, done, total)

    def tokenizing(self, done: int, total: int | None) -> None:
        """Says now and then how much of the text has been tokenized."""
        self._meter(self._tokenizing, done, total)

    def _meter(self, meter: TextMeter, done: int, total: int | None) -> None:
        if line := meter.line(done, total):
            self.say(line)

    def prepared(self, run: "Run") -> None:
        """Says what is about to be trained, where its parts lie, and what trivial predictors get."""
        from remask.backbones.placement import device_lines
        from remask.drawing import answers_prompts

        trivial = run.materials.headline_trivial
        self.reference = reference_line(trivial)
        own = own_figure(run.materials.trivial)
        spec = run.recipe.training
        self.prompt = " --prompt TEXT" if answers_prompts(run.recipe) else ""
        self.left = TimeLeft(spec.steps, step=run.state.step, seconds=run.seconds)
        self.say(
            f"run {run.record.id} on {run.record.device}: {run.model.parameters:,} parameters, {spec.steps:,} steps"
        )
        self.say(f"folder {run.folder.path}")
        for line in device_lines(run.model.network):
            self.say(line)
        self.say(f"trivial predictors, {'bits/byte' if own is None else OWN_FIGURES[own]}: {listing(trivial)}")

    def logged(self, record: Mapping[str, Any]) -> None:
        """Prints one record; a training line with the time that is left."""
        left = self.left.words(record) if self.left is not None and record["kind"] == "train" else ""
        self.say(line_of(record, self.reference) + left)

    def said(self, message: str) -> None:
        """Prints a message."""
        self.say(message)

    def finished(self, record: "RunRecord") -> None:
        """Prints how the run ended and what to do next."""
        for line in closing_lines(record, prompt=self.prompt):
            self.say(line)

    def say(self, line: str) -> None:
        """One line, exactly as it is."""
        self.console.print(Text(line), soft_wrap=True)


class LiveWatcher(PlainWatcher):
    """Redraws one panel: progress with the time left, loss beside its trivial value, speed, the latest sample."""

    def __init__(self, console: Console, live: Live) -> None:
        super().__init__(console)
        self.live = live
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.bar.add_task("training", total=None)
        self.text_bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.latest: dict[str, Mapping[str, Any]] = {}

    def _meter(self, meter: TextMeter, done: int, total: int | None) -> None:
        tasks = self.text_bar.tasks
        if not tasks or tasks[0].description != meter.name or done < tasks[0].completed:
            for task in tasks:
                self.text_bar.remove_task(task.id)
            self.text_bar.add_task(meter.name, completed=done)
        known = total if total is not None and done <= total else None
        self.text_bar.update(self.text_bar.tasks[0].id, completed=done, total=known)
        self.live.update(self.text_bar)

    def prepared(self, run: "Run") -> None:
        """Says what is about to be trained, and starts the bar."""
        super().prepared(run)
        self.bar.update(self.task, total=run.recipe.training.steps, completed=run.state.step)
        self._draw()

    def logged(self, record: Mapping[str, Any]) -> None:
        """Puts a record into the panel; validations and alarms also stay as lines above it."""
        self.latest[record["kind"]] = record
        if record["kind"] in ("validation", "alarm"):
            self.say(line_of(record, self.reference))
        self.bar.update(self.task, completed=record["step"])
        self._draw()

    def _draw(self) -> None:
        table = Table.grid(padding=(0, 2))
        for kind in ("train", "validation", "sample"):
            if kind in self.latest:
                table.add_row(Text(kind, style="bold"), Text(line_of(self.latest[kind], self.reference)))
        self.live.update(Group(self.bar, table))


@contextmanager
def make_watcher() -> Iterator[PlainWatcher]:
    """A live panel where standard error is a terminal, plain lines where it is not."""
    console = Console(stderr=True, highlight=False)
    if not (console.is_terminal and sys.stderr.isatty()):
        yield PlainWatcher(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield LiveWatcher(console, live)


def line_of(record: Mapping[str, Any], reference: str) -> str:
    """One metrics record as a line."""
    step = f"step {record['step']:>6}"
    match record["kind"]:
        case "train":
            speed = f"{record['tokens_per_second']:,.0f} tokens/s"
            if record.get("skipped_steps") and math.isnan(record["loss"]):
                return f"{step}  no step was made: each of the last {record['skipped_steps']} was skipped  {speed}"
            if "bits_per_byte" not in record:
                return f"{step}  loss {record['loss']:.4f} (what is minimised; no likelihood)  {speed}"
            bits = f"{record['bits_per_byte']:.3f} bits/byte  ({reference})"
            return f"{step}  loss {record['loss']:.4f}  training {bits}  {speed}"
        case "validation":
            error = "" if record["stderr"] is None else f" ± {record['stderr']:.3f}"
            if own := own_figure(record):
                figure = f"{record[own]:.3f}{error} {OWN_FIGURES[own]}, no likelihood"
            else:
                figure = f"{record['bits_per_byte']:.3f}{error} bits/byte"
            return f"{step}  validation {figure}  ({reference})"
        case "alarm":
            step = (
                f"step {record.get('failed_step', record['step']):>6}"  # a roll back is written where it goes back to
            )
            said = f"{record['name']}: {record['evidence']}"
            return f"{step}  ALARM {said}. Usual cause: {record['cause']}. Try: {record['remedy']}"
        case _:
            text = " ".join(str(record["text"]).split())
            return f"{step}  {record.get('what', 'sample')}: {text[:SAMPLE_CHARACTERS]}"


def reference_line(trivial: Mapping[str, float]) -> str:
    """The trivial values that stand beside every figure of a run."""
    named = ("unigram", "byte 2-gram", "byte 3-gram", "equal guess", "words in common")
    shown = {name: trivial[name] for name in named if name in trivial}
    return listing(shown)


def listing(values: Mapping[str, float]) -> str:
    """`name value` pairs in a line."""
    return ", ".join(f"{predictor_label(name)} {value:.2f}" for name, value in values.items())


def closing_lines(record: "RunRecord", *, prompt: str) -> Iterator[str]:
    """What stands below a finished training; `prompt` is the option without which `remask sample` draws nothing."""
    yield f"finished {record.id}: {record.tokens_seen:,} tokens"
    yield f"verdict: {record.verdict}"
    sample = "" if own_figure(record.headline) else f" · remask sample last{prompt} --live"
    yield f"next: remask evaluate last{sample} · remask report last"
