"""What a person sees while a run trains: a panel that redraws in a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from remask.cli.tables import predictor_label

if TYPE_CHECKING:
    from remask.runs import RunRecord
    from remask.trainer import Run

SAMPLE_CHARACTERS = 100


class PlainWatcher:
    """Prints a line for each logged record; for pipes, files and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.reference = ""
        self._said_tokenizing = False

    def tokenizing(self, done: int) -> None:
        """Says once that text is being tokenized."""
        del done
        if not self._said_tokenizing:
            self.say("tokenizing the text (once; the tokens are cached)")
            self._said_tokenizing = True

    def prepared(self, run: "Run") -> None:
        """Says what is about to be trained, and what trivial predictors get."""
        self.reference = reference_line(run.materials.trivial["bits_per_byte"])
        spec = run.recipe.training
        self.say(
            f"run {run.record.id} on {run.record.device}: {run.model.parameters:,} parameters, {spec.steps:,} steps"
        )
        self.say(f"folder {run.folder.path}")
        self.say(f"trivial predictors, bits/byte: {listing(run.materials.trivial['bits_per_byte'])}")

    def logged(self, record: Mapping[str, Any]) -> None:
        """Prints one record."""
        self.say(line_of(record, self.reference))

    def said(self, message: str) -> None:
        """Prints a message."""
        self.say(message)

    def finished(self, record: "RunRecord") -> None:
        """Prints how the run ended and what to do next."""
        for line in closing_lines(record):
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
        self.latest: dict[str, Mapping[str, Any]] = {}

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
            if "bits_per_byte" not in record:
                return f"{step}  loss {record['loss']:.4f} (what is minimised; no likelihood)  {speed}"
            bits = f"{record['bits_per_byte']:.3f} bits/byte  ({reference})"
            return f"{step}  loss {record['loss']:.4f}  training {bits}  {speed}"
        case "validation":
            error = "" if record["stderr"] is None else f" ± {record['stderr']:.3f}"
            return f"{step}  validation {record['bits_per_byte']:.3f}{error} bits/byte  ({reference})"
        case "alarm":
            said = f"{record['name']}: {record['evidence']}"
            return f"{step}  ALARM {said}. Usual cause: {record['cause']}. Try: {record['remedy']}"
        case _:
            text = " ".join(str(record["text"]).split())
            return f"{step}  sample: {text[:SAMPLE_CHARACTERS]}"


def reference_line(trivial: Mapping[str, float]) -> str:
    """The trivial values that stand beside every figure of a run."""
    shown = {name: trivial[name] for name in ("unigram", "byte 2-gram", "byte 3-gram") if name in trivial}
    return listing(shown)


def listing(values: Mapping[str, float]) -> str:
    """`name value` pairs in a line."""
    return ", ".join(f"{predictor_label(name)} {value:.2f}" for name, value in values.items())


def closing_lines(record: "RunRecord") -> Iterator[str]:
    """What stands below a finished training."""
    yield f"finished {record.id}: {record.tokens_seen:,} tokens"
    yield f"verdict: {record.verdict}"
    yield "next: remask evaluate last · remask sample last --live · remask report last"
