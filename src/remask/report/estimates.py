"""The figures of a comparison as rows of tables and as dots with intervals."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from remask.report.arms import ArmView, lettered
from remask.report.costs import Cell
from remask.report.curves import predictor_name
from remask.report.forest import Estimate, forest_figure
from remask.report.levels import level_of
from remask.report.panels import compact, look
from remask.report.reading import Record, mapping, named_numbers, number, text_or_none
from remask.report.tables import decimals_for, figure, flatten

_MOST_FORESTS = 4
_SHOWN_TRIVIAL = 3
_ONE_LINE = 28  # letters
_SAID_TWICE = {
    "perplexity": "nats_per_token",
    "judged_perplexity": "judged_nats_per_token",
    "exact_perplexity": "exact_nats_per_token",
}
"""Figures that are another one in other units: where that is drawn, they are not."""
_IMPLIED_BY = {"sampler": "reveal", "network_calls": "steps"}
"""Keys of a protocol that another says as well: one sampler alone has orders of revealing, and its calls are steps."""
_LEVEL = ("t", "t_low", "t_high")
"""The keys of a protocol that say one thing, a level of noise."""
_REFERENCES = ("held-out", "other held-out", "every text")
"""How the names of what samples should come near to begin; they are told first."""


def compared_figures(comparison: Mapping[str, Any]) -> tuple[list[Record], list[Record]]:
    """The figures of `Comparison.to_json()` that compare, and those that are different quantities."""
    found = comparison.get("figures")
    figures = [mapping(each) for each in found] if isinstance(found, list) else []
    return [f for f in figures if f.get("comparable") is True], [f for f in figures if f.get("comparable") is not True]


def figure_rows(figures: Sequence[Record], arms: Sequence[ArmView]) -> list[tuple[Cell, ...]]:
    """A row a figure: its words, unit, the value of each arm, and what trivial predictors get."""
    labels = labels_of(figures)
    return [
        (
            (label, "", text_or_none(each.get("unit")) or ""),
            *(_value(each, arm) for arm in arms),
            (_beside(each), "words wide trivial"),
        )
        for label, each in zip(labels, figures, strict=True)
    ]


def difference_rows(figures: Sequence[Record], arms: Sequence[ArmView], *, level: float) -> list[tuple[Cell, ...]]:
    """A row a difference: figure, arms, the verdict in words, value, interval at `level`, and what it covers."""
    letters = {arm.name: arm.letter for arm in arms}
    rows: list[tuple[Cell, ...]] = []
    for label, each in zip(labels_of(figures), figures, strict=True):
        for pair in differences_of(each):
            who = (_who(pair, letters), "words short")
            rows.append((label, who, _said(_judged(pair, each, arms, level=level)), *_told(pair)))
            by_seed = mapping(pair.get("paired_by_seed"))
            if by_seed:
                rows.append(("", who, "", *_told(by_seed)))
    return rows


def _told(contrast: Record) -> tuple[Cell, ...]:
    """The cells of a difference: its value, its interval, and what that ranges over."""
    found, interval = number(contrast.get("difference")), interval_of(contrast)
    return (
        "–" if found is None else compact_signed(found),
        "–" if interval is None else f"{compact_signed(interval[0])} to {compact_signed(interval[1])}",
        (text_or_none(contrast.get("covers")) or text_or_none(contrast.get("method")) or "", "words wide"),
    )


def refusals(figures: Sequence[Record], arms: Sequence[ArmView]) -> list[tuple[str, str]]:
    """(figures, in what they differ), one for each reason for which figures do not compare."""
    reasons: dict[str, list[str]] = {}
    for each in figures:
        values = _values(each)
        having = [arm for arm in arms if arm.number < len(values) and values[arm.number]] or list(arms)
        differs = each.get("differs")
        items = [mapping(item) for item in differs] if isinstance(differs, list) else []
        told = "; ".join(_differing(item, having) for item in items) or "nothing that is recorded"
        reasons.setdefault(lettered(told, arms), []).append(str(each.get("name")).replace("_", " "))
    return [(", ".join(dict.fromkeys(names)), told) for told, names in reasons.items()]


def forests(figures: Sequence[Record], arms: Sequence[ArmView]) -> list[str]:
    """For each of the first figures with errors: the values of the arms, and beside them their differences."""
    drawn: list[str] = []
    labels = labels_of(figures)
    names = {str(each.get("name")) for each in figures}
    wanted = [
        (label, each)
        for label, each in zip(labels, figures, strict=True)
        if _estimates(each, arms) and _SAID_TWICE.get(str(each.get("name"))) not in names
    ]
    for k, (label, each) in enumerate(wanted[:_MOST_FORESTS]):
        unit = text_or_none(each.get("unit"))
        title = f"{label}, {unit}" if unit else label
        levels = [(predictor_name(name), value) for name, value in _trivial(each).items()]
        drawn.append(forest_figure(_estimates(each, arms), title=title, levels=levels, name=f"values-{k}"))
        pairs = _contrasts(each, arms)
        if pairs:
            zero = [("no difference", 0.0)]
            drawn.append(forest_figure(pairs, title=f"difference in {title}", levels=zero, name=f"differences-{k}"))
    return drawn


def differences_of(each: Record) -> list[Record]:
    """The differences of one figure."""
    found = each.get("differences")
    return [mapping(pair) for pair in found] if isinstance(found, list) else []


def interval_of(pair: Record) -> tuple[float, float] | None:
    """The interval of a difference, or None where it has none."""
    ends = pair.get("interval")
    found = [number(end) for end in ends] if isinstance(ends, list | tuple) else []
    return (found[0], found[1]) if len(found) == 2 and found[0] is not None and found[1] is not None else None


def labels_of(figures: Sequence[Record]) -> list[str]:
    """The words of each figure, with the keys of its protocol that tell it from others of its name."""
    labels = []
    for each in figures:
        alike = [other for other in figures if other.get("name") == each.get("name")]
        protocols = [flatten(mapping(other.get("protocol"))) for other in alike]
        own = flatten(mapping(each.get("protocol")))
        keys = [key for key in own if len({protocol.get(key) for protocol in protocols}) > 1]
        keys = [key for key in keys if _IMPLIED_BY.get(key) not in keys]
        level = [f"t {level_of(mapping(each.get('protocol')))}"] if {*_LEVEL} <= {*keys} else []
        told = level + [f"{key.replace('_', ' ')} {own[key]}" for key in keys if not level or key not in _LEVEL]
        if len({other.get("task") for other in alike}) > 1:
            told.insert(0, str(each.get("task")))
        name = str(each.get("name")).replace("_", " ")
        labels.append(f"{name} ({', '.join(told)})" if told else name)
    return labels


def compact_signed(value: float) -> str:
    """A difference in few letters, with its sign: `+0.012`, `−1.4`."""
    text = compact(abs(value))
    return f"{'−' if value < 0 else '+'}{text}" if value else "0"


def _values(each: Record) -> list[Record]:
    found = each.get("values")
    return [mapping(value) for value in found] if isinstance(found, list) else []


def _of(each: Record, arm: ArmView) -> Record:
    """An arm's value, empty where it has none: the values stand in the order of the arms."""
    values = _values(each)
    return values[arm.number] if arm.number < len(values) else {}


def _value(each: Record, arm: ArmView) -> Cell:
    found = _of(each, arm)
    mean, error = number(found.get("mean")), number(found.get("stderr"))
    if mean is None:
        return "–", "trivial"
    others = [value for other in _values(each) if (value := number(other.get("mean"))) is not None]
    text = figure(mean, stderr=error, decimals=decimals_for([mean, *others], stderr=error))
    bound = "≤ " if found.get("bound") is True else ""
    best = found.get("best") is True
    return f"{'★ ' if best else ''}{bound}{text}", "value best" if best else "plain"


def _trivial(each: Record) -> dict[str, float]:
    """Trivial values that are the same for all arms that have them."""
    known = [named_numbers(value.get("trivial")) for value in _values(each) if value.get("trivial")]
    first = known[0] if known else {}
    return {
        name: value
        for name, value in first.items()
        if all(abs(other.get(name, value) - value) <= 1e-3 * abs(value) for other in known)
    }


def _beside(each: Record) -> str:
    """What a figure stands beside, in words: references first, then the hardest to beat."""
    trivial = _trivial(each)
    sign = -1 if each.get("better") == "higher" else 1
    goals = [name for name in trivial if name.lower().startswith(_REFERENCES)]
    rest = sorted((name for name in trivial if name not in goals), key=lambda name: sign * trivial[name])
    shown = [*goals, *rest[: max(_SHOWN_TRIVIAL - len(goals), 1)]]
    return ", ".join(f"{predictor_name(name)} {compact(trivial[name])}" for name in shown)


def _estimates(each: Record, arms: Sequence[ArmView]) -> list[Estimate]:
    """Dot and one standard error of each arm; nothing where no arm has an error."""
    found = []
    for arm in arms:
        value = _of(each, arm)
        mean, error = number(value.get("mean")), number(value.get("stderr"))
        if mean is not None:
            low, high = (None, None) if error is None else (mean - error, mean + error)
            said = figure(mean, stderr=error, decimals=decimals_for([mean], stderr=error))
            found.append(Estimate(name=arm.letter, value=mean, low=low, high=high, said=said, look=arm.look))
    return found if len(found) > 1 and any(estimate.low is not None for estimate in found) else []


def _contrasts(each: Record, arms: Sequence[ArmView]) -> list[Estimate]:
    letters = {arm.name: arm.letter for arm in arms}
    looks = {arm.name: arm.look for arm in arms}
    found = []
    for pair in differences_of(each):
        value, interval = number(pair.get("difference")), interval_of(pair)
        if value is not None and interval is not None:
            said = f"{compact_signed(interval[0])} to {compact_signed(interval[1])}"
            own = looks.get(str(pair.get("arm")), look(0))
            low, high = interval
            found.append(Estimate(name=_who(pair, letters), value=value, low=low, high=high, said=said, look=own))
    return found


def _who(pair: Record, letters: Mapping[str, str]) -> str:
    """`A − B`."""
    arm, against = str(pair.get("arm")), str(pair.get("against"))
    return f"{letters.get(arm, arm)} − {letters.get(against, against)}"


def _differing(item: Record, arms: Sequence[ArmView]) -> str:
    """One thing in which figures differ: `the split: A validation, B test`."""
    values = item.get("values")
    listed = values if isinstance(values, list) else []
    told = [f"{arm.letter} {value}" for arm, value in zip(arms, listed, strict=False)]
    return f"{item.get('what')}: {', '.join(told)}"


def _said(words: str) -> Cell:
    """A cell of words, on one line where they are few."""
    return words, "words short" if len(words) <= _ONE_LINE else "words"


def _judged(pair: Record, each: Record, arms: Sequence[ArmView], *, level: float) -> str:
    """What a difference comes to, in few words: `A is better`, `A is higher`, `no difference can be told`."""
    letters = {arm.name: arm.letter for arm in arms}
    winner, found, chance = text_or_none(pair.get("winner")), number(pair.get("difference")), pair.get("p_adjusted")
    if winner is not None:
        return f"{letters.get(winner, winner)} is better"
    if each.get("better") is None and found and (p := number(chance)) is not None and p <= 1 - level:
        first = str(pair.get("arm"))
        return f"{letters.get(first, first)} is {'higher' if found > 0 else 'lower'}"
    words = text_or_none(pair.get("verdict")) or ""
    return lettered(re.split(r": | \(", words, maxsplit=1)[0], arms)
