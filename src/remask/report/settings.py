"""Figures that were measured under several settings, such as numbers of steps: as panels and as one table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from remask.report.curves import predictor_name
from remask.report.panels import Line, Panel, finite_on, look
from remask.report.reading import Record, mapping, named_numbers, number, text_or_none
from remask.report.tables import decimals_for, figure, flatten

_MOST_QUALITY_PANELS = 4
_ACCURACY = ("accuracy_strict", "accuracy_flexible")
_STEPS_QUALITY = (
    *_ACCURACY,
    "judged_perplexity",
    "mauve",
    "entropy",
    "repetition",
    "distinct_2",
    "self_bleu",
    "word_share",
)
"""Figures of answers and samples in the order in which they are drawn over steps."""
_HELD_OUT = "held-out text"


@dataclass(frozen=True, kw_only=True)
class Pivot:
    """A table with a row a setting and a column a figure.

    Attributes:
        corner: what the settings are, e.g. `steps`.
        columns: (figure, unit).
        rows: (setting, what else differs, cells); a cell is empty where a figure was not measured under a setting.
        beside: the same of what the figures stand beside, where that is the same under all settings.
        protocol: the (key, value) pairs that all settings share.
    """

    corner: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    beside: tuple[tuple[str, tuple[str, ...]], ...]
    protocol: tuple[tuple[str, str], ...]


def latest_of(evaluations: Iterable[Record], *, task: str) -> list[Record]:
    """The newest measurement of each name and protocol, in the order in which they were first made."""
    found: dict[tuple[str, str], Record] = {}
    for record in evaluations:
        if record.get("task") == task and isinstance(record.get("name"), str):
            key = (str(record["name"]), json.dumps(record.get("protocol"), sort_keys=True, default=str))
            found[key] = record
    return list(found.values())


def newest_of(evaluations: Sequence[Record], *, task: str) -> list[Record]:
    """The measurements of the last evaluation of a task."""
    own = [record for record in evaluations if record.get("task") == task]
    last = own[-1] if own else {}
    key = "evaluation" if last.get("evaluation") is not None else "created"
    return [record for record in own if record.get(key) == last.get(key)]


def step_panels(evaluations: Sequence[Record]) -> list[Panel]:
    """Quality and latency over the number of denoising steps, and quality over latency; a line a sampler."""
    rows = [record for record in latest_of(evaluations, task="steps") if _steps(record) is not None]
    if not rows:
        return []
    names = list(dict.fromkeys(str(record["name"]) for record in rows))
    shown = [name for name in _STEPS_QUALITY if name in names][:_MOST_QUALITY_PANELS]
    panels = [_over_steps(rows, name) for name in shown]
    seconds = "seconds_per_sample"
    if seconds in names:
        panels.append(_over_steps(rows, seconds, y_scale="log"))
        panels += [_over_seconds(rows, name) for name in shown[:1]]
    drawn = [finite_on(panel) for panel in panels]
    return [panel for panel in drawn if panel.lines]


def pivot_of(records: Sequence[Record], *, by: str) -> Pivot | None:
    """Arranges measurements of which one key of the protocol differs into one row a setting.

    Args:
        records: of one task.
        by: the key; other keys that differ are told beside it.
    """
    kept = [record for record in records if by in mapping(record.get("protocol"))]
    if not kept:
        return None
    varying = _varying(kept)
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for record in kept:
        protocol = flatten(mapping(record.get("protocol")))
        rest = ", ".join(f"{_words(key)} {protocol[key]}" for key in sorted(varying - {by}) if key in protocol)
        cells.setdefault((protocol.get(by, ""), rest), {})[str(record["name"])] = cell_of(record)
    names = list(dict.fromkeys(str(record["name"]) for record in kept))
    units = {str(record["name"]): text_or_none(record.get("unit")) or "" for record in kept}
    return Pivot(
        corner=_words(by),
        columns=tuple((_words(name), units[name]) for name in names),
        rows=tuple((*setting, tuple(found.get(name, "") for name in names)) for setting, found in cells.items()),
        beside=_beside(kept, names),
        protocol=shared_protocol(kept, varying | {by}),
    )


def _varying(records: Sequence[Record]) -> set[str]:
    """Keys of the protocol that take several values for one figure: they make settings.

    A key that is the same wherever a figure has it, such as the judge of a perplexity, says how that figure is made.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    for record in records:
        for key, text in flatten(mapping(record.get("protocol"))).items():
            seen.setdefault((str(record["name"]), key), set()).add(text)
    return {key for (_, key), texts in seen.items() if len(texts) > 1}


def shared_protocol(records: Sequence[Record], varying: set[str]) -> tuple[tuple[str, str], ...]:
    """The keys that make no setting, each with its values; a key that some figures lack names those that have it."""
    names = list(dict.fromkeys(str(record["name"]) for record in records))
    found: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for key, text in flatten(mapping(record.get("protocol"))).items():
            if key not in varying:
                found.setdefault((key, text), []).append(str(record["name"]))
    told = []
    for (key, text), having in found.items():
        own = list(dict.fromkeys(map(_words, having)))
        told.append((_words(key) if len(own) == len(names) else f"{_words(key)} ({', '.join(own)})", text))
    return tuple(told)


def _beside(records: Sequence[Record], names: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What each trivial predictor gets for each figure, where that is one value; empty where it differs."""
    values: dict[str, dict[str, set[float]]] = {}
    for record in records:
        for trivial, value in named_numbers(record.get("trivial")).items():
            values.setdefault(trivial, {}).setdefault(str(record["name"]), set()).add(value)
    rows = []
    for trivial, found in values.items():
        cells = tuple(_plain(next(iter(found[name]))) if len(found.get(name, ())) == 1 else "" for name in names)
        if any(cells):
            rows.append((predictor_name(trivial), cells))
    return tuple(rows)


def _plain(value: float) -> str:
    """A number without an error as a cell of a table."""
    return figure(value, stderr=None, decimals=decimals_for([value], stderr=None))


def cell_of(record: Record) -> str:
    """A measurement's value and error as a cell of a table."""
    value, stderr = number(record.get("value")), number(record.get("stderr"))
    if value is None:
        return "not finite"
    return figure(value, stderr=stderr, decimals=decimals_for([value], stderr=stderr))


def _over_steps(rows: Sequence[Record], name: str, **scales: str) -> Panel:
    return Panel(
        title=_title(rows, name),
        x_label="denoising steps",
        lines=_lines(rows, name, over={}),
        levels=_held_out(rows, name),
        x_scale="log",
        **scales,  # pyright: ignore[reportArgumentType]
    )


def _over_seconds(rows: Sequence[Record], name: str) -> Panel:
    varying = _varying(rows)
    latency = {
        _setting(record, varying): value
        for record in rows
        if record["name"] == "seconds_per_sample" and (value := number(record.get("value"))) is not None
    }
    return Panel(
        title=_title(rows, name),
        x_label="seconds a sample (figures: steps)",
        lines=_lines(rows, name, over=latency),
        levels=_held_out(rows, name),
        x_scale="log",
    )


def _lines(rows: Sequence[Record], name: str, *, over: Mapping[tuple[str, ...], float]) -> list[Line]:
    """A line for each setting but the steps, over steps or over what `over` gives for a setting."""
    varying = _varying(rows)
    curves: dict[tuple[str, ...], list[tuple[float, float, float, str]]] = {}
    for record in rows:
        value, steps = number(record.get("value")), _steps(record)
        x = over.get(_setting(record, varying)) if over else steps
        if record["name"] == name and value is not None and x is not None and steps is not None:
            point = (x, value, number(record.get("stderr")) or 0.0, f"{steps:g}")
            curves.setdefault(_setting(record, varying - {"steps"}), []).append(point)
    samplers = {flatten(mapping(record.get("protocol"))).get("sampler", "") for record in rows}
    sampler = samplers.pop() or "this run" if len(samplers) == 1 else "this run"
    return [
        Line(
            name=", ".join(setting) or sampler,
            points=[(x, y) for x, y, *_ in sorted(points)],
            errors=[error for _, _, error, _ in sorted(points)],
            notes=[note for *_, note in sorted(points)] if over else (),
            look=look(k),
        )
        for k, (setting, points) in enumerate(curves.items())
    ]


def _setting(record: Record, varying: set[str]) -> tuple[str, ...]:
    """What tells a row's setting from others, in words, the sampler by its name alone."""
    protocol = flatten(mapping(record.get("protocol")))
    keys = sorted(varying & protocol.keys(), key=lambda key: (key != "sampler", key))
    return tuple(protocol[key] if key == "sampler" else f"{_words(key)} {protocol[key]}" for key in keys)


def _held_out(rows: Sequence[Record], name: str) -> list[tuple[str, float]]:
    """What held-out text gets for a figure, or who answers without a network, where that is one value."""
    beside = [named_numbers(record.get("trivial")) for record in rows if record["name"] == name]
    names = dict.fromkeys(who for found in beside for who in found if who == _HELD_OUT or name in _ACCURACY)
    values = {who: {found[who] for found in beside if who in found} for who in names}
    return [(predictor_name(who), next(iter(own))) for who, own in values.items() if len(own) == 1]


def _title(rows: Sequence[Record], name: str) -> str:
    unit = next((text_or_none(record.get("unit")) for record in rows if record["name"] == name), None)
    return f"{_words(name)}, {unit}" if unit else _words(name)


def _steps(record: Record) -> float | None:
    return number(mapping(record.get("protocol")).get("steps"))


def _words(name: str) -> str:
    return name.replace("_", " ")
