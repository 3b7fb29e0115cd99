"""A run's report: one HTML file that needs nothing but itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from remask.errors import UserError
from remask.report import picture, tables
from remask.report.colours import PALETTE, REVEAL_BINS
from remask.report.curves import Curves, curves_of, frame_of, minimised_of, predictor_name, short, trivial_bits_per_byte
from remask.report.figures import NARROW, WIDE, loss_figure, minimised_figure, reveal_figure
from remask.report.reading import (
    Record,
    RunFacts,
    named_numbers,
    number,
    printable,
    read_run,
    text_or_none,
    whole,
)
from remask.runs import write_atomic

_MOST_SAMPLES = 8
_MOST_DRAWN_POSITIONS = 4096

_TOLD_ELSEWHERE = {
    *("id", "verdict", "conclusion", "error", "status", "headline", "trivial", "parameters", "tokens_seen"),
    *("step", "steps", "steps_per_second", "tokens_per_second", "peak_memory_bytes", "device"),
}
_LABELS = {"git_dirty": "uncommitted changes", "created": "began", "finished": "ended"}


def write_report(run: Path, *, file: Path) -> None:
    """Writes a run's report, in one step: a reader never sees half a page.

    Args:
        run: the run's folder.
        file: the page; its folder must exist.

    Raises:
        UserError: `run` is not a run's folder, or `file` cannot be a file there.
        RunError: the disk is full or the folder is read-only; an older page is untouched.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the page's file name, e.g. {file / 'report.html'}")
    if not file.parent.is_dir():
        raise UserError(f"{file} cannot be written: there is no folder {file.parent}; make it first")
    write_atomic(file, render_report(read_run(run)))


def render_report(facts: RunFacts) -> str:
    """The page as HTML, the same bytes for the same facts.

    Args:
        facts: what the run left behind; whatever is missing is left out with a sentence.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["printable"] = printable
    html = environment.get_template("template.html").render(_context(facts))
    # What no UTF-8 file can hold (a lone surrogate from a torn token) has been replaced by `printable`
    # in texts; this catches names and keys.
    return html.encode("utf-8", "replace").decode("utf-8")


def _context(facts: RunFacts) -> dict[str, Any]:
    trivial = trivial_bits_per_byte(facts.metrics) or named_numbers(facts.record.get("trivial"))
    curves = curves_of(facts.metrics, trivial=trivial)
    minimised = minimised_of(facts.metrics)
    return {
        "facts": facts,
        "record": facts.record,
        "palette": PALETTE,
        "bins": range(REVEAL_BINS),
        "state": _state(facts.record),
        "verdict": _verdict(facts.record),
        "alarms": _alarms(facts.metrics),
        "headline": tables.headline_of(facts.evaluations, facts.metrics, trivial=trivial),
        "loss": [] if curves.empty else [Markup(loss_figure(curves, layout)) for layout in (WIDE, NARROW)],
        "loss_note": _loss_note(curves),
        "minimised": [Markup(minimised_figure(minimised, layout)) for layout in (WIDE, NARROW) if minimised],
        "trajectory": _trajectory(facts),
        "samples": [_sample(sample) for sample in facts.samples[-_MOST_SAMPLES:]],
        "more_samples": max(len(facts.samples) - _MOST_SAMPLES, 0),
        "progress": _progress(facts.metrics),
        "likelihood": tables.table_of(facts.evaluations, task="likelihood"),
        "quality": tables.table_of(facts.evaluations, task="quality"),
        "cost": _cost(facts),
        "provenance": _provenance(facts.record),
    }


def _verdict(record: Record) -> tuple[str, str] | None:
    """The verdict's first words, which carry the judgement, and the figures after them."""
    verdict = text_or_none(record.get("verdict"))
    if verdict is None:
        return None
    judgement, colon, reason = verdict.partition(":")
    return judgement + colon, reason


def _alarms(metrics: Sequence[Record]) -> list[tuple[str, str]]:
    """The last alarm of each name, and what is said of it."""
    raised = [line for line in metrics if line.get("kind") == "alarm"]
    counts = Counter(str(line.get("name")) for line in raised)
    last = {str(line.get("name")): line for line in raised}
    return [
        (
            f"{name}, step {line.get('failed_step', line.get('step'))}"
            + (f" (the last of {counts[name]} alarms)" if counts[name] > 1 else ""),
            f"{line.get('evidence')}. Usual cause: {line.get('cause')}. Try: {line.get('remedy')}.",
        )
        for name, line in last.items()
    ]


def _state(record: Record) -> str | None:
    """One sentence on a run that did not end well or not yet."""
    done = f"{whole(record.get('step')) or 0:,} of {whole(record.get('steps')) or 0:,} steps"
    sentences = {
        "running": f"The run had not ended when it was last written down, after {done}.",
        "failed": f"The run failed after {done}.",
        "killed": f"The run's process died after {done}.",
        "interrupted": f"The run was interrupted after {done}.",
    }
    sentence = sentences.get(str(record.get("status")))
    error = text_or_none(record.get("error"))
    return f"{sentence} {error}" if sentence and error else sentence or error


def _loss_note(curves: Curves) -> str:
    """What the loss figure leaves outside its frame, in words."""
    low, high = frame_of(curves)
    above = sum(value > high for _, value in curves.smooth)
    outside = [
        f"{predictor_name(name)} ({short(value)})"
        for name, value in sorted(curves.trivial.items())
        if not low <= value <= high
    ]
    notes = []
    if outside:
        notes.append(f"Outside the frame: {', '.join(outside)}.")
    if above:
        top = max(value for _, value in curves.smooth)
        notes.append(f"The curve enters from above; it began at {short(top)}.")
    if not curves.trivial:
        notes.append("The run wrote down no trivial values, so no lines stand beside the curve.")
    if not curves.validation:
        notes.append("The run was not validated while it trained.")
    return " ".join(notes)


def _trajectory(facts: RunFacts) -> dict[str, Any] | None:
    found = facts.trajectory
    if found is None:
        return None
    frames = picture.frame_views(found)
    drawn = (WIDE, NARROW) if len(found.tokens) <= _MOST_DRAWN_POSITIONS else ()
    return {
        "summary": picture.summary(found),
        "spans": picture.final_spans(found),
        "legend": picture.legend(found),
        "frames": frames,
        "frames_note": picture.strip_note(frames),
        "figures": [Markup(reveal_figure(found, layout)) for layout in drawn],
    }


_HOW = ("grid", "block_length", "guidance", "stop", "budget", "remasking", "eta", "corrector_steps")
_HOW += ("threshold", "order", "finish")
"""Keys of `sampling` that a sample's record has where they are not the usual ones."""


def _sample(record: Record) -> dict[str, str]:
    """A sample's text, its prompt apart, and how it was drawn."""
    text, prompt = str(record["text"]), text_or_none(record.get("prompt")) or ""
    given = prompt if text.startswith(prompt) else ""
    told = [("step", "after training step {}"), ("sampler", "{}"), ("steps", "{} steps"), ("seed", "seed {}")]
    told += [("temperature", "temperature {}"), ("top_p", "top-p {}"), ("length", "{} tokens")]
    told += [(key, f"{key.replace('_', ' ')} {{}}") for key in _HOW if record.get(key) not in (None, False)]
    how = [form.format(record[key]) for key, form in told if isinstance(record.get(key), str | int | float)]
    return {"given": given, "text": text[len(given) :], "how": " · ".join(how)}


def _progress(metrics: tuple[Record, ...]) -> list[tuple[str, str]]:
    """(step, text) of up to four samples drawn while training, first and last among them."""
    found = [record for record in metrics if record.get("kind") == "sample" and text_or_none(record.get("text"))]
    picks = sorted({round(k * (len(found) - 1) / 3) for k in range(4)}) if found else []
    return [(f"step {found[k].get('step')}", str(found[k]["text"])) for k in picks]


def _cost(facts: RunFacts) -> list[tuple[str, str]]:
    """(name, figure) of what the run took; figures that nobody wrote down are left out."""
    trained: Record = next((m for m in reversed(facts.metrics) if m.get("kind") == "train"), {})
    validated: Record = next((m for m in reversed(facts.metrics) if m.get("kind") == "validation"), {})
    record = facts.record

    def first(*found: object) -> float | None:
        """The first positive number."""
        return next((value for value in map(number, found) if value), None)

    steps, planned = first(record.get("step"), trained.get("step")), first(record.get("steps"))
    figures = {
        "training time": (first(trained.get("seconds")), tables.duration),
        "last validation": (first(validated.get("seconds")), tables.duration),
        "steps": (steps, lambda n: f"{n:,.0f}" + (f" of {planned:,.0f}" if planned and planned != n else "")),
        "tokens seen": (first(record.get("tokens_seen"), trained.get("tokens")), _thousands),
        "tokens per second": (
            first(record.get("tokens_per_second"), trained.get("tokens_per_second")),
            _thousands,
        ),
        "steps per second": (first(record.get("steps_per_second")), lambda n: f"{n:.3g}"),
        "parameters": (first(record.get("parameters")), _thousands),
        "peak memory": (first(record.get("peak_memory_bytes")), tables.size),
    }
    cost = [(name, form(value)) for name, (value, form) in figures.items() if value is not None]
    device = text_or_none(record.get("device"))
    return [*cost, ("device", device)] if device else cost


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


def _provenance(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of everything else that the record says."""
    rest = {key: value for key, value in record.items() if key not in _TOLD_ELSEWHERE}
    return [(_LABELS.get(key, key.replace("_", " ")), value) for key, value in tables.flatten(rest).items()]
