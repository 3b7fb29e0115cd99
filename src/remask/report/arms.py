"""The arms of a comparison as its page shows them: each with a letter, a look, and the folders of its runs."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from remask.report.curves import curves_of, trivial_bits_per_byte
from remask.report.panels import Line, Look, Panel, finite_on, look
from remask.report.reading import Record, RunFacts, mapping, number, printable, text_or_none
from remask.report.tables import flatten

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HASH = re.compile(r"\b(?=[0-9]*[a-f])[0-9a-f]{16,}\b")
_SHOWN_OF_HASH = 8
_EQUAL = 0.01  # the share by which budgets may differ and still be drawn over steps alone


@dataclass(frozen=True, kw_only=True)
class ArmView:
    """One arm.

    Attributes:
        letter: stands for it in figures and heads of tables.
        number: its place, from 0; decides colour, dash and sign.
        name: what the comparison calls it.
        seeds: in words.
        facts: what the comparison knows of it.
        runs: what its runs left behind, as far as their folders were given.
    """

    letter: str
    number: int
    name: str
    seeds: str
    facts: Record
    runs: tuple[RunFacts, ...]

    @property
    def look(self) -> Look:
        """Of its lines and dots."""
        return look(self.number)

    @property
    def colour(self) -> str:
        """The CSS class of its colour."""
        return f"s{self.look.role.rpartition('-')[2]}"


def arms_of(comparison: Mapping[str, object], runs: Sequence[RunFacts]) -> list[ArmView]:
    """The arms of `Comparison.to_json()` with what their runs left behind; without arms, an arm a run."""
    by_name = {facts.name: facts for facts in runs}
    given = [mapping(arm) for arm in _listed(comparison.get("arms"))]
    if not given:
        given = [{"name": facts.name, "runs": [facts.name], "seeds": [facts.record.get("seed")]} for facts in runs]
    return [
        ArmView(
            letter=letter_of(k),
            number=k,
            name=printable(text_or_none(arm.get("name")) or f"arm {letter_of(k)}"),
            seeds=", ".join(str(seed) for seed in _listed(arm.get("seeds")) if seed is not None),
            facts=mapping(arm.get("facts")),
            runs=tuple(by_name[str(name)] for name in _listed(arm.get("runs")) if str(name) in by_name),
        )
        for k, arm in enumerate(given)
    ]


def letter_of(place: int) -> str:
    """`A`, `B`, …, `Z`, `A2`, …."""
    again, place = divmod(place, len(_LETTERS))
    return f"{_LETTERS[place]}{again + 1 if again else ''}"


def lettered(text: str, arms: Sequence[ArmView]) -> str:
    """A text with each arm's name as its letter, and hashes cut to their first letters: for notes and tables."""
    names = sorted((arm.name for arm in arms), key=len, reverse=True)
    letters = {arm.name: arm.letter for arm in arms}
    pattern = "|".join(map(re.escape, names))
    told = re.sub(rf"(?<![\w.=-])(?:{pattern})(?![\w=-])", lambda found: letters[found[0]], text) if names else text
    return _HASH.sub(lambda found: found[0][:_SHOWN_OF_HASH], told)


def loss_panels(arms: Sequence[ArmView]) -> list[Panel]:
    """Bits per byte of all arms over steps, and over tokens, FLOPs and seconds where their budgets differ."""
    axes: list[tuple[str, Callable[[RunFacts], Callable[[float], float | None]]]] = [
        ("training step", lambda facts: lambda step: step),
        ("target tokens trained on", _tokens_at),
        ("FLOPs of training, measured", _flops_at),
        ("seconds of training", _seconds_at),
    ]
    panels = [_loss_panel(arms, label, where) for label, where in axes]
    whole = [len(panel.lines) for panel in panels]
    shown = [panel for k, panel in enumerate(panels) if k == 0 or (whole[k] == whole[0] and _ends_differ(panel))]
    return [finite_on(panel) for panel in shown if panel.lines]


def shared_trivial(arms: Sequence[ArmView]) -> dict[str, float]:
    """Bits per byte of trivial predictors that are the same for all runs: the same text, judged alike."""
    known = [trivial_bits_per_byte(facts.metrics) for arm in arms for facts in arm.runs]
    first = known[0] if known else {}
    return {
        name: value
        for name, value in first.items()
        if all(math.isclose(other.get(name, math.nan), value, rel_tol=1e-3) for other in known)
    }


def recipe_differences(arms: Sequence[ArmView]) -> tuple[list[tuple[str, list[str]]], int]:
    """(key, its value in each arm) where recipes differ, and the number of keys in which they do not.

    An arm is told by its first run; the seeds of the others are told elsewhere.
    """
    flat = [flatten(arm.runs[0].settings) if arm.runs else {} for arm in arms]
    keys = list(dict.fromkeys(key for recipe in flat for key in recipe))
    rows = [(key, [recipe.get(key, "–") for recipe in flat]) for key in keys]
    differing = [(key, values) for key, values in rows if len(set(values)) > 1]
    return differing, len(rows) - len(differing)


def _loss_panel(
    arms: Sequence[ArmView], label: str, where: Callable[[RunFacts], Callable[[float], float | None]]
) -> Panel:
    lines = []
    for arm in arms:
        for facts in arm.runs:
            at = where(facts)
            points = [(x, y) for step, y in _losses(facts) if (x := at(step)) is not None]
            if points:
                lines.append(Line(name=arm.letter, points=points, look=arm.look))
    trivial = {name: value for name, value in shared_trivial(arms).items() if name != "uniform"}
    return Panel(
        title="validation, bits per byte",
        x_label=label,
        lines=lines,
        levels=sorted(trivial.items()),
        frame=_frame(lines, trivial.values()),
    )


def _losses(facts: RunFacts) -> list[tuple[float, float]]:
    """(step, bits per byte) of a run's validations; of its smoothed training where it was not validated."""
    curves = curves_of(facts.metrics, trivial={})
    return [(step, value) for step, value, _ in curves.validation] or list(curves.smooth)


def _frame(lines: Sequence[Line], trivial: Iterable[float]) -> tuple[float, float] | None:
    """The later half of each line and the trivial values near it: the first steps may leave the frame."""
    late = [y for line in lines for _, y in line.points[len(line.points) // 2 :]]
    if not late:
        return None
    low, high = min(late), max(late)
    room = max(1.5 * (high - low), 0.15 * high)
    near = [value for value in trivial if low - room <= value <= high + room]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.5
    return low - margin, high + margin


def _ends_differ(panel: Panel) -> bool:
    ends = [line.points[-1][0] for line in panel.lines]
    return bool(ends) and max(ends) > (1 + _EQUAL) * min(ends)


def _tokens_at(facts: RunFacts) -> Callable[[float], float | None]:
    return _between(facts, "tokens")


def _seconds_at(facts: RunFacts) -> Callable[[float], float | None]:
    return _between(facts, "seconds")


def _flops_at(facts: RunFacts) -> Callable[[float], float | None]:
    tokens, each = _tokens_at(facts), number(facts.record.get("flops_per_token"))

    def flops(step: float) -> float | None:
        seen = tokens(step)
        return None if seen is None or each is None else seen * each

    return flops


def _between(facts: RunFacts, key: str) -> Callable[[float], float | None]:
    """A running count of the training lines at any step, on straight lines between those that were logged."""
    lines = [line for line in facts.metrics if line.get("kind") == "train"]
    known = [(step, seen) for line in lines if (step := number(line.get("step"))) is not None
             and (seen := number(line.get(key))) is not None]  # fmt: skip
    known = sorted({0.0: 0.0, **dict(known)}.items())

    def at(step: float) -> float | None:
        if len(known) < 2:
            return None
        right = min(max(bisect_left(known, (step, -math.inf)), 1), len(known) - 1)
        (a, low), (b, high) = known[right - 1], known[right]
        return low + (high - low) * (step - a) / (b - a)

    return at


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
