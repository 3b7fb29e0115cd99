"""What a run took, where it came from, and who judged it: the facts behind the figures, in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remask.report import tables
from remask.report.reading import Record, RunFacts, mapping, number, text_or_none, whole

_TOLD_ELSEWHERE = {
    *("id", "verdict", "conclusion", "error", "status", "headline", "trivial", "parameters", "tokens_seen"),
    *("step", "steps", "steps_per_second", "tokens_per_second", "peak_memory_bytes", "device", "lineage"),
    *("active_parameters", "flops", "flops_per_token", "seconds", "train_tokens"),
}
_LABELS = {"git_dirty": "uncommitted changes", "created": "began", "finished": "ended"}
_CHECKPOINT = re.compile(r"(?P<run>.*?)/?checkpoints/step-(?P<step>\d+)/?")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

Cell = str | tuple[str, str] | tuple[str, str, str]
"""What stands in a table's cell: a text; a text and its CSS class; or these and what stands small below it."""


@dataclass(frozen=True, kw_only=True)
class Judgings:
    """The evaluations of a run, one a row.

    Attributes:
        heads: the columns.
        rows: their cells, newest first.
        notes: (evaluation, error or conclusion).
    """

    heads: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[tuple[str, str], ...]


def cost_of(facts: RunFacts) -> list[tuple[str, str]]:
    """(name, figure) of what the run took; figures that nobody wrote down are left out."""
    trained: Record = next((m for m in reversed(facts.metrics) if m.get("kind") == "train"), {})
    record = facts.record

    def first(*found: object) -> float | None:
        """The first positive number."""
        return next((value for value in map(number, found) if value), None)

    steps, planned = first(record.get("step"), trained.get("step")), first(record.get("steps"))
    seen, epoch = first(record.get("tokens_seen"), trained.get("tokens")), first(record.get("train_tokens"))
    parameters, active = first(record.get("parameters")), first(record.get("active_parameters"))
    figures = {
        "training time": (first(record.get("seconds"), trained.get("seconds")), tables.duration),
        "steps": (steps, lambda n: f"{n:,.0f}" + (f" of {planned:,.0f}" if planned and planned != n else "")),
        "tokens seen": (seen, thousands),
        "epochs": (seen / epoch if seen and epoch else None, lambda n: f"{n:.3g}"),
        "tokens per second": (first(record.get("tokens_per_second"), trained.get("tokens_per_second")), thousands),
        "steps per second": (first(record.get("steps_per_second")), lambda n: f"{n:.3g}"),
        "parameters": (parameters, thousands),
        "parameters used for a token": (active if active != parameters else None, thousands),
        "FLOPs of training, measured": (first(record.get("flops")), powers_of_ten),
        "FLOPs a token, measured": (first(record.get("flops_per_token")), powers_of_ten),
        "peak memory": (first(record.get("peak_memory_bytes")), tables.size),
    }
    cost = [(name, form(value)) for name, (value, form) in figures.items() if value is not None]
    device = text_or_none(record.get("device"))
    return [*cost, ("device", device)] if device else cost


def provenance_of(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of everything else that the record says; lineage first, in words."""
    rest = {key: value for key, value in record.items() if key not in _TOLD_ELSEWHERE}
    told = [(_LABELS.get(key, key.replace("_", " ")), value) for key, value in tables.flatten(rest).items()]
    lineage = "; ".join(lineage_of(record))
    return [("lineage", lineage), *told] if lineage else told


def lineage_of(record: Mapping[str, Any]) -> list[str]:
    """What the run went on from, oldest first: `resumed at step 200`, `initialised from step 50 of another`."""
    steps = record.get("lineage")
    own = text_or_none(record.get("id"))
    return [_ancestor(step, own=own) for step in steps if step] if isinstance(steps, list) else []


def judgings_of(facts: RunFacts) -> Judgings | None:
    """Every evaluation of a run with its own provenance, newest first; None where there is none.

    Rows of measurements that no evaluation's record stands behind make evaluations of their own, by task and time.
    """
    counts: dict[str, int] = {}
    found: dict[str, Record] = dict(facts.judgings)
    for row in facts.evaluations:
        name = text_or_none(row.get("evaluation")) or f"{row.get('task')} {row.get('created')}"
        counts[name] = counts.get(name, 0) + 1
        found.setdefault(name, {"task": row.get("task"), "created": row.get("created"), "status": "finished"})
    if not found:
        return None
    ordered = sorted(found.items(), key=lambda pair: str(pair[1].get("created")), reverse=True)
    return Judgings(
        heads=(
            "task",
            *(_left(head) for head in ("when", "status", "commit", "device", "machine")),
            "figures",
            "step",
            "took",
        ),
        rows=tuple(_judging(record, figures=counts.get(name, 0)) for name, record in ordered),
        notes=tuple(
            (f"{record.get('task')}, {_minute(record.get('created'))}:", said)
            for _, record in ordered
            for key in ("error", "conclusion")
            if (said := text_or_none(record.get(key)))
        ),
    )


def thousands(value: float) -> str:
    """`1,312,768`."""
    return f"{value:,.0f}"


def powers_of_ten(value: float) -> str:
    """`4.16 × 10¹²`."""
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(_SUPERSCRIPTS)}"


def _judging(record: Record, *, figures: int) -> tuple[Cell, ...]:
    commit = (text_or_none(record.get("git_tag")) or text_or_none(record.get("git_commit")) or "")[:12]
    seconds = number(record.get("seconds"))
    step = whole(record.get("step"))
    return (
        text_or_none(record.get("task")) or "unnamed",
        _left(_minute(record.get("created"))),
        _left(text_or_none(record.get("status")) or ""),
        _left(f"{commit} and changes" if commit and record.get("git_dirty") is True else commit),
        _left(text_or_none(record.get("device")) or ""),
        (text_or_none(record.get("machine")) or "", "words"),
        str(figures),
        "" if step is None else f"{step:,}",
        "" if seconds is None else tables.duration(seconds),
    )


def _left(words: str) -> Cell:
    """A cell of words, which stand to the left and on one line."""
    return words, "words short"


def _minute(when: object) -> str:
    """A time to the minute: `2026-02-23 20:36`."""
    return (text_or_none(when) or "").replace("T", " ")[:16]


def _ancestor(step: object, *, own: str | None) -> str:
    """One entry of a lineage in words; older records hold a bare address."""
    entry = mapping(step)
    source = text_or_none(entry.get("from")) or (step if isinstance(step, str) else "an unknown place")
    checkpoint = _CHECKPOINT.fullmatch(source)
    same = checkpoint is not None and own is not None and checkpoint["run"].rpartition("/")[2] == own
    how = text_or_none(entry.get("how")) or ("resumed" if same else "initialised")
    if checkpoint is None:
        but = text_or_none(entry.get("but"))
        return f"{how} from {source}" + (f" (all but its {but})" if but else "")
    if same:
        return f"{how} at step {checkpoint['step']}"
    return f"{how} from step {checkpoint['step']} of {checkpoint['run'] or 'a run'}"
