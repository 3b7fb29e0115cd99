"""How a training went: gradients, alarms, and what its objective tells of itself beside targets and chance."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from remask.report.curves import thinned
from remask.report.panels import BESIDE, FAINT, LOOKS, PLAIN, Line, Panel, Points, finite_on
from remask.report.reading import Record, mapping, number, printable

MEDIAN_OVER = 21
"""Logged lines over which the median of the gradient's length runs, the last included."""

_MOST_PANELS = 16
_LOG_FROM = 30.0  # the ratio of largest to smallest gradient from which the axis is logarithmic
_DRAWN_ELSEWHERE = {"kind", "step", "loss", "bits_per_byte", "nats_per_token", "tokens", "seconds", "gradient_norm"}
_NOT_DRAWN = ("skill_of_zero", "worst_skill")
"""What figures begin with that say again what skill by ranges of t does."""
_SUFFIXES = ("_chance", "_trivial", "_target", "_even")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Figures of a training line that belong into one panel.

    Attributes:
        title: of the panel.
        names: the figures, as metrics.jsonl has them, with their words.
        levels: (words, value) of what they stand beside at all times.
        target: the recipe's key that gives the value they are steered to, or empty.
        lowest: what is below is drawn there, so that it does not flatten the rest.
    """

    title: str
    names: Mapping[str, str]
    levels: tuple[tuple[str, float], ...] = ()
    target: str = ""
    lowest: float = -math.inf


_GROUPS = (
    Group(
        title="mean P([MASK]) where tokens are masked",
        names={"mask_probability": ""},
        target="objective.target_mask_prob",
    ),
    Group(
        title="[MASK] logit − best word's logit",
        names={"logit_gap": ""},
        levels=(("as likely", 0.0),),
    ),
    Group(title="bias on the [MASK] logit", names={"mask_logit_bias": ""}, levels=(("none", 0.0),)),
    Group(
        title="share of masked tokens guessed right",
        names={"unmask_accuracy": "model", "unmask_chance": "chance"},
    ),
    Group(
        title="mean P([MASK]) on visible words",
        names={"mask_on_wrong": "wrong words", "mask_on_right": "right words"},
    ),
    Group(
        title="wrong word ranked above a right one",
        names={"remask_auc": ""},
        levels=(("chance", 0.5),),
    ),
    Group(
        title="share of choices of the busiest expert",
        names={"expert_load": "busiest", "expert_load_even": "if evenly used"},
    ),
    Group(title="error of undone activations, as a share", names={"inversion_error": ""}, levels=(("exact", 0.0),)),
    Group(
        title="skill over a linear filter (below −1 drawn there)",
        names={f"skill_t{k}": f"t{k}{' (cleanest)' if k == 0 else ''}" for k in range(5)},
        levels=(("linear filter", 0.0),),
        lowest=-1.0,
    ),
    Group(title="learning rate", names={"learning_rate": ""}),
    Group(title="tokens per second", names={"tokens_per_second": ""}),
)
"""Figures whose words, company and order are known; any other gets a panel of its own."""


def health_panels(metrics: Iterable[Record], recipe: Mapping[str, object]) -> list[Panel]:
    """The panels of a run's training lines, gradients first, speed last.

    Args:
        metrics: the lines of `metrics.jsonl`.
        recipe: the resolved recipe, which says what some figures are steered to.
    """
    lines = list(metrics)
    found = figures_of(lines)
    alarms = [at for line in lines if line.get("kind") == "alarm" and (at := number(_when(line))) is not None]
    groups = [*_GROUPS[:-2], *_unknown(found), *_GROUPS[-2:]]
    panels = [_gradient_panel(found.get("gradient_norm", ()), alarms=alarms)]
    panels += [_group_panel(group, found, recipe) for group in groups]
    return [panel for panel in panels if panel is not None][:_MOST_PANELS]


def figures_of(metrics: Iterable[Record]) -> dict[str, list[tuple[float, float]]]:
    """Every finite figure of the training lines: its name → (step, value).

    One that never changes is left out, unless another is measured against it.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for line in metrics:
        step = number(line.get("step"))
        if line.get("kind") != "train" or step is None:
            continue
        for name, value in line.items():
            if (seen := number(value)) is not None:
                found.setdefault(printable(str(name)), []).append((step, seen))
    return {
        name: sorted(points)
        for name, points in found.items()
        if name in ("gradient_norm", *_KNOWN) or name.endswith(_SUFFIXES) or len({value for _, value in points}) > 1
    }


_KNOWN = tuple(name for group in _GROUPS for name in group.names)


def running_median(points: Points, *, over: int = MEDIAN_OVER) -> list[tuple[float, float]]:
    """At each point the median of it and of those before it, `over` of them at most."""
    values = [value for _, value in points]
    return [(step, median(values[max(k + 1 - over, 0) : k + 1])) for k, (step, _) in enumerate(points)]


def _gradient_panel(points: Points, *, alarms: Sequence[float]) -> Panel | None:
    if not points:
        return None
    positive = [value for _, value in points if value > 0]
    wide = bool(positive) and max(positive) > _LOG_FROM * min(positive)
    usual = Line(name="median", points=thinned(running_median(points)), look=PLAIN)
    panel = Panel(
        title="gradient norm",
        x_label="step",
        lines=[Line(name="", points=thinned(points), look=FAINT), usual],
        marks=sorted(set(alarms)),
        y_scale="log" if wide else "linear",
    )
    panel = finite_on(panel)
    return panel if panel.lines else None


def _group_panel(group: Group, found: Mapping[str, Points], recipe: Mapping[str, object]) -> Panel | None:
    present = {name: words for name, words in group.names.items() if found.get(name)}
    if not present:
        return None
    # A single figure is what the title says, and needs neither a name nor a colour of its own.
    several = sum(not name.endswith(_SUFFIXES) for name in present) > 1
    looks = LOOKS if several else [PLAIN] * len(present)
    lines = [
        Line(
            name=words,
            points=thinned(_from(found[name], group.lowest)),
            look=BESIDE if name.endswith(_SUFFIXES) else look,
        )
        for (name, words), look in zip(present.items(), looks, strict=False)
    ]
    target = number(_at(recipe, group.target)) if group.target else None
    levels = [*group.levels, *([("target", target)] if target is not None else [])]
    return Panel(title=group.title, x_label="step", lines=lines, levels=levels)


def _from(points: Points, lowest: float) -> list[tuple[float, float]]:
    return [(step, max(value, lowest)) for step, value in points]


def _unknown(found: Mapping[str, Points]) -> list[Group]:
    """A group for each figure that has none yet, together with its chance, trivial value or target."""
    rest = [name for name in found if name not in (*_DRAWN_ELSEWHERE, *_KNOWN) and not name.startswith(_NOT_DRAWN)]
    company = {name for name in rest if name.endswith(_SUFFIXES) and re.sub(r"_[a-z]+$", "", name) in rest}
    groups = []
    for name in rest:
        if name not in company:
            beside = {f"{name}{end}": end[1:] for end in _SUFFIXES if f"{name}{end}" in company}
            own = {name: "model" if beside else ""}
            groups.append(Group(title=name.replace("_", " "), names=own | beside))
    return groups


def _when(alarm: Record) -> object:
    return alarm.get("failed_step", alarm.get("step"))


def _at(record: Mapping[str, object], path: str) -> object:
    """The value under a dotted key, or None."""
    found: object = record
    for key in path.split("."):
        found = mapping(found).get(key)
    return found
