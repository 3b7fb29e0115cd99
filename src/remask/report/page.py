"""A run's report: one HTML file that needs nothing but itself."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from remask.report import picture, tables
from remask.report.canvas import NARROW, WIDE
from remask.report.costs import cost_of, judgings_of, provenance_of
from remask.report.curves import BITS, Curves, curves_of, frame_of, minimised_of, predictor_name, short, trivial_of
from remask.report.figures import loss_figure, minimised_figure, reveal_figure
from remask.report.health import MEDIAN_OVER, health_panels
from remask.report.panels import Panel
from remask.report.reading import Record, RunFacts, named_numbers, read_run, text_or_none, whole
from remask.report.rendering import check_place, render, write_page
from remask.report.sections import DUE, DUE_WITHOUT_LIKELIHOOD, drawn, outside, sections_of

MINIMISED = (
    "It estimates no likelihood (its times are reweighted or held back by a curriculum, or it has other tasks than the "
    "bound) and may rise while the model learns; the validation above is the plain bound."
)
MINIMISED_BESIDE = "The figure above is one part of it; others, such as terms of diversity, have weights of their own."
UNDRAWN = "The finished model has drawn no samples yet."
DRAWS_NONE = "The model writes again what it is told of, and draws no text of its own."
_MOST_SAMPLES = 8
_MOST_DRAWN_POSITIONS = 4096


def write_report(run: Path, *, file: Path) -> None:
    """Writes a run's report, in one step: a reader never sees half a page.

    Args:
        run: the run's folder.
        file: the page; its folder must exist.

    Raises:
        UserError: `run` is not a run's folder, or `file` cannot be a file there.
        RunError: the disk is full or the folder is read-only; an older page is untouched.
    """
    check_place(file)
    write_page(file, render_report(read_run(run)))


def render_report(facts: RunFacts) -> str:
    """The page as HTML, the same bytes for the same facts.

    Args:
        facts: what the run left behind; whatever is missing is left out with a sentence.
    """
    return render("run.html", _context(facts))


def _context(facts: RunFacts) -> dict[str, Any]:
    trivial = trivial_of(facts.metrics) or named_numbers(facts.record.get("trivial"))
    curves = curves_of(facts.metrics, trivial=trivial)
    minimised = minimised_of(facts.metrics)
    health = health_panels(facts.metrics, facts.settings)
    return {
        "facts": facts,
        "record": facts.record,
        "state": _state(facts.record),
        "verdict": _verdict(facts.record),
        "alarms": _alarms(facts.metrics),
        "headline": tables.headline_of(facts.evaluations, facts.metrics, trivial=trivial),
        "loss": [] if curves.empty else [Markup(loss_figure(curves, layout)) for layout in (WIDE, NARROW)],
        "loss_note": _loss_note(curves),
        "loss_unit": curves.unit[0].upper() + curves.unit[1:],
        "minimised_note": MINIMISED if curves.unit == BITS else MINIMISED_BESIDE,
        "minimised": [Markup(minimised_figure(minimised, layout)) for layout in (WIDE, NARROW) if minimised],
        "health": drawn(health, name="health"),
        "health_note": _health_note(health),
        "trajectory": _trajectory(facts),
        "samples": [sample_of(sample) for sample in facts.samples[-_MOST_SAMPLES:]],
        "undrawn": UNDRAWN if curves.unit == BITS else DRAWS_NONE,
        "more_samples": max(len(facts.samples) - _MOST_SAMPLES, 0),
        "progress": _progress(facts.metrics),
        "sections": sections_of(facts.evaluations, due=DUE if curves.unit == BITS else DUE_WITHOUT_LIKELIHOOD),
        "cost": cost_of(facts),
        "judgings": judgings_of(facts),
        "provenance": provenance_of(facts.record),
    }


def _health_note(panels: Sequence[Panel]) -> str:
    """What the small figures of a training show, in words."""
    notes = []
    if any(panel.title == "gradient norm" for panel in panels):
        notes.append(f"Gradient norm: each logged step, and the median of the last {MEDIAN_OVER} of them.")
    if any(panel.marks for panel in panels):
        notes.append("▼: an alarm, told above.")
    if any(panel.levels for panel in panels):
        notes.append("Dashed: the target, or what a network gets that has learned nothing.")
    return " ".join([*notes, outside(panels)]).strip()


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


_HOW = ("grid", "block_length", "guidance", "stop", "budget", "reveal", "remasking", "eta", "corrector_steps")
_HOW += ("threshold", "order", "finish")
"""Keys of `sampling` that a sample's record has where they are not the usual ones."""


def sample_of(record: Record) -> dict[str, str]:
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
    return [(_progress_title(found[k]), str(found[k]["text"])) for k in picks]


def _progress_title(record: Record) -> str:
    """`step 200`, and what the text is where it is no sample."""
    what = text_or_none(record.get("what"))
    return f"step {record.get('step')}" + (f", {what}" if what else "")
