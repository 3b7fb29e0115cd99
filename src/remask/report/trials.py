"""The trials of a study, and the figures that they make: over each varied key, over training, over cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from remask.report.panels import BEST, DOTS, FADED, LEFT, LOOKS, Line, Panel, finite_on, look
from remask.report.reading import Record, mapping, named_numbers, number, printable, text_or_none, whole

_MOST_KEYS = 12
_MOST_NAMES = 8
_MOST_NAMED = 5
_WIDE = 10.0  # the ratio of largest to smallest value of a list from which its axis is logarithmic
_COSTS = {
    "active_parameters": "parameters used for a token",
    "parameters": "parameters",
    "flops": "FLOPs of training, measured",
    "seconds": "seconds of training",
    "peak_memory_bytes": "bytes of memory at most, imports and all",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a study, as its page needs it.

    Attributes:
        number: from 0.
        arm: what sets it apart, in words.
        seed: where the study repeats over seeds.
        values: of the varied keys.
        state: waiting, running, finished, pruned or failed.
        run: its run's id.
        error: what went wrong.
        value: its figure.
        stderr: of the figure.
        trivial: what trivial predictors get.
        curve: (step, figure) of its validations.
        costs: its parameters, tokens, FLOPs and seconds.
        calibration: whether it is a timing run, which is no result.
        best: whether the study calls it the best.
    """

    number: int
    arm: str
    seed: int | None
    values: Record
    state: str
    run: str | None
    error: str | None
    value: float | None
    stderr: float | None
    trivial: Mapping[str, float]
    curve: tuple[tuple[float, float], ...]
    costs: Record
    calibration: bool
    best: bool

    @property
    def shown(self) -> float | None:
        """Its figure; of a trial that was given up, the last of its curve."""
        if self.value is not None or not self.curve or self.state != "pruned":
            return self.value
        return self.curve[-1][1]


def trials_of(study: Mapping[str, Any]) -> list[Trial]:
    """The trials of `study.json`."""
    best = whole(mapping(study.get("best")).get("trial"))
    given = study.get("trials")
    records = [mapping(trial) for trial in given] if isinstance(given, list) else []
    return [_trial(record, place=k, best=best) for k, record in enumerate(records)]


def key_panels(trials: Sequence[Trial], study: Mapping[str, Any]) -> list[Panel]:
    """The figure over each varied key, a dot a trial."""
    given = study.get("over")
    over = [mapping(each) for each in given] if isinstance(given, list) else []
    drawn = [trial for trial in trials if not trial.calibration and trial.shown is not None]
    panels = [_key_panel(drawn, each, study) for each in over[:_MOST_KEYS]]
    return [panel for panel in panels if panel is not None]


def curve_panel(trials: Sequence[Trial], study: Mapping[str, Any]) -> Panel | None:
    """The validations of all trials over training; the best stand out, those given up are faded."""
    drawn = [trial for trial in trials if trial.curve and not trial.calibration]
    if not drawn:
        return None
    sign = -1 if mapping(study.get("metric")).get("better") == "higher" else 1
    ended = [trial for trial in drawn if trial.state == "finished" and trial.value is not None]
    first = sorted(ended, key=lambda trial: (not trial.best, sign * (trial.value or 0.0)))[:_MOST_NAMED]
    rest = [Line(name="", points=trial.curve, look=FADED) for trial in drawn if trial not in first]
    told = [Line(name=_short_arm(t, first), points=t.curve, look=look(k)) for k, t in enumerate(first)]
    late = [y for trial in ended or drawn for _, y in trial.curve[len(trial.curve) // 2 :]]
    levels = [(name, value) for name, value in _trivial(drawn) if name != "uniform"]
    panel = Panel(title=_title(study), x_label="step", lines=[*rest, *reversed(told)], levels=levels)
    return replace(panel, frame=_frame(late, [value for _, value in levels]))


def cost_panels(trials: Sequence[Trial], study: Mapping[str, Any]) -> list[Panel]:
    """The figure over parameters, FLOPs and seconds, for studies that are about cost; a point an arm."""
    if study.get("kind") not in ("size", "experts", "matched"):
        return []
    arms: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.state == "finished" and trial.value is not None and not trial.calibration:
            arms.setdefault(trial.arm, []).append(trial)
    panels = []
    seen: list[list[float]] = []
    for key, label in _COSTS.items():
        points = [(_mean(t.costs.get(key) for t in own), own, arm) for arm, own in arms.items()]
        known = [(x, own, arm) for x, own, arm in points if x is not None and x > 0]
        places = [x for x, _, _ in known]
        if not known or places in seen:  # parameters that are all used say nothing new
            continue
        seen.append(places)
        panels.append(_cost_panel(known, label=label, study=study))
    return [panel for panel in map(finite_on, panels) if panel.lines]


def _trial(record: Record, *, place: int, best: int | None) -> Trial:
    at = whole(record.get("number"))
    curve = record.get("curve")
    points = [p for p in curve if isinstance(p, list | tuple) and len(p) == 2] if isinstance(curve, list) else []
    pairs = [(number(x), number(y)) for x, y in points]
    return Trial(
        number=place if at is None else at,
        arm=printable(text_or_none(record.get("arm")) or f"trial {place}"),
        seed=whole(record.get("seed")),
        values=mapping(record.get("values")),
        state=text_or_none(record.get("state")) or "unknown",
        run=text_or_none(record.get("run")),
        error=text_or_none(record.get("error")),
        value=number(record.get("value")),
        stderr=number(record.get("stderr")),
        trivial=named_numbers(record.get("trivial")),
        curve=tuple((x, y) for x, y in pairs if x is not None and y is not None),
        costs=record,
        calibration=record.get("calibration") is True,
        best=best is not None and best == (place if at is None else at),
    )


def _key_panel(trials: Sequence[Trial], varied: Record, study: Mapping[str, Any]) -> Panel | None:
    key = str(varied.get("key"))
    having = [trial for trial in trials if key in trial.values]
    if not having:
        return None
    numbers = [_as_number(trial.values[key]) for trial in having]
    known = [value for value in numbers if value is not None]
    numeric = len(known) == len(having)
    names = [] if numeric else list(dict.fromkeys(str(trial.values[key]) for trial in having))[:_MOST_NAMES]
    log = numeric and min(known) > 0 and (varied.get("log") is True or max(known) >= _WIDE * min(known))

    def place(trial: Trial) -> float | None:
        if numeric:
            return _as_number(trial.values[key])
        text = str(trial.values[key])
        return float(names.index(text)) if text in names else None

    groups = {
        LEFT: [trial for trial in having if trial.state == "pruned"],
        DOTS: [trial for trial in having if trial.state == "finished" and not trial.best],
        BEST: [trial for trial in having if trial.best],
    }
    lines = []
    for own_look, own in groups.items():
        points = [(x, t) for t in own if (x := place(t)) is not None]
        points.sort(key=lambda pair: pair[0])
        if points:
            name = f"best: trial {points[0][1].number}" if own_look is BEST else ""
            errors = [t.stderr or 0.0 for _, t in points] if any(t.stderr for _, t in points) else []
            dots = [(x, t.shown) for x, t in points if t.shown is not None]
            lines.append(Line(name=name, points=dots, errors=errors, look=own_look))
    if not lines:
        return None
    scale = "log" if log else "linear"
    panel = Panel(title=_title(study), x_label=key, lines=lines, levels=_trivial(having), x_scale=scale, names=names)
    return _within_ended(panel)


def _within_ended(panel: Panel) -> Panel:
    """The panel framed by the trials that ended; those given up stand at its edge where they are further away."""
    ended = [line for line in panel.lines if line.look is not LEFT]
    if not ended:
        return panel
    low, high = replace(panel, lines=ended).y_range()
    given_up = [
        replace(line, points=[(x, min(max(y, low), high)) for x, y in line.points])
        for line in panel.lines
        if line.look is LEFT
    ]
    return replace(panel, lines=[*given_up, *ended], frame=(low, high))


def _cost_panel(known: Sequence[tuple[float, Sequence[Trial], str]], *, label: str, study: Mapping[str, Any]) -> Panel:
    """A point an arm, at the means of its trials; joined where the arms are sizes of one thing."""
    ordered = sorted(known, key=lambda each: each[0])
    rows = [(x, fmean(t.value for t in own if t.value is not None), _error(own), arm) for x, own, arm in ordered]
    if study.get("kind") == "size":
        notes = [_last_value(arm) for *_, arm in rows]
        errors = [error or 0.0 for _, _, error, _ in rows]
        lines = [Line(name="", points=[(x, y) for x, y, *_ in rows], errors=errors, notes=notes, look=LOOKS[0])]
    else:
        order = {arm: k for k, (_, _, arm) in enumerate(known)}
        lines = [
            Line(name="", points=[(x, y)], errors=[error or 0.0], notes=[arm], look=look(order[arm]))
            for x, y, error, arm in rows
        ]
    wide = ordered[-1][0] >= 3 * ordered[0][0]
    trials = [trial for _, own, _ in known for trial in own]
    return Panel(
        title=_title(study), x_label=label, lines=lines, levels=_trivial(trials), x_scale="log" if wide else "linear"
    )


def _error(trials: Sequence[Trial]) -> float | None:
    """The standard error of an arm's mean: over its seeds where it has several, else over examples."""
    values = [trial.value for trial in trials if trial.value is not None]
    if len(values) < 2:
        return trials[0].stderr
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _trivial(trials: Iterable[Trial]) -> list[tuple[str, float]]:
    """Trivial values that are the same for all trials that know them."""
    known = [trial.trivial for trial in trials if trial.trivial]
    first = known[0] if known else {}
    return [
        (name, value)
        for name, value in sorted(first.items())
        if all(math.isclose(other.get(name, value), value, rel_tol=1e-3) for other in known)
    ]


def _frame(late: Sequence[float], levels: Sequence[float]) -> tuple[float, float] | None:
    if not late:
        return None
    low, high = min(late), max(late)
    room = max(1.0 * (high - low), 0.1 * abs(high))
    near = [value for value in levels if low - room <= value <= high + room]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.5
    return low - margin, high + margin


def _title(study: Mapping[str, Any]) -> str:
    metric = mapping(study.get("metric"))
    name = (text_or_none(metric.get("name")) or "figure").replace("_", " ")
    unit = text_or_none(metric.get("unit"))
    return f"{name}, {unit}" if unit and unit.replace("/", " per ") != name else name


def _short_arm(trial: Trial, shown: Sequence[Trial]) -> str:
    """A trial's number; its arm where each of those that are shown is of another one and that is short."""
    arms = {other.arm for other in shown}
    return trial.arm if len(arms) == len(shown) and all(len(arm) <= 12 for arm in arms) else f"trial {trial.number}"


def _last_value(arm: str) -> str:
    """`128` of `network.width=128`; the whole of words that set no single key."""
    return arm.rpartition("=")[2] if arm.count("=") == 1 else arm


def _as_number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            return number(float(value))
        except ValueError:
            return None
    return number(value)


def _mean(values: Iterable[object]) -> float | None:
    found = [value for value in map(number, values) if value is not None]
    return fmean(found) if found else None
